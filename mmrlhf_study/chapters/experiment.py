"""Experiments of arms and seeds: all runs share base, queries, steps and reference; arm and seed differ.

Every run is a `job.Job`. Runs without a layout train in this process, one by one, on examples encoded once; the others
are launched in processes of their own. A run's folder name is a hash of all its inputs: a finished run is reused, an
interrupted one is resumed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import ClassVar, NamedTuple, Self

import numpy as np
import peft
import torch
import transformers as hf

from mmrlhf_core.data import annotated, records, storage
from mmrlhf_core.data.names import nearest
from mmrlhf_core.data.records import Pair, Record, column
from mmrlhf_core.models import policy
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.objectives import preference
from mmrlhf_core.training import dataset, environment, job, launch, reference
from mmrlhf_core.training.dataset import RankedExample, RankedRow
from mmrlhf_core.training.job import Job
from mmrlhf_core.training.losses import Objective
from mmrlhf_study.annotation import graph
from mmrlhf_study.pipeline import imports

BASE = "models/base"  # policy that every run starts from, which is also the reference
TRAIN, HARDEST, SHUFFLED = "train", "train_hardest", "train_shuffled"  # files of training rows
ROWS_FOLDER = "data/preference"  # the ranked rows and the reference cache
RUNS_FOLDER = "scratch/preference"  # temporary folder of the runs
RELEASED_SETTINGS = {"w": 0.1, "sft_weight": 0.25}  # what the authors' released script passes
ENCODED_BYTES = 2**31  # bytes of pictures below which the examples stay in memory
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ARM_NAMES = {
    "base": "base",
    "sft": "SFT on chosen",
    "dpo": "DPO",
    "beta_dpo": "β-DPO (implicit reward)",
    "odpo": "DPO with offset",
    "robust_dpo": "robust DPO",
    "mm_dpo": "MM-DPO",
    "hardest": "MM-DPO, hardest pairs",
    "shuffled": "MM-DPO, shuffled δ",
    "constant_beta": "DPO at the mean β(δ)",
    "released": "the release's code",
}
LOGGED = {  # columns of a learning curve, and the trainer's names for them
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


# ---------------------------------------------------------------- arms


@dataclass(frozen=True)
class Arm:
    """One arm of an experiment: its objective, and the file of the rows it trains on."""

    name: str
    objective: Objective
    rows: str = TRAIN


def weighted(sft_weight: float) -> str:
    """The name of MM-DPO with another SFT weight."""
    return f"mm_dpo_sft_{sft_weight:g}"


def label(arm: str) -> str:
    """An arm in words."""
    return ARM_NAMES.get(arm) or f"MM-DPO, SFT weight {arm.rpartition('_')[2]}"


def arms(others: Sequence[str], o: Objective, mean_beta: float, sft_weights: Sequence[float] = ()) -> list[Arm]:
    """MM-DPO with settings `o`, the arms named in `others`, and MM-DPO with each other SFT weight.

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
    return [
        Arm("mm_dpo", o),
        *(known[name] for name in others),
        *(Arm(weighted(weight), replace(o, sft_weight=weight)) for weight in weights),
    ]


# ---------------------------------------------------------------- runs


@dataclass(frozen=True)
class TrainingSettings:
    """How every run of an experiment trains. Names are as in the chapters' sections of params.yaml.

    `batch` counts the queries of one process and micro-batch; `lora_rank` 0 trains all weights; a blank `layout`
    trains in this process.
    """

    media: str
    frames: int
    dtype: str
    threads: int
    epochs: float
    batch: int
    accumulation: int
    rate: float
    lora_rank: int
    checkpointing: bool
    layout: str = ""
    processes: int = 1

    @classmethod
    def of(cls, section: object, threads: int) -> Self:
        """The settings in a section of params.yaml."""
        names = [item.name for item in fields(cls) if item.name != "threads"]
        return cls(threads=threads, **{name: getattr(section, name) for name in names})

    def job(self, model: str) -> Job:
        """A job for `model` without rows and output; cosine schedule with 10 % warm-up, as released.

        Launched runs keep their last two checkpoints.
        """
        training = {
            "num_train_epochs": self.epochs, "per_device_train_batch_size": self.batch,
            "gradient_accumulation_steps": self.accumulation, "learning_rate": self.rate,
            "lr_scheduler_type": "cosine", "warmup_steps": 0.1, "logging_steps": 0.1,
        }  # fmt: skip
        training |= {"bf16": True} if self.dtype == "bfloat16" else {}
        training |= {"save_strategy": "steps", "save_steps": 0.2, "save_total_limit": 2} if self.layout else {}
        lora = {"r": self.lora_rank, "lora_alpha": 2 * self.lora_rank, "target_modules": list(PROJECTIONS)}
        lora["exclude_modules"] = r".*(vision_tower|visual).*"
        return Job(
            model=model, rows="", media=self.media, reference=f"{ROWS_FOLDER}/reference", output="",
            training=training, lora=lora if self.lora_rank else {}, dtype=self.dtype, frames=self.frames,
            threads=self.threads, checkpointing=self.checkpointing,
        )  # fmt: skip


@cache
def code(root: Path = imports.ROOT) -> str:
    """Hash of the training code below `root`, so that a run is not resumed by changed code."""
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

    `job` has all settings but `rows`, `objective`, `output` and `seed`, which are set per run. `rows` is the folder of
    the files of ranked rows. `encoded` keeps the examples of each file.
    """

    job: Job
    rows: str = ROWS_FOLDER
    layout: str = ""
    processes: int = 1
    encoded: dict[str, Sequence[RankedExample]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, model: str, settings: TrainingSettings) -> Self:
        """An experiment that starts from `model`."""
        return cls(settings.job(model), layout=settings.layout, processes=settings.processes)

    @property
    def processor(self) -> hf.ProcessorMixin:
        return hf.AutoProcessor.from_pretrained(policy.locate(self.job.model), local_files_only=True)

    def examples(self, name: str) -> Sequence[RankedExample]:
        """The rows of a file with their reference log-probabilities from the cache.

        Up to `ENCODED_BYTES` they are encoded once for all runs; a larger file is encoded on each access.
        """
        if name not in self.encoded:
            rows, processor = records.read(f"{self.rows}/{name}.parquet", RankedRow), self.processor
            known = job.reference_cache(self.job, rows, processor)
            data = dataset.Encoded(rows, processor, self.job.media, self.job.frames, known)
            size = sum(tensor.nbytes for tensor in data[0].query.media.values()) * len(data)
            self.encoded[name] = [data[number] for number in range(len(data))] if size < ENCODED_BYTES else data
        return self.encoded[name]

    def job_of(self, arm: Arm, seed: int) -> Job:
        """The job of one run, in a folder named by a hash of all its inputs."""
        own = replace(self.job, rows=f"{self.rows}/{arm.rows}.parquet", objective=asdict(arm.objective), seed=seed)
        base = reference.identity(policy.locate(own.model), job.DTYPES[own.dtype])
        parts = [json.dumps(asdict(own), sort_keys=True), storage.sha256_file(storage.path(own.rows)), base, code()]
        name = f"{arm.name}-{seed}-{storage.sha256_bytes(' '.join(parts).encode())[:12]}"
        return replace(own, output=f"{RUNS_FOLDER}/{name}")

    def run(self, arm: Arm, seed: int, callbacks: Sequence[hf.TrainerCallback] = ()) -> TrainingRun:
        """Train one arm with one seed if not done yet; `callbacks` work only in this process."""
        own = self.job_of(arm, seed)
        folder = storage.path(own.output)
        if not (folder / job.HISTORY).is_file():
            if self.layout:
                storage.write_json(folder / "job.json", asdict(own))
                launch.run(folder / "job.json", self.layout, self.processes)
            else:
                environment.begin(seed, own.threads)
                job.train(own, self.examples(arm.rows), self.processor, list(callbacks))
        return TrainingRun(arm.name, seed, folder, storage.read_json(folder / job.HISTORY))

    def policy(self, run: TrainingRun) -> Policy:
        """The policy that a run has trained, adapters merged into the base."""
        final = run.folder / "final"
        if not (final / "adapter_config.json").is_file():
            return policy.load(str(final))
        base = policy.load(self.job.model, job.DTYPES[self.job.dtype])
        adapted = peft.PeftModel.from_pretrained(base.model, str(final))
        return Policy(adapted.merge_and_unload().eval(), base.processor)


def curve(run: TrainingRun, number: int, own: Sequence[Mapping[str, float]] = ()) -> list[dict[str, str | float]]:
    """What a run logged, a row for each step, then the rows of a monitor of the policy's answers (KL, length)."""
    head = {"arm": run.arm, "seed": number}
    rows = []
    for entry in run.history:
        if "loss" in entry:
            loss = [name for name in entry if name.startswith("loss/") and name != LOGGED["sft loss"]]
            logged = {column_: entry[name] for column_, name in LOGGED.items() if name in entry}
            rows.append({**head, "step": entry["step"], **({"loss": entry[loss[0]]} if loss else {}), **logged})
    return rows + [{**head, **row} for row in own]


# ---------------------------------------------------------------- variants of the rows


def hardest(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs with the largest rank difference of each query: best against worst.

    Published pairs lack this difference; it is taken from their ranking, if they form a complete one.
    """
    kept = []
    for of_query in annotated.by_query(pairs).values():
        order = graph.ranking(of_query)
        rank = dict(zip(order.responses, order.ranks, strict=True)) if order else {}
        steps = [rank[pair.rejected] - rank[pair.chosen] if rank else pair.steps for pair in of_query]
        kept += [pair for pair, between in zip(of_query, steps, strict=True) if between == max(steps)]
    return kept


def sample(rows: Sequence[RankedRow], count: int, seed: int) -> list[RankedRow]:
    """`count` random rows in their original order; all rows if `count` is 0 or not below their number."""
    if not 0 < count < len(rows):
        return list(rows)
    chosen = sorted(Random(f"rows {seed}").sample(range(len(rows)), count))
    return [rows[number] for number in chosen]


def shuffled(rows: Sequence[RankedRow], seed: int) -> list[RankedRow]:
    """The same margins, assigned to pairs at random: same distribution of β, no relation to the pair."""
    dealt = iter(np.random.default_rng(seed).permutation([delta for row in rows for delta in row.margins]).tolist())
    return [replace(row, margins=tuple(next(dealt) for _ in row.margins)) for row in rows]


@dataclass(frozen=True, slots=True)
class PairBeta(Record):
    """MM-DPO's β of one pair."""

    VERSION: ClassVar[int] = 1

    query: str = column("id of the query", filled=True)
    winner: int = column("number of the better response in the query's ranked row")
    loser: int = column("number of the worse response")
    delta: float = column("the reward model's margin δ")
    beta: float = column("β(δ), §4 of the paper; 0 if the pair is dropped")


def betas(rows: Iterable[RankedRow], o: Objective) -> list[PairBeta]:
    """β(δ) of every pair of the rows, in order, from the function that training uses."""
    every = []
    for row in rows:
        delta = torch.tensor(row.margins, dtype=torch.double)
        beta = preference.dynamic_beta(delta, o.beta_ori, o.w, o.k, o.negative_margin).tolist()
        values = zip(row.winners, row.losers, row.margins, beta, strict=True)
        every += [PairBeta(row.id, *value) for value in values]
    return every
