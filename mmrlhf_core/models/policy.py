"""A policy is a model and its processor. Miniatures and published checkpoints load and save in the same way."""

from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import torch
import transformers as hf
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from mmrlhf_core.data import storage

REFERENCE = "checkpoint.json"


class Policy(NamedTuple):
    """A model with an image-text-to-text head, and the processor that encodes its input."""

    model: hf.PreTrainedModel
    processor: hf.ProcessorMixin


class PolicyError(ValueError):
    """A folder or hub id does not lead to a checkpoint."""


def locate(name: str) -> Path:
    """Folder of a checkpoint: a folder, a hub id in the local cache (no network), or what `refer` points to."""
    folder = storage.path(name)
    if name and (folder / REFERENCE).is_file():
        target = storage.read_object(folder / REFERENCE, ("checkpoint",))["checkpoint"]
        if not isinstance(target, str) or target == name:
            raise PolicyError(f"{folder / REFERENCE} names the checkpoint {target!r}. Give another folder or hub id.")
        return locate(target)
    if name and folder.is_dir():
        return folder
    try:
        return Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        cache = huggingface_hub.constants.HF_HUB_CACHE
        raise PolicyError(
            f"The checkpoint {name!r} is neither a folder ({folder}) nor in the hub cache ({cache}): put it in one "
            f"of the two (`hf download {name}` fills the cache), or use the profile `mini`, which needs neither."
        ) from error


def device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(name: str, dtype: torch.dtype | str = "auto") -> Policy:
    """Load a policy by folder or hub id, in evaluation mode; "auto" keeps the precision it was saved in."""
    folder = locate(name)
    if not (folder / "config.json").is_file():
        raise PolicyError(f"{folder} holds no config.json, so it is no checkpoint. Delete it and rerun its stage.")
    storage.read_object(folder / "config.json", ("model_type",))
    kept = {"local_files_only": True, "trust_remote_code": False}
    auto = hf.AutoModelForImageTextToText
    model: Any = auto.from_pretrained(folder, dtype=dtype, use_safetensors=True, **kept)
    processor = hf.AutoProcessor.from_pretrained(folder, **kept)
    return Policy(model.to(device()).eval(), processor)


def save(folder: str | Path, policy: Policy) -> None:
    """Write a policy as one Hugging Face folder, whole or not at all; the same policy gives the same bytes."""
    with storage.writing(folder) as temporary:
        policy.model.save_pretrained(temporary)
        policy.processor.save_pretrained(temporary)


def refer(folder: str | Path, checkpoint: str) -> None:
    """Write a folder that names a checkpoint elsewhere, so that a large checkpoint needs no copy."""
    with storage.writing(folder) as temporary:
        temporary.mkdir()
        storage.write_json(temporary.resolve() / REFERENCE, {"checkpoint": checkpoint})


def rotary_axes(model: hf.PreTrainedModel) -> int:
    """3 for models with multimodal rotary positions (time, height, width), 1 for the others."""
    return 3 if "mrope_section" in (model.config.get_text_config().rope_parameters or {}) else 1
