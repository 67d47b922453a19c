"""Chapters are built as the house says, their stages depend on what they import, and saving one by hand is harmless."""

import ast
import re
import statistics
import subprocess

import nbformat
import pytest
from tiny_project import CHAPTERS, ROOT, STAGES

from mmrlhf_study.pipeline import chapters, clean, imports, params, run


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(params=CHAPTERS, ids=lambda f: f.stem)
def chapter(request) -> chapters.Chapter:
    return chapters.Chapter(request.param)


def code(chapter: chapters.Chapter) -> list[str]:
    return [c.source for c in chapters.read(chapter.file).cells if c.cell_type == "code"]


def code_of(stage: dict) -> list[str]:
    return [dep for dep in stage["deps"] if dep.split("/")[0] in imports.PACKAGES]


def rooms(files: list[str]) -> list[str]:
    """The folders that a stage with these files depends on; the files in rooms with one for every stage."""
    by_file = {*imports.PACKAGES, "mmrlhf_study/chapters", "mmrlhf_study/pipeline"}
    folders = {file: file.rpartition("/")[0] for file in files}
    kept = {file if folder in by_file else folder for file, folder in folders.items()}
    return sorted(name for name in kept if not name.endswith("__init__.py"))


def module_of(stage: str) -> str:
    return STAGES[stage]["cmd"].split()[2]  # python -m module


def test_a_chapter_is_thin_and_opens_with_its_summary(chapter):
    lines = [len([line for line in source.splitlines() if line.strip()]) for source in code(chapter)]
    assert len(lines) <= 40
    assert statistics.median(lines) <= 6
    for source in code(chapter):
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.ClassDef), "what is worth a class lives in the library"
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 10, f"{node.name} belongs in the library"
    first = chapters.read(chapter.file).cells[0].source
    assert re.match(rf"# {chapter.name[:2]} · \w", first)
    for name in ("Paper", "Reads", "Writes", "Time"):
        assert f"**{name}:**" in first


def test_a_committed_chapter_is_clean_and_repeats_params_yaml_with_comments(chapter):
    notebook = chapters.read(chapter.file)
    assert chapters.parameters(notebook, chapter.name) == run.chapter_values(chapter, {})
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    assert all("#" in line for line in cell.source.splitlines() if "=" in line)
    assert chapter.file.read_text() == clean.cleaned(chapter.file), "python -m mmrlhf_study.pipeline.clean --in-place"


def test_a_stage_depends_on_its_clean_copy_its_params_and_the_library_it_imports(chapter):
    stage = STAGES[chapter.stage]
    names = set().union(*(imports.imported(ast.parse(source)) for source in code(chapter)))
    assert code_of(stage) == rooms(imports.closure(names))
    assert f"data/notebooks/{chapter.file.name}" in stage["deps"]
    sections = {"base"} | ({chapter.stage} & set(params.Params.model_fields))
    assert set(stage["params"]) == sections
    assert stage["cmd"] == f"python -m mmrlhf_study.pipeline.run {chapter.stage}"
    for out in (f"reports/chapters/{chapter.name}.ipynb", f"reports/runs/{chapter.stage}.json"):
        assert out in stage["outs"]


def test_a_stage_without_a_chapter_depends_on_the_library_its_module_reads():
    others = set(STAGES) - {chapters.Chapter(file).stage for file in CHAPTERS} - {"clean", "book"}
    assert others == {"preference", "sensitivity_cell"}
    for name in others:
        assert code_of(STAGES[name]) == rooms(imports.closure([module_of(name)])), name


def test_the_book_depends_on_the_chapters_and_on_the_docstrings_of_the_whole_core():
    own = rooms(imports.closure([module_of("book")]))
    study = [room for room in own if room.startswith("mmrlhf_study")]
    assert code_of(STAGES["book"]) == ["mmrlhf_core", *study]
    names = {chapters.Chapter(file).name for file in CHAPTERS}
    assert {f"reports/chapters/{name}.ipynb" for name in names} <= set(STAGES["book"]["deps"])


def test_metrics_and_plots_are_in_git_and_the_rest_in_the_cache():
    for name, stage in STAGES.items():
        for kind in ("metrics", "plots"):
            assert all(next(iter(out.values())) == {"cache": False} for out in stage.get(kind, [])), name
        in_git = {next(iter(out)) for out in stage["outs"] if not isinstance(out, str)}
        assert in_git <= {"reports/RESULTS.md", "reports/results"}, f"{name}: this disables the run cache"


def test_a_notebook_run_and_saved_by_hand_has_the_same_clean_copy(project):
    file = project / "notebooks/00_tiny.ipynb"
    before = clean.cleaned(file)
    notebook = nbformat.read(file, 4)
    for number, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
        cell.execution_count = number
        cell.outputs = [nbformat.v4.new_output("stream", text="3 ms")]
        cell.metadata.update({"collapsed": True, "execution": {"shell.execute_reply": "2026"}})
    notebook.metadata = {
        "kernelspec": {"name": "other", "display_name": "x"},
        "language_info": {"name": "python", "version": "3"},
    }
    nbformat.write(notebook, file)
    assert file.read_text() != before
    assert clean.cleaned(file) == before
    notebook.cells[-1].source += "\nprint(1)"
    nbformat.write(notebook, file)
    assert clean.cleaned(file) != before


def test_what_code_reaches_follows_imports_of_imports(tmp_path):
    for name, text in {
        "mmrlhf_core/__init__": "",
        "mmrlhf_core/room/__init__": "",
        "mmrlhf_core/room/a": "from mmrlhf_core.room import b",
        "mmrlhf_core/room/b": "import os",
        "mmrlhf_core/unused/c": "",
        "mmrlhf_study/chapters/d": "def f():\n    import mmrlhf_core.room.a",
        "mmrlhf_study/chapters/e": "",
    }.items():
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found = imports.closure(["mmrlhf_study.chapters.d"], tmp_path)
    assert found == [
        *(f"mmrlhf_core/{n}.py" for n in ("__init__", "room/__init__", "room/a", "room/b")),
        "mmrlhf_study/chapters/d.py",
    ]
    assert rooms(found) == ["mmrlhf_core/room", "mmrlhf_study/chapters/d.py"]


def test_outputs_are_what_the_pipeline_makes_and_git_does_not_track(project):
    (project / "dvc.yaml").write_text(
        "stages:\n  tiny:\n    outs: [data/tiny, models/m]\n    metrics:\n"
        "      - reports/metrics/tiny.json:\n          cache: false\n"
    )
    for name in ("data/tiny/x", "data/mine/precious", "reports/metrics/tiny.json", "logs/tiny/output.log"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "add", "reports/metrics/tiny.json"], check=True)
    assert clean.main(["--outputs"]) == 0
    places = ("data/tiny", "data/mine", "reports/metrics")
    left = {name for name in places if (project / name).exists()}
    assert left == {"data/mine", "reports/metrics"}
    assert not (project / "logs").exists()
