"""What every trainer here adds to `transformers.Trainer`: arguments, a progress bar, and checkpoints that resume."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import nn
from tqdm import tqdm

from mmrlhf_core.data import storage
from mmrlhf_core.training import checkpoints

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def check_choice(name: str, given: str, allowed: Iterable[str]) -> None:
    """Refuse a value that is not one of `allowed`."""
    if given not in allowed:
        raise ValueError(f"{name} is {given!r}; it has to be one of {', '.join(allowed)}.")


def arguments(folder: str | Path, **given: Any) -> hf.TrainingArguments:
    """`TrainingArguments` for the trainers here: all columns kept, NaN losses not filtered, by default no reports."""
    fixed = {"remove_unused_columns": False, "logging_nan_inf_filter": False, "label_names": []}
    defaults = {"report_to": [], "logging_steps": 10, "save_strategy": "no", "ddp_find_unused_parameters": False}
    defaults |= {"dataloader_pin_memory": torch.cuda.is_available()}
    return hf.TrainingArguments(output_dir=str(folder), **{**defaults, **given, **fixed})


class ProgressBar(hf.TrainerCallback):
    """One progress bar with the remaining time and the loss."""

    def __init__(self, desc: str) -> None:
        self.desc = desc

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.desc, unit="step")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if "loss" in given["logs"]:
            self.bar.set_postfix(loss=f"{given['logs']['loss']:.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()


class ResumingTrainer(hf.Trainer):
    """`transformers.Trainer` that resumes from the last whole checkpoint in its output folder."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.statistics: list[float] = []  # running numbers of a loss, saved with every checkpoint

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(str(self.args.output_dir))

    @property
    def layout(self) -> str:
        """How the model is distributed, such as NO, MULTI_GPU, FSDP, DEEPSPEED-3."""
        kind = str(self.accelerator.distributed_type.value)
        return kind + (f"-{self.accelerator.state.deepspeed_plugin.zero_stage}" if self.is_deepspeed_enabled else "")

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint, and its `complete.json` when every process has written its part."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = self.folder / f"checkpoint-{self.state.global_step}"
            facts = {"step": self.state.global_step, "layout": self.layout, "processes": self.args.world_size}
            storage.write_json(folder.resolve() / checkpoints.COMPLETE, {**facts, "statistics": self.statistics})

    def resume(self) -> Any:
        """Train from the last whole checkpoint in the output folder, or from the start when there is none."""
        with self.accelerator.main_process_first():
            checkpoints.discard_partial(self.folder)
        last = checkpoints.last(self.folder)
        if last is None:
            return self.train()
        saved = storage.read_json(last.resolve() / checkpoints.COMPLETE)
        checkpoints.check_layout(saved, self.layout, self.args.world_size)
        self.statistics = saved["statistics"]
        return self.train(resume_from_checkpoint=str(last))
