"""One preference run described by a JSON file: the same on one CPU, under `accelerate launch`, and on many nodes.

`python -m mmrlhf_core.training.job job.json` trains in one process; `launch.py` starts it in many. An interrupted run
resumes from its last whole checkpoint. The result is an ordinary model folder, `<output>/final`.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import accelerate
import peft
import torch
import transformers as hf

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.names import check_names
from mmrlhf_core.models import policy
from mmrlhf_core.ranked.attention import prepare
from mmrlhf_core.training import dataset, environment, reference
from mmrlhf_core.training.base import DTYPES, arguments, check_choice
from mmrlhf_core.training.dataset import Encoded, Examples, RankedRow
from mmrlhf_core.training.losses import Objective
from mmrlhf_core.training.preference import PreferenceTrainer
from mmrlhf_core.training.reference import ReferenceCache
from mmrlhf_core.training.trainer import RankedModel, prepared

HISTORY = "history.json"


@dataclass(frozen=True)
class Job:
    """Files and folders as the project sees them, the objective, and what `TrainingArguments` takes."""

    model: str  # checkpoint to start from, which is also the reference
    rows: str  # Parquet file of `dataset.RankedRow`
    media: str  # folder the rows' media lie in
    reference: str  # folder of the reference cache
    output: str  # folder for checkpoints and the result; blank: the reference cache is filled and nothing is trained
    objective: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    lora: Mapping[str, Any] = field(default_factory=dict)  # what `peft.LoraConfig` takes; empty: all weights train
    dtype: str = "float32"
    frames: int = 8
    seed: int = 0
    threads: int = 1
    train_tower: bool = False
    checkpointing: bool = False


def read(file: str | Path) -> Job:
    """A job file; an unknown or missing name is an error with the nearest valid one."""
    content = storage.read_json(file)
    names = [item.name for item in fields(Job)]
    given = {**dict.fromkeys(names[5:]), **content}
    check_names(str(file), given, names)
    objective = [item.name for item in fields(Objective)]
    check_names(f"{file}, objective", {**dict.fromkeys(objective), **content.get("objective", {})}, objective)
    check_choice("dtype", content.get("dtype", "float32"), DTYPES)
    return Job(**content)


def _where() -> dict[str, Any]:
    """Extra arguments for a machine without a GPU; `use_cpu` would turn DeepSpeed off."""
    if torch.cuda.is_available():
        return {}
    with_deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    if with_deepspeed:
        _without_compiler()
    return {"use_cpu": not with_deepspeed} | ({"ddp_backend": "gloo"} if "LOCAL_RANK" in os.environ else {})


def _without_compiler() -> None:
    """Use the plain gloo backend: DeepSpeed would first compile an all-reduce that only its inference uses."""
    import deepspeed.ops  # only where DeepSpeed runs: its import takes seconds

    deepspeed.ops.__compatible_ops__ = {}


def _model(job: Job) -> hf.PreTrainedModel:
    """The starting model in training precision, with its attention on trees."""
    return prepare(policy.load(job.model, DTYPES[job.dtype]).model)


def reference_cache(job: Job, rows: Sequence[RankedRow], processor: hf.ProcessorMixin) -> ReferenceCache:
    """The filled cache. Every process computes its share of what is missing, before the model is split."""
    where = _where()
    state = accelerate.PartialState(cpu=where.get("use_cpu", False), backend=where.get("ddp_backend"))
    cache = ReferenceCache(job.reference, reference.identity(policy.locate(job.model), DTYPES[job.dtype]))
    own = rows[state.process_index :: state.num_processes]
    reference.fill(
        cache,
        (dataset.encode(processor, row, job.media, job.frames) for row in own),
        lambda: _model(job).to(state.device),
    )
    state.wait_for_everyone()
    cache.reload()
    return cache


def trainable(job: Job) -> RankedModel:
    """The model that trains: the vision tower frozen unless asked for, LoRA where asked for."""
    model = prepared(policy.load(job.model, DTYPES[job.dtype]).model, job.train_tower, job.checkpointing)
    return RankedModel(peft.get_peft_model(model, peft.LoraConfig(**job.lora)) if job.lora else model)


def train(
    job: Job, data: Examples, processor: hf.ProcessorMixin,
    callbacks: Sequence[hf.TrainerCallback] | None = None,
) -> list[dict[str, float]]:  # fmt: skip
    """Train on examples that carry their reference, write `<output>/final`, and return the logged history.

    Without `callbacks`, the logged numbers are printed. The history is written last: where it exists, the run is whole.
    """
    folder = storage.path(job.output)
    args = arguments(folder, **{"seed": job.seed, "disable_tqdm": True, **_where(), **job.training})
    trainer = PreferenceTrainer(
        trainable(job),
        args,
        data,
        Objective(**job.objective),
        processing_class=processor,
        callbacks=list(callbacks or ()),
    )
    if callbacks is not None:
        trainer.remove_callback(hf.PrinterCallback)
    if args.should_save:
        storage.write_json(folder / "job.json", asdict(job))
    trainer.resume()
    trainer.save_model(str(folder / "final"))
    if args.should_save:
        storage.write_json(folder / HISTORY, trainer.state.log_history)
    return trainer.state.log_history


def run(job: Job) -> None:
    """Run a job in this process, or in each of many."""
    environment.begin(job.seed, job.threads)
    rows = records.read(job.rows, RankedRow)
    processor = hf.AutoProcessor.from_pretrained(policy.locate(job.model), local_files_only=True)
    cache = reference_cache(job, rows, processor)
    # from here on the model is loaded in pieces where ZeRO-3 says so
    if job.output:
        train(job, Encoded(rows, processor, job.media, job.frames, cache), processor)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Give one job file: python -m mmrlhf_core.training.job job.json")
    run(read(sys.argv[1]))
    state = accelerate.PartialState()
    state.wait_for_everyone()
    state.destroy_process_group()  # left to the end of the program, its threads sometimes abort a finished run
