"""The stage `preference`: ranked rows with margins, and the reference's log-probabilities of their responses.

`python -m mmrlhf_study.pipeline.preference` writes data/preference, which every training on pairs reads: another β, w,
k, arm or seed needs no pass of the reward model or of the reference.
"""

import sys
from dataclasses import asdict, replace

import transformers as hf

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Pair, Query, Response
from mmrlhf_core.models import policy
from mmrlhf_core.rollout.score import Margin
from mmrlhf_core.training import dataset, environment, job, launch
from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_core.training.job import Job
from mmrlhf_study.chapters import experiment
from mmrlhf_study.chapters.experiment import BASE, HARDEST, ROWS_FOLDER, SHUFFLED, TRAIN, TrainingSettings
from mmrlhf_study.pipeline import params
from mmrlhf_study.pipeline.sections import Params


def rows(count: int, seed: int) -> dict[str, list[RankedRow]]:
    """The rows of every file. At most `count` queries are in train and in its two variants; dev and test have all."""
    kinds = {"queries": Query, "responses": Response, "pairs": Pair}
    queries, responses, pairs = (records.read(f"data/annotations/{name}.parquet", kind) for name, kind in kinds.items())
    margins = records.read("data/rewards/margins.parquet", Margin)
    parts = dataset.ranked_rows(queries, responses, pairs, margins)
    train = experiment.sample(parts[TRAIN], count, seed)
    if not train:
        raise ValueError("No pair is in part train, so there is nothing to train on; lower the held-out shares.")
    names = {row.id for row in train}
    hardest = dataset.ranked_rows(queries, responses, experiment.hardest(pairs), margins)[TRAIN]
    variants = {HARDEST: [row for row in hardest if row.id in names], SHUFFLED: experiment.shuffled(train, seed)}
    return {**parts, TRAIN: train, **variants}


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
    s, base = settings.mm_dpo, settings.base
    environment.begin(base.seed, base.threads)
    for name, part in rows(s.queries, base.seed).items():
        records.write(f"{ROWS_FOLDER}/{name}.parquet", part, RankedRow)
        print(f"{name}: {len(part)} queries, {sum(len(row.winners) for row in part)} pairs")
    own = TrainingSettings.of(s, base.threads).job(BASE)
    fill(replace(own, rows=f"{ROWS_FOLDER}/{TRAIN}.parquet"), s.layout, s.processes)


def main() -> int:
    try:
        make(params.read())
    except (ValueError, OSError) as error:
        print(f"preference: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
