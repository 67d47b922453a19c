"""On what software and hardware a chapter runs."""

import os
import platform
from importlib.metadata import version

SHOWN = ("torch", "transformers", "accelerate", "deepspeed", "open_clip_torch", "papermill", "dvc")


def versions() -> dict[str, str]:
    """Python and the named packages, as installed."""
    return {"python": platform.python_version(), **{name: version(name) for name in SHOWN}}


def hardware() -> dict[str, str | int]:
    """Processor, cores, memory and accelerators of this machine."""
    import torch  # only here, so that the pipeline can refuse wrong input without waiting for it

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory),
        "accelerators": ", ".join(names) or "none",
    }
