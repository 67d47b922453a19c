"""What `make smoke` leaves in scratch/smoke: the whole pipeline in its smallest profile."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import links
import nbformat
import pytest
import yaml
from tiny_project import CHAPTERS, ROOT, STAGES

SMOKE = ROOT / "scratch/smoke"

pytestmark = pytest.mark.smoke


def dvc(*words: str) -> str:
    command = [sys.executable, "-m", "dvc", *words]
    return subprocess.run(command, cwd=SMOKE, capture_output=True, text=True, check=True).stdout


def test_every_out_is_there_locked_and_whole():
    lock = yaml.safe_load((SMOKE / "dvc.lock").read_text())["stages"]
    assert {name.partition("@")[0] for name in lock} == set(STAGES), "cells of a matrix are locked as stage@cell"
    for stage in lock.values():
        for out in stage["outs"]:
            assert (SMOKE / out["path"]).exists()
    assert not [p for p in SMOKE.rglob(".*.tmp") if ".dvc" not in p.parts]


def test_a_second_run_does_nothing_and_says_so():
    start = time.monotonic()
    assert "Data and pipelines are up to date." in dvc("repro")
    assert time.monotonic() - start < 15


def test_metrics_and_plots_show():
    shown = json.loads(dvc("metrics", "show", "--json"))
    files = shown[""]["data"]
    assert set(files) == {next(iter(m)) for s in STAGES.values() for m in s.get("metrics", [])}
    assert "Loading" in dvc("plots", "show") or (SMOKE / "dvc_plots/index.html").is_file()


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda f: f.stem)
def test_the_executed_chapter_has_outputs_and_no_error(chapter: Path):
    notebook = nbformat.read(SMOKE / f"reports/chapters/{chapter.name}", 4)
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert outputs
    assert not [o for o in outputs if o.output_type == "error"]


def test_metrics_hold_no_clock_times_and_label_their_world():
    for file in (SMOKE / "reports/metrics").glob("*.json"):
        text = file.read_text()
        assert not re.search(r'"[^"]*(seconds|minutes|elapsed|_ms)[^"]*":', text), file.name
        for label, row in json.loads(text)["headline"].items():
            assert row["world"], label
            assert row["low"] <= row["value"] <= row["high"], label


def test_the_book_has_every_chapter_and_no_broken_link():
    book = SMOKE / "reports/book"
    assert {file.stem for file in (book / "chapters").glob("*.html")} == {file.stem for file in CHAPTERS}
    assert links.broken(book) == []
    assert links.fetched(book) == set()


def test_the_results_in_short_show_a_picture_of_every_chapter():
    text = (SMOKE / "reports/RESULTS.md").read_text()
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(pictures) == len(CHAPTERS) + 1
    assert all((SMOKE / "reports" / name).is_file() for name in pictures)
