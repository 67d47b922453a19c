"""The stage `preference`: ranked rows with margins, and the reference's log-probabilities of their responses.

`python -m mmrlhf_study.pipeline.preference` writes data/preference. It stands between the reward model and everything
that trains on pairs: another β, w, k, arm or seed needs neither a pass of the reward model nor one of the reference.
"""

import sys
from dataclasses import asdict, replace

import transformers as hf

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Pair, Query, Response
from mmrlhf_core.models import policy
from mmrlhf_core.rollout.score import Margin
from mmrlhf_core.training import environment, job, launch
from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_core.training.job import Job
from mmrlhf_study.chapters import experiment, ranked_rows
from mmrlhf_study.chapters.experiment import HARDEST, PLACE, SHUFFLED, TRAIN, Experiment
from mmrlhf_study.pipeline import params
from mmrlhf_study.pipeline.sections import MmDpoParams, Params

BASE = "models/base"


def shared(s: MmDpoParams, threads: int) -> Experiment:
    """The experiment of a section of params.yaml."""
    return experiment.shared(
        BASE, s.media, s.frames, s.dtype, threads, s.epochs, s.batch, s.accumulation, s.rate, s.lora_rank,
        s.checkpointing, s.layout, s.processes,
    )  # fmt: skip


def rows(queries: int, seed: int) -> dict[str, list[RankedRow]]:
    """The rows of every file: train and its two variants on the same queries, dev, test."""
    kinds = {"queries": Query, "responses": Response, "pairs": Pair}
    asked, said, pairs = (records.read(f"data/annotations/{name}.parquet", kind) for name, kind in kinds.items())
    margins = records.read("data/rewards/margins.parquet", Margin)
    made = ranked_rows.build(asked, said, pairs, margins)
    train = ranked_rows.sample(made[TRAIN], queries, seed)
    if not train:
        raise ValueError("No pair is in part train, so there is nothing to train on; lower the held-out shares.")
    names = {row.id for row in train}
    hardest = ranked_rows.build(asked, said, ranked_rows.hardest(pairs), margins)[TRAIN]
    variants = {HARDEST: [row for row in hardest if row.id in names], SHUFFLED: ranked_rows.shuffled(train, seed)}
    return {**made, TRAIN: train, **variants}


def fill(own: Job, layout: str, processes: int) -> None:
    """Compute the reference of a job's rows, in this process or in many."""
    if layout:
        storage.write_json("scratch/preference/reference.json", asdict(own))
        launch.run("scratch/preference/reference.json", layout, processes)
    else:
        processor = hf.AutoProcessor.from_pretrained(policy.locate(own.model), local_files_only=True)
        job.reference_cache(own, records.read(own.rows, RankedRow), processor)


def make(settings: Params) -> None:
    """Write data/preference."""
    s = settings.mm_dpo
    environment.begin(settings.base.seed, settings.base.threads)
    for name, found in rows(s.queries, settings.base.seed).items():
        records.write(f"{PLACE}/{name}.parquet", found, RankedRow)
        print(f"{name}: {len(found)} queries, {sum(len(row.winners) for row in found)} pairs")
    together = shared(s, settings.base.threads)
    fill(replace(together.job, rows=f"{PLACE}/{TRAIN}.parquet"), s.layout, s.processes)


def main() -> int:
    try:
        make(params.read())
    except (ValueError, OSError) as error:
        print(f"preference: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
