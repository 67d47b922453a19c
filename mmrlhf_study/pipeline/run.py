"""Run one chapter with the parameters of `params.yaml`, strictly.

python -m mmrlhf_study.pipeline.run base_models                      the pipeline's own run
python -m mmrlhf_study.pipeline.run base_models -p seed=7            one change, kept apart in reports/sweeps/
python -m mmrlhf_study.pipeline.run base_models --sweep seed=1,2,3   a grid, one folder per combination
"""

import argparse
import ctypes
import itertools
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from traitlets.config import Config

from mmrlhf_core.data import storage
from mmrlhf_core.data.names import check_names, nearest
from mmrlhf_study.pipeline import clean, machine, params
from mmrlhf_study.pipeline.chapters import Chapter, ChapterError, chapters, find, parameters, read

DIE_WITH_PARENT = 1  # Linux: PR_SET_PDEATHSIG
SOCKETS = ".kernel.tmp"  # below the folder a chapter runs in; relative, because the path of a socket has to be short


class Tee:
    """Text to the terminal and to a log file at once."""

    def __init__(self, *streams: TextIO) -> None:
        self.streams = streams

    def write(self, text: str) -> None:
        for stream in self.streams:
            stream.write(text)

    def flush(self) -> None:
        for stream in self.streams:
            stream.flush()


def combinations(single: list[str], sweep: list[str]) -> list[dict[str, Any]]:
    """Overrides from `-p name=value` and `--sweep name=a,b`: every combination, [{}] when there are none."""
    names, grids = [], []
    for text, many in [(t, False) for t in single] + [(t, True) for t in sweep]:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise params.ParamsError(f"{text!r} is not name=value" + (" or name=a,b,c." if many else "."))
        if name in names:
            raise params.ParamsError(f"{name!r} is given twice.")
        names.append(name)
        grids.append([_yaml(part, name) for part in (value.split(",") if many else [value])])
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*grids)]


def _yaml(text: str, name: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        raise params.ParamsError(f"the value of {name!r} is not YAML: {text!r}") from None


def chapter_values(chapter: Chapter, overrides: dict[str, Any]) -> dict[str, Any]:
    """Values for the chapter's `parameters` cell: `base:` and its own section, if any, checked against the cell."""
    settings = params.read().model_dump()
    base, own = settings["base"], settings.get(chapter.stage, {})
    for name, value in overrides.items():
        if name not in [*base, *own]:
            raise params.ParamsError(f"{chapter.name}: unknown name {name!r}. {nearest(name, [*base, *own])}")
        (own if name in own else base)[name] = value
    settings = params.parse(settings).model_dump()
    values = settings["base"] | settings.get(chapter.stage, {})
    check_names(f"parameters cell of {chapter.name}", parameters(read(chapter.file), chapter.name), values)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def folder_name(overrides: dict[str, Any]) -> str:
    """A folder named by its parameters, such as `k=0.5,w=0.1`."""
    text = ",".join(f"{name}={value}" for name, value in sorted(overrides.items()))
    return "".join(c if c.isalnum() or c in "=.,_-+" else "_" for c in text)[:200]


@contextmanager
def sockets(folder: Path, stage: str) -> Iterator[Config]:
    """Let the kernel listen on files of this user, not on the network; what a killed run left of them is removed."""
    place = folder / SOCKETS / stage
    storage.remove(place)
    place.mkdir(parents=True)
    try:
        yield Config({"KernelManager": {"transport": "ipc", "ip": f"{SOCKETS}/{stage}/kernel"}})
    finally:
        storage.remove(place)
        if not any(place.parent.iterdir()):
            place.parent.rmdir()


def execute(chapter: Chapter, values: dict[str, Any], folder: Path, log: Path) -> dict[str, Any]:
    """Run the chapter's clean copy in `folder`; the executed notebook and its output are kept in `log`.

    Returns the facts of the run: when, how long, with what, on what.
    """
    copy = storage.path(f"{clean.COPIES}/{chapter.file.name}")
    clean.refresh(chapter.file, copy)
    os.environ |= {"OMP_NUM_THREADS": str(values["threads"]), "PYTHONHASHSEED": "0", "TOKENIZERS_PARALLELISM": "false"}
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(storage.root()), os.environ.get("PYTHONPATH")]))
    log.mkdir(parents=True, exist_ok=True)
    started, clock = datetime.now(UTC), time.monotonic()
    with open(log / "output.log", "w", encoding="utf-8") as record, sockets(folder, chapter.stage) as local:
        out, err = Tee(sys.stdout, record), Tee(sys.stderr, record)
        papermill.execute_notebook(
            *(copy, log / "notebook.ipynb", values),
            **{"cwd": folder, "stdout_file": out, "stderr_file": err, "kernel_name": "python3"},
            **{"config": local, "extra_arguments": ["--log-level=CRITICAL"]},
        )
    return {
        "chapter": chapter.name,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 1),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        "parameters": values,
        "versions": machine.versions(),
        "hardware": machine.hardware(),
    }


def require_writable(folder: str | Path) -> None:
    """Raise an OSError now if nothing can be written in `folder`, which is created if missing."""
    place = storage.path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=place):
        pass


def publish(chapter: Chapter, facts: dict[str, Any], log: Path, folder: Path) -> None:
    """Write the executed notebook and the facts of the run below `folder`/reports."""
    with storage.writing(folder / f"reports/chapters/{chapter.name}.ipynb") as temporary:
        shutil.copyfile(log / "notebook.ipynb", temporary)
    storage.write_json(folder / f"reports/runs/{chapter.stage}.json", facts)


def run(chapter: Chapter, values: dict[str, Any]) -> None:
    """The pipeline's own run: the chapter writes where later chapters read."""
    log = storage.path("logs") / chapter.stage
    for place in ("reports/chapters", "reports/runs"):
        require_writable(place)
    publish(chapter, execute(chapter, values, storage.root(), log), log, storage.root())


def run_apart(chapter: Chapter, values: dict[str, Any], name: str) -> Path:
    """A run with changed parameters in `reports/sweeps/<stage>/<name>/`, never over the pipeline's own outputs.

    The chapter sees a project folder that holds only what its stage reads, as links.
    """
    target = storage.path(f"reports/sweeps/{chapter.stage}/{name}")
    log = storage.path("logs") / chapter.stage / name
    with storage.writing(target) as folder:
        folder.mkdir()
        shutil.copyfile(storage.path("params.yaml"), folder / "params.yaml")
        (folder / storage.MARKER).touch()
        links = [link(source, folder) for source in data_read(chapter.stage)]
        facts = execute(chapter, values, folder, log)
        for made in links:
            made.unlink()
        publish(chapter, facts, log, folder)
    return target


def data_read(stage: str) -> list[str]:
    """Data and models a stage of dvc.yaml depends on; an unknown stage reads nothing."""
    stages = params.load_yaml(storage.path("dvc.yaml"))["stages"]
    deps = stages.get(stage, {}).get("deps", [])
    return [d for d in deps if d.startswith(("data/", "models/")) and not d.startswith(clean.COPIES)]


def link(source: str, folder: Path) -> Path:
    """A link below `folder` to what the project has at `source`."""
    if not storage.path(source).exists():
        raise ChapterError(f"{source} is not there yet. Run the pipeline once (make repro), then the sweep.")
    made = folder / source
    made.parent.mkdir(parents=True, exist_ok=True)
    made.symlink_to(storage.path(source))
    return made


def explain(error: Exception, chapter: Chapter) -> str:
    """Two lines for a person: chapter and cell, then the error itself."""
    if isinstance(error, PapermillExecutionError):
        first = (error.source.strip().splitlines() or [""])[0]
        head = f"{chapter.name} stopped in code cell {error.exec_count}, which begins: {first}"
        more = (
            f"\nIf an earlier stage makes it: dvc repro {chapter.stage}" if error.ename == "FileNotFoundError" else ""
        )
        return f"{head}\n{error.ename}: {error.evalue}{more}"
    if isinstance(error, DeadKernelError):
        return f"{chapter.name} stopped: its Python process died, most often because memory ran out.\n{error}"
    return f"{chapter.name} did not run.\n{error}"


def end_with_parent() -> None:
    """Let this run end when the command that started it is killed (Linux), so that nobody goes on writing."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGTERM)


def interrupted(chapter: str) -> int:
    """Ctrl-C reaches the runner, the kernel or both; the message is the same."""
    print(f"\nStopped by Ctrl-C in {chapter}. No file is half written; run it again to go on.", file=sys.stderr)
    return 130


def start(arguments: argparse.Namespace) -> None:
    """Everything but the messages."""
    chapter = find(arguments.chapter)
    position = [c.name for c in chapters()].index(chapter.name) + 1
    grid = combinations(arguments.p, arguments.sweep)
    checked = [(overrides, chapter_values(chapter, overrides)) for overrides in grid]
    for number, (overrides, values) in enumerate(checked, 1):
        sweep = f", combination {number} of {len(grid)}: {folder_name(overrides)}" if overrides else ""
        print(
            f"Chapter {position} of {len(chapters())}: {chapter.name}, profile {values['profile']}{sweep}", flush=True
        )
        if overrides:
            print(f"Kept in {run_apart(chapter, values, folder_name(overrides)).relative_to(storage.root())}/")
        else:
            run(chapter, values)
            print(f"Executed: reports/chapters/{chapter.name}.ipynb. To read it in the book: dvc repro book")


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m mmrlhf_study.pipeline.run", description=__doc__.splitlines()[0])
    parser.add_argument("chapter", help="stage name, such as base_models, or notebook name")
    parser.add_argument("-p", action="append", default=[], metavar="name=value", help="change one parameter")
    parser.add_argument("--sweep", action="append", default=[], metavar="name=a,b,c", help="run each of these values")
    arguments = parser.parse_args(words)
    try:
        end_with_parent()
        start(arguments)
        return 0
    except KeyboardInterrupt:
        return interrupted(arguments.chapter)
    except (PapermillExecutionError, DeadKernelError) as error:
        if isinstance(error, PapermillExecutionError) and error.ename == "KeyboardInterrupt":
            return interrupted(arguments.chapter)
        chapter = find(arguments.chapter)
        print(f"\nIn full: logs/{chapter.stage}/\n{explain(error, chapter)}", file=sys.stderr)
        return 1
    except OSError as error:
        place = error.filename or "a file"
        print(f"run {arguments.chapter}: cannot write or read {place}: {error.strerror}.", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"run {arguments.chapter}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
