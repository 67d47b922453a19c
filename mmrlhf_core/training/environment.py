"""How a run begins: seeds, threads, deterministic kernels."""

import os
import random

import numpy as np
import torch
import transformers

# torch caches a plan for every matrix product and shape, 1024 in each of two caches, over a megabyte for each shape.
# Batches of many shapes rarely use one again. Both sizes are read at the first product.
PLANS = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")


def begin(seed: int, threads: int) -> None:
    """Seed every generator, fix the threads, ask torch for deterministic kernels and small caches.

    Loading a model shows no progress bar.
    """
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
