"""Checkpoint folders: which ones are whole, which layout can resume them, and how their files are loaded.

A checkpoint folder holds an ordinary model folder and the training state. DeepSpeed's own files fit only the same
ZeRO stage and number of processes; so Adam's moments are also written by parameter name, and a run under any layout
can be resumed in plain processes.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

COMPLETE = "complete.json"
OPTIMIZER_FILE = "moments.safetensors"
ADAM = ("exp_avg", "exp_avg_sq")


def last(folder: str | Path) -> Path | None:
    """The newest whole checkpoint in `folder`; a partly written one does not count."""
    whole = [file.parent for file in Path(folder).glob(f"checkpoint-*/{COMPLETE}")]
    return max(whole, key=lambda checkpoint: int(checkpoint.name.split("-")[-1]), default=None)


def discard_partial(folder: str | Path) -> None:
    """Remove partly written checkpoints."""
    for partial in Path(folder).glob("checkpoint-*"):
        if not (partial / COMPLETE).is_file():
            shutil.rmtree(partial)


def check_layout(saved: dict[str, Any], layout: str, processes: int) -> None:
    """Refuse to resume where the optimizer's state does not fit.

    DeepSpeed resumes only its own stage and number of processes, FSDP only FSDP; plain layouts resume all but FSDP.
    """
    written = f"The checkpoint was written by {saved['processes']} × {saved['layout']} and this run is {processes} × "
    otherwise = ", or start a new run with the checkpoint folder as its model."
    if layout.startswith("DEEPSPEED") and (saved["layout"], saved["processes"]) != (layout, processes):
        raise ValueError(
            f"{written}{layout}. DeepSpeed resumes only its own layout: resume with that one or in plain processes"
            + otherwise
        )
    if (saved["layout"] == "FSDP") != (layout == "FSDP"):
        raise ValueError(f"{written}{layout}. FSDP resumes FSDP only: resume with {saved['layout']}{otherwise}")


def load_weights(model: Any, folder: str | Path) -> None:
    """Load a checkpoint's weights into a running model.

    Checkpoints use other names than the running model; `Trainer` (5.23) silently restores none, `from_pretrained` all.
    """
    saved = type(model).from_pretrained(folder, dtype=model.dtype)
    model.load_state_dict(saved.state_dict())


def save_moments(engine: Any, folder: str | Path, write: bool) -> None:
    """Gather Adam's moments from a DeepSpeed engine, by parameter name; all processes take part, one writes."""
    import deepspeed.utils as ds  # only where DeepSpeed runs: its import takes seconds

    if engine.zero_optimization_stage() < 3:
        # DeepSpeed links parameters to moments after the step of the first parameter group, when the others have none
        inner = engine.optimizer
        for group, part in zip(inner.bit16_groups, inner.single_partition_of_fp32_groups, strict=True):
            ds.lazy_init_hp_params_optimizer_state(group, part, inner.optimizer.state)
    moments = {}
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            for moment in ADAM:
                value = ds.safe_get_full_optimizer_state(parameter, moment)
                if write:
                    moments[f"{name}.{moment}"] = value.cpu().contiguous().clone()
    if write:
        save_file(moments, Path(folder) / OPTIMIZER_FILE)


def load_moments(
    model: nn.Module, optimizer: torch.optim.Optimizer, folder: str | Path, step: int, rates: Sequence[float]
) -> None:
    """Load gathered moments into a plain Adam that has taken `step` steps and continues with learning `rates`."""
    with safe_open(Path(folder) / OPTIMIZER_FILE, "pt") as file:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                state = {moment: file.get_tensor(f"{name}.{moment}").to(parameter) for moment in ADAM}
                optimizer.state[parameter] = {"step": torch.tensor(float(step)), **state}
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
