"""The runner: what it accepts, what it refuses and how, and that nothing is left half written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import nbformat
import pytest
from tiny_project import write_chapter

from mmrlhf_study.pipeline import run
from mmrlhf_study.pipeline.params import ParamsError


@pytest.fixture(autouse=True)
def _same_environment():
    with patch.dict(os.environ):
        yield


def made(folder: Path) -> set[str]:
    """Every file below reports/ and data/, clean copies of the notebooks left out."""
    files = [f for top in ("reports", "data/tiny") for f in (folder / top).rglob("*") if f.is_file()]
    return {f.relative_to(folder).as_posix() for f in files}


PUBLISHED = {
    "data/tiny/number.txt",
    "reports/metrics/tiny.json",
    "reports/chapters/00_tiny.ipynb",
    "reports/runs/tiny.json",
}


def test_a_run_writes_chapter_and_facts_and_shows_output_live(project, capfd):
    assert run.main(["tiny"]) == 0
    assert made(project) == PUBLISHED
    facts = json.loads((project / "reports/runs/tiny.json").read_text())
    assert facts["parameters"] == {"profile": "mini", "seed": 20250214, "threads": 2}
    assert (project / "data/tiny/number.txt").read_text() == "20250214", "params.yaml goes before the cell's default"
    shown = capfd.readouterr().out
    assert "Chapter 1 of 1: 00_tiny" in shown
    assert f"running {project.name}" in shown
    assert "running" in (project / "logs/tiny/output.log").read_text()
    injected = [c for c in nbformat.read(project / "reports/chapters/00_tiny.ipynb", 4).cells if "injected" in str(c)]
    assert len(injected) == 1


def test_a_sweep_keeps_each_combination_apart_and_the_pipelines_outputs_untouched(project):
    (project / "dvc.yaml").write_text("stages:\n  tiny:\n    deps: [data/input]\n")
    (project / "data/input").mkdir(parents=True)
    (project / "data/input/value.txt").write_text("7")
    reads = "from mmrlhf_core.data import storage\n"
    reads += (
        "storage.write_text('data/tiny/sum.txt', str(seed + int(storage.path('data/input/value.txt').read_text())))"
    )
    write_chapter(project, code=reads)
    assert run.main(["tiny", "--sweep", "seed=1,2", "-p", "threads=1"]) == 0
    sums = {f.parts[-4]: f.read_text() for f in project.glob("reports/sweeps/tiny/*/data/tiny/sum.txt")}
    assert sums == {"seed=1,threads=1": "8", "seed=2,threads=1": "9"}
    assert made(project) == {f for f in made(project) if f.startswith("reports/sweeps/")}
    assert not list(project.glob("reports/sweeps/tiny/*/data/input")), "links to what was read do not stay"


def test_combinations_are_the_full_grid():
    grid = run.combinations(["a=1"], ["b=x,y", "c=0.5,1.0e-3"])
    assert grid == [{"a": 1, "b": b, "c": c} for b in "xy" for c in (0.5, 0.001)]
    assert run.combinations([], []) == [{}]


@pytest.mark.parametrize("words", [["novalue"], ["=1"], ["a="], ["a=1", "a=2"], ["a={"]])
def test_combinations_refuses_what_is_not_name_equals_value(words):
    with pytest.raises(ParamsError):
        run.combinations(words, [])


def edit(project: Path, old: str, new: str) -> None:
    file = project / "params.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


WRONG = {  # how it is spoiled, the command, and what the message has to name
    "missing chapter": (lambda p: None, ["tinny"], ["'tinny'", "'tiny'"]),
    "unknown -p": (lambda p: None, ["tiny", "-p", "sed=3"], ["'sed'", "'seed'"]),
    "-p of wrong type": (lambda p: None, ["tiny", "-p", "seed=x"], ["base.seed", "'x'"]),
    "-p out of range": (lambda p: None, ["tiny", "-p", "threads=0"], ["base.threads", "0", "1"]),
    "unknown key": (lambda p: edit(p, "  seed:", "  sede:"), ["tiny"], ["base", "'sede'", "'seed'"]),
    "missing key": (lambda p: edit(p, "  threads: 2", "  # none"), ["tiny"], ["base", "'threads'"]),
    "wrong type": (lambda p: edit(p, "threads: 2", "threads: two"), ["tiny"], ["base.threads", "'two'"]),
    "unknown profile": (lambda p: edit(p, "profile: mini", "profile: maxi"), ["tiny"], ["'maxi'", "'mini'", "'smoke'"]),
    "unknown section": (lambda p: edit(p, "base:", "bsae:"), ["tiny"], ["'bsae'", "'base'"]),
    "broken YAML": (lambda p: edit(p, "base:", "base: ["), ["tiny"], ["params.yaml", "line"]),
    "key given twice": (lambda p: edit(p, "  seed:", "  threads: 1\n  seed:"), ["tiny"], ["params.yaml", '"threads"']),
    "no params.yaml": (lambda p: (p / "params.yaml").unlink(), ["tiny"], ["params.yaml"]),
    "two parameters cells": (lambda p: write_chapter(p, tags=2), ["tiny"], ["00_tiny", "2", "'parameters'"]),
    "computed parameter": (
        lambda p: write_chapter(p, "profile = 'mini'\nseed = 2 * 3\nthreads = 1"),
        ["tiny"],
        ["00_tiny", "seed = 2 * 3"],
    ),
    "cell names more": (
        lambda p: write_chapter(p, "profile = 'mini'\nseed = 1\nthreads = 1\nsteps = 3"),
        ["tiny"],
        ["00_tiny", "'steps'"],
    ),
    "cell names less": (lambda p: write_chapter(p, "profile = 'mini'\nseed = 1"), ["tiny"], ["00_tiny", "'threads'"]),
    "not a notebook": (lambda p: (p / "notebooks/00_tiny.ipynb").write_text("{"), ["tiny"], ["00_tiny.ipynb"]),
    "sweep needs data": (
        lambda p: (p / "dvc.yaml").write_text("stages:\n  tiny:\n    deps: [data/none]\n"),
        ["tiny", "-p", "seed=2"],
        ["data/none", "make repro"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_stops_before_any_work_and_names_what_is_wrong(project, capsys, case):
    spoil, words, names = WRONG[case]
    spoil(project)
    assert run.main(words) == 2
    message = capsys.readouterr().err
    assert [name for name in names if name not in message] == []
    assert "Traceback" not in message
    assert made(project) == set()


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("open('data/preference/train.parquet')", "dvc repro tiny"),  # the command that makes a missing input
        ("import os\nos.kill(os.getpid(), 9)", "process died"),
    ],
)
def test_a_missing_input_and_a_dying_kernel_are_named(project, capsys, code, named):
    write_chapter(project, code=code)
    assert run.main(["tiny"]) == 1
    assert named in capsys.readouterr().err


def test_a_raising_cell_ends_with_chapter_cell_and_error(project, capsys):
    write_chapter(project, code="value = 3\nraise RuntimeError(f'a <b> problem with {value}')")
    assert run.main(["tiny"]) == 1
    where, what = capsys.readouterr().err.strip().splitlines()[-2:]
    assert [name for name in ("00_tiny", "cell 3", "value = 3") if name not in where] == []
    assert what == "RuntimeError: a <b> problem with 3"
    assert made(project) == set()
    assert "a <b> problem" in (project / "logs/tiny/notebook.ipynb").read_text(), "the failed chapter can be read"


def test_an_unwritable_reports_folder_stops_the_run_at_its_start(project, capsys):
    (project / "reports").write_text("a file where the folder should be")
    write_chapter(project, code="from pathlib import Path\nPath('ran').touch()")
    assert run.main(["tiny"]) == 2
    assert f"{project}/reports" in capsys.readouterr().err
    assert not (project / "ran").exists(), "found out before the chapter has worked for minutes"


def wait_for(file: Path) -> None:
    for _ in range(600):
        if file.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{file} did not appear")


SLOW = """
import os, time
from pathlib import Path
from mmrlhf_core.data import storage
Path("pid").write_text(str(os.getpid()))
with storage.writing("data/tiny") as folder:
    folder.mkdir()
    (folder / "half").touch()
    time.sleep(60)
"""


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing_half_written_and_no_one_writing(project, kill):
    write_chapter(project, code=SLOW)
    before = {place.name for place in project.iterdir()}
    command = [sys.executable, "-m", "mmrlhf_study.pipeline.run", "tiny"]
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 (background shells ignore Ctrl-C)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=project, preexec_fn=heard) as child:
        wait_for(project / "pid")
        child.send_signal(kill)
        message = child.communicate(timeout=30)[1].strip().splitlines()[-1]
    assert made(project) == set()
    if kill == signal.SIGINT:
        assert child.returncode == 130
        assert "tiny" in message
    kernel = int((project / "pid").read_text())
    deadline = time.monotonic() + 30
    while Path(f"/proc/{kernel}").exists() and "ipykernel" in Path(f"/proc/{kernel}/cmdline").read_text():
        assert time.monotonic() < deadline, "the kernel outlived its runner"
        time.sleep(0.2)
    left = {place.name for place in project.iterdir()} - before - {"data", "logs", "pid", "reports"}
    assert left <= {run.SOCKETS}, "sockets of the kernel lie in their own folder only"
    write_chapter(project)
    assert run.main(["tiny"]) == 0
    assert not (project / run.SOCKETS).exists(), "the next run removes what a killed one left"


def test_a_kernel_starts_in_a_deep_folder(project, monkeypatch):
    deep = project / "/".join(["a" * 30] * 4)
    deep.mkdir(parents=True)
    for name in ("mmrlhf_core", "mmrlhf_study", "notebooks", "dvc.yaml", "params.yaml"):
        (deep / name).symlink_to(project / name)
    monkeypatch.chdir(deep)
    assert run.main(["tiny"]) == 0, "the path of a socket may have about 100 letters"
