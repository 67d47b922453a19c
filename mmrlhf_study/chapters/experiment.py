"""Arms × seeds: the same base, queries, steps and reference for every run, so that only the objective differs.

Every run is a `job.Job`. Small ones train one after the other in this process, from examples that are encoded once;
large ones are launched in many processes. A run that is whole is not trained again, and one that was cut short goes on
from its last checkpoint: its folder is named after everything that decides its outcome.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import peft
import transformers as hf

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.names import nearest
from mmrlhf_core.models import policy
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.training import dataset, environment, job, launch, reference
from mmrlhf_core.training.dataset import RankedExample, RankedRow
from mmrlhf_core.training.job import Job
from mmrlhf_core.training.losses import Objective
from mmrlhf_study.pipeline import imports

TRAIN, HARDEST, SHUFFLED = "train", "train_hardest", "train_shuffled"
RELEASED_SETTINGS = {"w": 0.1, "sft_weight": 0.25}  # what the authors' released script passes
HELD = 2**31  # bytes of encoded pictures up to which a run's examples stay in memory
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PLACE = "data/preference"  # folder of the ranked rows and the reference cache
RUNS = "scratch/preference"  # folder of the runs until their policies are kept


@dataclass(frozen=True)
class Arm:
    """One arm: its objective, and the rows it is trained on by the name of their file."""

    name: str
    objective: Objective
    rows: str = TRAIN


def weighted(sft_weight: float) -> str:
    """The name of MM-DPO with another SFT weight."""
    return f"mm_dpo_sft_{sft_weight:g}"


def arms(others: Sequence[str], o: Objective, mean_beta: float, sft_weights: Sequence[float] = ()) -> list[Arm]:
    """MM-DPO with settings `o`, the other arms of these names, and MM-DPO with every other SFT weight.

    `constant_beta` is DPO at `mean_beta`, the mean of β(δ) over the training pairs.
    """
    known = {name: Arm(name, replace(o, loss=name)) for name in ("dpo", "beta_dpo", "odpo", "robust_dpo")}
    known |= {
        "sft": Arm("sft", replace(o, loss="sft", sft_weight=0.0)),
        "hardest": Arm("hardest", o, HARDEST),
        "shuffled": Arm("shuffled", o, SHUFFLED),
        "constant_beta": Arm("constant_beta", replace(o, loss="dpo", beta_ori=mean_beta)),
        "released": Arm("released", replace(o, loss="released", **RELEASED_SETTINGS)),
    }
    for name in others:
        if name not in known:
            raise ValueError(f"No arm {name!r}. {nearest(name, known)}")
    weights = [weight for weight in sft_weights if weight != o.sft_weight]
    tried = [Arm(weighted(weight), replace(o, sft_weight=weight)) for weight in weights]
    return [Arm("mm_dpo", o), *(known[name] for name in others), *tried]


@cache
def code(root: Path = imports.ROOT) -> str:
    """Hash of the code that trains, below `root`: a run is not resumed by another trainer; a plot changes nothing."""
    files = imports.closure([job.__name__], root)
    return storage.sha256_bytes(b"\0".join((root / file).read_bytes() for file in files))


class TrainingRun(NamedTuple):
    """One finished run: its arm, its seed, its folder with `final/`, and what it logged."""

    arm: str
    seed: int
    folder: Path
    history: list[dict[str, float]]


@dataclass(frozen=True)
class Experiment:
    """What all runs share.

    `job` gives everything but `rows`, `objective`, `output` and `seed`, which are each run's own; `rows` is the folder
    of the files of ranked rows. A blank `layout` trains in this process.
    """

    job: Job
    rows: str
    layout: str = ""
    processes: int = 1
    _kept: dict[str, Sequence[RankedExample]] = field(default_factory=dict, repr=False)

    @property
    def processor(self) -> hf.ProcessorMixin:
        return hf.AutoProcessor.from_pretrained(policy.locate(self.job.model), local_files_only=True)

    def examples(self, name: str) -> Sequence[RankedExample]:
        """The rows of a file with their reference log-probabilities from the cache.

        What fits into `HELD` bytes is encoded once for all runs, more than that again whenever it is asked for.
        """
        if name not in self._kept:
            rows, processor = records.read(f"{self.rows}/{name}.parquet", RankedRow), self.processor
            known = job.reference_cache(self.job, rows, processor)
            data = dataset.Encoded(rows, processor, self.job.media, self.job.frames, known)
            size = sum(tensor.nbytes for tensor in data[0].query.media.values()) * len(data)
            self._kept[name] = [data[number] for number in range(len(data))] if size < HELD else data
        return self._kept[name]

    def job_of(self, arm: Arm, seed: int) -> Job:
        """The job of one run, in a folder named after all that decides its outcome."""
        own = replace(self.job, rows=f"{self.rows}/{arm.rows}.parquet", objective=asdict(arm.objective), seed=seed)
        base = reference.identity(policy.locate(own.model), job.DTYPES[own.dtype])
        parts = [json.dumps(asdict(own), sort_keys=True), storage.sha256_file(storage.path(own.rows)), base, code()]
        name = f"{arm.name}-{seed}-{storage.sha256_bytes(' '.join(parts).encode())[:12]}"
        return replace(own, output=f"{RUNS}/{name}")

    def run(self, arm: Arm, seed: int, watching: Sequence[hf.TrainerCallback] = ()) -> TrainingRun:
        """Train one arm with one seed, unless that is done; `watching` only sees runs of this process."""
        own = self.job_of(arm, seed)
        folder = storage.path(own.output)
        if not (folder / job.HISTORY).is_file():
            if self.layout:
                storage.write_json(folder / "job.json", asdict(own))
                launch.run(folder / "job.json", self.layout, self.processes)
            else:
                environment.begin(seed, own.threads)
                job.train(own, self.examples(arm.rows), self.processor, list(watching))
        return TrainingRun(arm.name, seed, folder, storage.read_json(folder / job.HISTORY))

    def policy(self, run: TrainingRun) -> Policy:
        """What a run has trained, adapters merged into the base."""
        final = run.folder / "final"
        if not (final / "adapter_config.json").is_file():
            return policy.load(str(final))
        base = policy.load(self.job.model, job.DTYPES[self.job.dtype])
        adapted = peft.PeftModel.from_pretrained(base.model, str(final))
        return Policy(adapted.merge_and_unload().eval(), base.processor)


LOGGED = {  # columns of a learning curve, and what a trainer calls them
    "sft loss": "loss/sft",
    "chosen": "logratios/chosen",
    "rejected": "logratios/rejected",
    "log p chosen": "logps/chosen",
    "log p rejected": "logps/rejected",
    "margin": "rewards/margin",
    "accuracy": "rewards/accuracy",
    "beta": "beta/p50",
    "least beta": "beta/min",
    "most beta": "beta/max",
}


def curve(run: TrainingRun, number: int, watched: Sequence[Mapping[str, float]] = ()) -> list[dict[str, str | float]]:
    """What a run logged, a row for each step, and what was watched of it (KL, length), as rows of their own."""
    head = {"arm": run.arm, "seed": number}
    rows = []
    for entry in run.history:
        if "loss" in entry:
            main = [name for name in entry if name.startswith("loss/") and name != LOGGED["sft loss"]]
            seen = {column: entry[name] for column, name in LOGGED.items() if name in entry}
            rows.append({**head, "step": entry["step"], **({"loss": entry[main[0]]} if main else {}), **seen})
    return rows + [{**head, **row} for row in watched]


def shared(
    model: str, media: str, frames: int, dtype: str, threads: int, epochs: float, batch: int, accumulation: int,
    rate: float, lora_rank: int, checkpointing: bool, layout: str, processes: int,
) -> Experiment:  # fmt: skip
    """The experiment of these parameters: cosine schedule after a tenth of warm-up, as in the release.

    `batch` counts queries of one process and micro-batch, `lora_rank` 0 trains all weights. Launched runs keep their
    last two checkpoints.
    """
    training = {
        "num_train_epochs": epochs, "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation,
        "learning_rate": rate, "lr_scheduler_type": "cosine", "warmup_steps": 0.1, "logging_steps": 0.1,
    }  # fmt: skip
    training |= {"bf16": True} if dtype == "bfloat16" else {}
    training |= {"save_strategy": "steps", "save_steps": 0.2, "save_total_limit": 2} if layout else {}
    lora = {"r": lora_rank, "lora_alpha": 2 * lora_rank, "target_modules": list(PROJECTIONS)}
    lora["exclude_modules"] = r".*(vision_tower|visual).*"
    own = Job(
        model=model, rows="", media=media, reference=f"{PLACE}/reference", output="",
        training=training, lora=lora if lora_rank else {}, dtype=dtype, frames=frames, threads=threads,
        checkpointing=checkpointing,
    )  # fmt: skip
    return Experiment(own, PLACE, layout, processes)
