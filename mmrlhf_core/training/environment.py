"""How a run begins (seeds, threads, deterministic kernels), and on what software and hardware it runs.

torch is imported inside the functions, so that the pipeline can refuse wrong input without waiting for it.
"""

import os
import platform
import random
from importlib.metadata import version

import numpy as np

# torch caches a plan for every matrix product and shape, 1024 in each of two caches, over a megabyte for each shape.
# Batches of many shapes rarely use one again. Both sizes are read at the first product.
PLANS = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
SHOWN = ("torch", "transformers", "accelerate", "deepspeed", "open_clip_torch", "papermill", "dvc")


def begin(seed: int, threads: int) -> None:
    """Seed every generator, fix the threads, ask torch for deterministic kernels and small caches.

    Loading a model shows no progress bar.
    """
    import torch
    import transformers

    for cache in PLANS:
        os.environ.setdefault(cache, "16")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (libraries draw from it)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Filling finds mistakes in kernels; it costs time and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a module property
    transformers.utils.logging.disable_progress_bar()


def versions() -> dict[str, str]:
    """Python and the named packages, as installed."""
    return {"python": platform.python_version(), **{name: version(name) for name in SHOWN}}


def hardware() -> dict[str, str | int]:
    """Processor, cores, memory and accelerators of this machine."""
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory),
        "accelerators": ", ".join(names) or "none",
    }
