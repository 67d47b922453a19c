"""Start a job in many processes.

    python -m mmrlhf_core.training.launch job.json --layout zero3 --processes 8
    python -m mmrlhf_core.training.launch job.json --layout zero3 --processes 32 \\
        --num_machines 4 --machine_rank 0 --main_process_ip node0

`--processes` counts those of all machines; further options go to `accelerate launch`. `run` does the same from Python,
and prints the lines of the run as they come.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import torch

from mmrlhf_core.data import storage
from mmrlhf_core.training.base import check_choice

LAYOUTS = ("ddp", "zero1", "zero2", "zero3", "fsdp")
LAYOUT_FILES = Path(__file__).parent / "layouts"
LAUNCHER = "torch/distributed/elastic/"  # stands in the first line in which the launcher itself reports a failure


def command(job: str | Path, layout: str, processes: int, *options: str) -> list[str]:
    """The command line of a job; `options` are further options of `accelerate launch`."""
    check_choice("layout", layout, LAYOUTS)
    if processes < 1:
        raise ValueError(f"processes is {processes}; give at least 1.")
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(LAYOUT_FILES / f"{layout}.yaml")]
    return [*start, "--num_processes", str(processes), *options, "-m", "mmrlhf_core.training.job", str(job)]


def _check_device(job: str | Path, layout: str) -> None:
    """Refuse what does not work without a GPU."""
    if layout == "fsdp":
        raise ValueError(
            "layout is 'fsdp', and there is no GPU: without one, accelerate does not shard and would silently train "
            "full copies of the model. Use zero2 or zero3, which shard on CPUs too, or ddp."
        )
    if layout.startswith("zero") and storage.read_json(job).get("training", {}).get("bf16"):
        raise ValueError(
            f"layout is {layout!r} in bfloat16, and there is no GPU: transformers trains in bfloat16 on CPUs only "
            "without DeepSpeed. Use dtype float32, or layout ddp."
        )


def run(job: str | Path, layout: str, processes: int, *options: str) -> None:
    """Run a job and print its lines as they come; a failure is an error that ends with the last lines."""
    line, environment = command(job, layout, processes, *options), dict(os.environ)
    if not torch.cuda.is_available():
        _check_device(job, layout)
        environment["DS_ACCELERATOR"] = "cpu"
    process = subprocess.Popen(
        line, cwd=storage.root(), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    tail: list[str] = []
    ended = False
    for text in process.stdout or ():
        print(text, end="", flush=True)
        ended = ended or LAUNCHER in text  # what follows is about the launcher and would hide the reason
        tail = tail if ended else [*tail[-39:], text]
    if code := process.wait():
        raise RuntimeError(f"The run ended with code {code}. Its last lines:\n{''.join(tail)}")


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the docstring of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m mmrlhf_core.training.launch", description="Start a job in many processes."
    )
    parser.add_argument("job", help="job file, see mmrlhf_core.training.job")
    parser.add_argument("--layout", choices=LAYOUTS, default="ddp")
    parser.add_argument("--processes", type=int, default=1, help="of all machines")
    given, options = parser.parse_known_args(arguments)
    run(given.job, given.layout, given.processes, *options)


if __name__ == "__main__":
    main()
