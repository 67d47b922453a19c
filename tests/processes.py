"""Processes for tests, from one fork server that has imported the library: its imports are paid for once."""

import gc
import multiprocessing
import os
import socket
import sys
from multiprocessing import forkserver
from unittest.mock import patch

IMPORTED = [
    "mmrlhf_study.curation.embed",
    "mmrlhf_core.training.job",
    "mmrlhf_core.training.sft",
    "transformers.models.llava_onevision.modeling_llava_onevision",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.siglip.modeling_siglip",
    "torch.distributed.checkpoint.state_dict",
    "deepspeed.runtime.zero.muon.muon_optimizer",  # what deepspeed.initialize imports: torch.compile and all below it
    "test_embed",
    "test_scale_out",
    "test_sft",
]


def server():
    """The fork server, blind to accelerators: two processes of a test would share one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    given = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    with patch.dict(os.environ, {**given, "PYTHONPATH": os.pathsep.join(sys.path)}):
        forkserver.ensure_running()
    return context


def start(context, target, *arguments, **environment):
    """A started process that calls `target`, a function of a module, in a changed environment."""
    process = context.Process(target=_begin, args=(target, arguments, environment))
    process.start()
    return process


def _begin(target, arguments, environment):
    gc.freeze()  # no collection looks through what the imports left
    os.environ.update(environment)
    target(*arguments)


def places(count):
    """What torch.distributed reads in each of `count` processes of one group, by a port that was free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
