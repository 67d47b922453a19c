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
    "reports/chapters/00_tiny.html",
    "reports/runs/tiny.json",
}


def test_a_run_writes_chapter_page_and_facts_and_shows_output_live(project, capfd):
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


WRONG = {
    "missing chapter": (lambda p: None, ["tinny"], "no chapter 'tinny' in notebooks/. Did you mean 'tiny'?"),
    "unknown -p": (lambda p: None, ["tiny", "-p", "sed=3"], "unknown name 'sed'. Did you mean 'seed'?"),
    "-p of wrong type": (lambda p: None, ["tiny", "-p", "seed=x"], "base.seed: 'x' is str, not int"),
    "-p out of range": (
        lambda p: None,
        ["tiny", "-p", "threads=0"],
        "base.threads: 0 is not allowed. Give a number from 1",
    ),
    "unknown key": (lambda p: edit(p, "  seed:", "  sede:"), ["tiny"], "unknown name 'sede'. Did you mean 'seed'?"),
    "missing key": (lambda p: edit(p, "  threads: 2", "  # none"), ["tiny"], "'threads' is missing"),
    "wrong type": (lambda p: edit(p, "threads: 2", "threads: two"), ["tiny"], "base.threads: 'two' is str, not int"),
    "unknown profile": (lambda p: edit(p, "profile: mini", "profile: maxi"), ["tiny"], "Give one of mini, smoke"),
    "unknown section": (lambda p: edit(p, "base:", "bsae:"), ["tiny"], "unknown name 'bsae'. Did you mean 'base'?"),
    "broken YAML": (lambda p: edit(p, "base:", "base: ["), ["tiny"], "params.yaml is not readable YAML"),
    "key given twice": (lambda p: edit(p, "  seed:", "  threads: 1\n  seed:"), ["tiny"], "'threads' is given twice"),
    "no params.yaml": (lambda p: (p / "params.yaml").unlink(), ["tiny"], "params.yaml is not there"),
    "two parameters cells": (lambda p: write_chapter(p, tags=2), ["tiny"], "2 cells are tagged 'parameters'"),
    "computed parameter": (
        lambda p: write_chapter(p, "profile = 'mini'\nseed = 2 * 3\nthreads = 1"),
        ["tiny"],
        "is computed; papermill would keep this default",
    ),
    "cell names more": (
        lambda p: write_chapter(p, "profile = 'mini'\nseed = 1\nthreads = 1\nsteps = 3"),
        ["tiny"],
        "unknown name 'steps'",
    ),
    "cell names less": (lambda p: write_chapter(p, "profile = 'mini'\nseed = 1"), ["tiny"], "'threads' is missing"),
    "not a notebook": (lambda p: (p / "notebooks/00_tiny.ipynb").write_text("{"), ["tiny"], "is not a notebook"),
    "sweep needs data": (
        lambda p: (p / "dvc.yaml").write_text("stages:\n  tiny:\n    deps: [data/none]\n"),
        ["tiny", "-p", "seed=2"],
        "data/none is not there yet",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_stops_before_any_work_with_a_sentence(project, capsys, case):
    spoil, words, message = WRONG[case]
    spoil(project)
    assert run.main(words) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in last
    assert "Traceback" not in last
    assert made(project) == set()


def test_a_missing_input_names_the_command_that_makes_it(project, capsys):
    write_chapter(project, code="open('data/preference/train.parquet')")
    assert run.main(["tiny"]) == 1
    assert capsys.readouterr().err.strip().endswith("If an earlier stage makes it: dvc repro tiny")


def test_a_raising_cell_ends_with_chapter_cell_and_error(project, capsys):
    write_chapter(project, code="value = 3\nraise RuntimeError(f'a <b> problem with {value}')")
    assert run.main(["tiny"]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-2:]
    assert last == ["00_tiny stopped in code cell 3, which begins: value = 3", "RuntimeError: a <b> problem with 3"]
    assert made(project) == set()
    assert "a <b> problem" in (project / "logs/tiny/notebook.ipynb").read_text(), "the failed chapter can be read"


def test_a_dying_kernel_is_told_as_such(project, capsys):
    write_chapter(project, code="import os\nos.kill(os.getpid(), 9)")
    assert run.main(["tiny"]) == 1
    assert "its Python process died" in capsys.readouterr().err.strip().splitlines()[-2]


def test_an_unwritable_reports_folder_is_told(project, capsys):
    (project / "reports").write_text("a file where the folder should be")
    write_chapter(project, code="from pathlib import Path\nPath('ran').touch()")
    assert run.main(["tiny"]) == 2
    assert capsys.readouterr().err.startswith(f"run tiny: cannot write or read {project}/reports")
    assert not (project / "ran").exists(), "found out before the chapter has worked for minutes"


def wait_for(file: Path) -> None:
    for _ in range(600):
        if file.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{file} did not appear")


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing_half_written_and_no_one_writing(project, kill):
    slow = "import os, time\nfrom pathlib import Path\nfrom mmrlhf_core.data import storage\n"
    slow += "Path('pid').write_text(str(os.getpid()))\nwith storage.writing('data/tiny') as folder:\n"
    slow += "    folder.mkdir()\n    (folder / 'half').touch()\n    time.sleep(60)"
    write_chapter(project, code=slow)
    command = [sys.executable, "-m", "mmrlhf_study.pipeline.run", "tiny"]
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 (background shells ignore Ctrl-C)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=project, preexec_fn=heard) as child:
        wait_for(project / "pid")
        child.send_signal(kill)
        message = child.communicate(timeout=30)[1].strip().splitlines()[-1]
    assert made(project) == set()
    if kill == signal.SIGINT:
        assert child.returncode == 130
        assert message.startswith("Stopped by Ctrl-C in tiny.")
    kernel = int((project / "pid").read_text())
    deadline = time.monotonic() + 30
    while Path(f"/proc/{kernel}").exists() and "ipykernel" in Path(f"/proc/{kernel}/cmdline").read_text():
        assert time.monotonic() < deadline, "the kernel outlived its runner"
        time.sleep(0.2)
