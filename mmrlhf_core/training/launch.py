"""Start a job in many processes.

    python -m mmrlhf_core.training.launch job.json --layout zero3 --processes 8
    python -m mmrlhf_core.training.launch job.json --layout zero3 --processes 8 --nodes 4 --rank 0 --address node0

`--processes` counts those of one node. A chapter calls `run` and sees the same lines as they come.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import torch

from mmrlhf_core.data import storage

LAYOUTS = ("ddp", "zero1", "zero2", "zero3", "fsdp")
LAYOUT_FILES = Path(__file__).parent / "layouts"
LAUNCHER = "torch/distributed/elastic/"  # in the first line in which the launcher itself speaks of a failure


def command(
    job: str | Path, layout: str, processes: int, nodes: int = 1, rank: int = 0, address: str = "127.0.0.1",
    port: int = 29500,
) -> list[str]:  # fmt: skip
    """The command line of one node."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}; it has to be one of {', '.join(LAYOUTS)}.")
    if processes < 1 or not 0 <= rank < nodes:
        raise ValueError(f"{processes} processes on node {rank} of {nodes}: give at least 1, and a rank below nodes.")
    where = ["--num_processes", processes * nodes, "--num_machines", nodes, "--machine_rank", rank]
    where += ["--main_process_ip", address, "--main_process_port", port]
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", LAYOUT_FILES / f"{layout}.yaml"]
    return [str(part) for part in [*start, *where, "-m", "mmrlhf_core.training.job", job]]


def _in_bfloat16(job: str | Path) -> bool:
    return bool(storage.read_json(job).get("training", {}).get("bf16"))


def run(
    job: str | Path, layout: str, processes: int, nodes: int = 1, rank: int = 0, address: str = "127.0.0.1",
    port: int = 29500,
) -> None:  # fmt: skip
    """Run a job and print its lines as they come; a failure is an error that ends with the last of them."""
    line = command(job, layout, processes, nodes, rank, address, port)
    if layout == "fsdp" and not torch.cuda.is_available():
        raise ValueError(
            "layout is 'fsdp', and there is no GPU: accelerate shards over GPUs only and would train copies of the "
            "whole model instead, without a word. Take zero2 or zero3, which split on CPUs too, or ddp."
        )
    if layout.startswith("zero") and not torch.cuda.is_available() and _in_bfloat16(job):
        raise ValueError(
            f"layout is {layout!r} in bfloat16, and there is no GPU: transformers trains in bfloat16 on CPUs only "
            "without DeepSpeed. Take dtype float32, or layout ddp."
        )
    setting = {} if torch.cuda.is_available() else {"DS_ACCELERATOR": "cpu"}
    started = subprocess.Popen(
        line,
        cwd=storage.root(),
        env={**os.environ, **setting},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    tail, ended = [], False
    for text in started.stdout:
        print(text, end="", flush=True)
        ended = ended or LAUNCHER in text  # what follows is about the launcher and would hide the reason
        tail = tail if ended else [*tail[-39:], text]
    if code := started.wait():
        raise RuntimeError(f"The run ended with code {code}. Its last lines:\n{''.join(tail)}")


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m mmrlhf_core.training.launch", description=__doc__.split("\n")[0])
    parser.add_argument("job", help="job file, see mmrlhf_core.training.job")
    parser.add_argument("--layout", choices=LAYOUTS, default="ddp")
    parser.add_argument("--processes", type=int, default=1, help="of each node")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--rank", type=int, default=0, help="number of this node, from 0")
    parser.add_argument("--address", default="127.0.0.1", help="of node 0")
    parser.add_argument("--port", type=int, default=29500)
    given = parser.parse_args(arguments)
    run(given.job, given.layout, given.processes, given.nodes, given.rank, given.address, given.port)


if __name__ == "__main__":
    main()
