"""The book: complete, readable without a network, everything from the files of the run, nothing executed."""

import base64
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import links
import nbformat
import pytest
import yaml
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from tiny_project import HEAD, ROOT, make_project

from mmrlhf_core.data import storage
from mmrlhf_study.chapters import reporting
from mmrlhf_study.pipeline.book import build, findings, notebooks, overview
from mmrlhf_study.pipeline.book.text import cited
from mmrlhf_study.pipeline.chapters import Chapter

FACTS = {
    "seconds": 12.3,
    "peak_memory_mib": 512,
    "started": "2026-01-02T03:04:05+00:00",
    "parameters": {"profile": "mini", "seed": 1, "threads": 2},
    "versions": {"torch": "2 & <more>"},
    "hardware": {"system": "Linux", "cores": 2, "memory_gib": 24, "accelerators": "none"},
}
FINDINGS = {
    "profile": "mini",
    "claims": [
        {"claim": claim, "verdict": verdict, "measured": "acc", "number": ["tiny", "headline", number]}
        for claim, verdict, number in (("It works", "reproduced", "accuracy <b>"), ("More", "open", "none such"))
    ],
    "chapters": {"tiny": {"figure": "line", "headlines": ["accuracy <b>", "steps"], "text": "It was small."}},
}
PARAMETERS = "profile = 'mini'  # its name; mini, smoke; paper: none\nseed = 1  # where chance starts; 0 and up"
LONG = "\n".join(f"a_{n} = {n}" for n in range(12))


def drawn() -> Figure:
    figure = Figure()
    figure.subplots().plot([1, 3, 2])
    return figure


def png(dpi: int) -> str:
    file = BytesIO()
    drawn().savefig(file, format="png", dpi=dpi, bbox_inches="tight")
    return base64.b64encode(file.getvalue()).decode()


def executed() -> nbformat.NotebookNode:
    """The chapter as papermill leaves it: a figure twice, progress on stderr, an equation, an injected cell."""
    picture = new_output("display_data", {"image/png": png(72)})
    noise = [
        new_output("stream", name="stderr", text="runs: 100%|####| 7/7"),
        new_output("stream", name="stdout", text="[2026-01-02 03:04:05,678] [WARNING] [x.py:1] noise\n12 rows\n"),
    ]
    cells = [
        new_markdown_cell(HEAD),
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        new_code_cell("# Parameters\nprofile = 'mini'\nseed = 7\n", metadata={"tags": ["injected-parameters"]}),
        new_markdown_cell(
            "## The idea\n\nA loss $-\\log\\sigma(\\beta\\delta)$ and\n\n$$\na_1 + b\n$$\n\ncode `$HOME`"
        ),
        new_code_cell(LONG),
        new_markdown_cell("## Run"),
        new_code_cell(LONG.replace("a_", "b_"), outputs=noise),
        new_code_cell("figure", outputs=[picture]),
        new_code_cell("figure", outputs=[picture]),
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


def prepare() -> None:
    """What the chapter's run would have left."""
    rows = [
        reporting.Headline("accuracy <b>", 0.5, 0.25, 0.75, "MiniWorld", paper="0.85 | Table 4"),
        reporting.Headline("steps", 1200, 1200, 1200, "MiniWorld"),
    ]
    reporting.write_metrics("tiny", {}, rows)
    reporting.write_figure("tiny", "line", drawn(), 'a caption with <script>alert(1)</script> and "quotes" | $x$')
    storage.write_json("reports/runs/tiny.json", FACTS)
    storage.write_text("reports/findings.yaml", yaml.safe_dump(FINDINGS, allow_unicode=True))
    storage.write_text("reports/chapters/00_tiny.ipynb", nbformat.writes(executed()))


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Iterator[Path]:
    """The book of the tiny project, built once."""
    folder = tmp_path_factory.mktemp("project")
    make_project(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        prepare()
        assert build.main() == 0
    return folder / "reports/book"


def html(book: Path, name: str) -> str:
    return (book / f"{name}.html").read_text()


def test_every_page_is_reached_and_nothing_is_broken_or_fetched(book):
    assert links.broken(book) == []
    assert links.fetched(book) == set()
    for file in book.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", file.read_text()), file
    assert "fetch(" not in (book / "searchindex.js").read_text()
    linked = {link.partition("#")[0] for link in links.Page(book / "index.html").links}
    pages = ("chapters/00_tiny", "numbers", "glossary", "symbols", "api", "sources")
    assert {f"{name}.html" for name in pages} <= linked


@pytest.mark.parametrize(
    ("page", "there", "absent"),
    [  # a number that the run does not have is not invented; progress and warnings are left out
        (
            "index",
            ("0.50\u00a0[0.25,\u00a00.75]", findings.MISSING, "2 &amp; &lt;more&gt;", "2026-01-02 03:04:05 UTC"),
            (),
        ),
        ("numbers", ("accuracy &lt;b&gt;", "0.85 | Table 4", "1,200"), ("accuracy <b>",)),
        ("chapters/00_tiny", ("12 rows", "&lt;script&gt;alert(1)"), ("100%", "WARNING", "<script>alert")),
    ],
)
def test_a_page_has_its_numbers_escaped_and_no_noise(book, page, there, absent):
    text = html(book, page)
    assert [part for part in there if part not in text] == []
    assert [part for part in absent if part in text] == []


def test_a_chapter_has_equations_without_scripts_and_its_commands(book):
    text = html(book, "chapters/00_tiny")
    assert text.count("<math") == 2
    assert not re.search(r"<script[^>]*mathjax", text.lower())
    words = re.sub("<[^>]+>", "", text)
    for command in ("$HOME", "dvc repro tiny", "jupyter lab notebooks/00_tiny.ipynb"):
        assert words.count(command) == 1, command
    downloads = [link for link in links.Page(book / "chapters/00_tiny.html").links if link.endswith(".ipynb")]
    assert (book / "chapters" / downloads[0]).read_bytes() == (book.parent / "chapters/00_tiny.ipynb").read_bytes()


def test_a_figure_is_numbered_with_its_caption_and_shown_once(book):
    text = html(book, "chapters/00_tiny")
    assert text.count("<figure") == 1
    assert len(re.findall(r'href="#fig-tiny-line"', text)) >= 2, "the second time a reference stands for it"


def cells(*tags: str) -> list[nbformat.NotebookNode]:
    notebook = executed()
    notebook.cells[6].metadata.tags = list(tags)
    return notebooks.for_book(notebook, Chapter(Path("notebooks/00_tiny.ipynb")), Path("nowhere")).cells


def test_long_code_is_folded_unless_it_is_the_idea_or_its_author_wants_it_shown():
    folded = [cell.source[:1] for cell in cells() if "hide-input" in cell.metadata.get("tags", [])]
    assert folded == ["b"]
    assert not [cell for cell in cells("show-input") if "hide-input" in cell.metadata.get("tags", [])]


def test_parameters_are_one_table_with_the_values_of_the_run():
    rows = list(notebooks.parameter_rows(PARAMETERS, "profile = 'mini'\nseed = 7"))
    assert rows == [
        ("profile", "'mini'", "its name", "mini, smoke", "none"),
        ("seed", "7", "where chance starts", "0 and up", ""),
    ]
    assert not [cell for cell in cells() if "injected" in str(cell.metadata)]


def test_the_results_in_short_have_picture_numbers_and_words(book):
    folder = book.parent
    text = (folder / "RESULTS.md").read_text()
    assert "It was small." in text
    assert "0.50" in text
    assert (folder / "results/tiny.png").is_file()


def test_a_chapter_that_has_not_run_is_named(project, capsys):
    prepare()
    storage.remove(project / "reports/chapters/00_tiny.ipynb")
    assert build.main() == 2
    assert "dvc repro tiny" in capsys.readouterr().err
    assert not (project / "reports/book").exists()


@pytest.mark.parametrize("change", [{"profil": "mini"}, {"claims": [{"claim": "x"}]}, {"chapters": {"tiny": {}}}])
def test_a_mistake_in_the_findings_is_named(project, change):
    storage.write_text("reports/findings.yaml", yaml.safe_dump(FINDINGS | change))
    with pytest.raises(ValueError, match=next(iter(change))):
        findings.read()


def test_every_number_and_figure_that_the_findings_name_is_in_the_committed_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    known = findings.read()
    assert [claim for claim in known.claims if findings.number(claim) == findings.MISSING] == []
    for stage, finding in known.chapters.items():
        assert set(finding.headlines) <= set(findings.metrics(stage)["headline"]), stage
    assert set(known.chapters) == {file.stem[3:] for file in (ROOT / "notebooks").glob("[0-9]*.ipynb")}


def test_the_main_results_of_all_chapters_stand_in_one_figure():
    def row(value: float) -> dict[str, object]:
        return {"value": value, "low": value - 1, "high": value + 1, "world": "MiniWorld", "paper": ""}

    scores = {"mean score: DPO": row(7.0), "mean score: base": row(6.0), "MM-DPO less DPO": row(-0.2)}
    figure = overview.figure({"mm_dpo": scores, "self_improvement": {"own: gain over base, points": row(0.5)}})
    first, second = figure.axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["base", "DPO"], "by value, whole labels only"
    assert "(MiniWorld)" in first.get_title(loc="left")
    assert [label.get_text() for label in second.get_yticklabels()] == ["own"]
    bounds = [tuple(bar[:, 0]) for bar in first.collections[0].get_segments()]
    assert bounds == [(5, 7), (6, 8)], "the interval, not its width"
    assert overview.figure({"mm_dpo": {"MM-DPO less DPO": row(1.0)}}) is None


def test_an_arxiv_number_becomes_a_reference_where_the_paper_is_known():
    assert cited("(2305.18290), arXiv 2502.10391") == "({cite:t}`dpo`), {cite:t}`mm_rlhf`"
    for kept in ("`arXiv 2305.18290`", "0001.00001", "https://x.org/2305.18290"):
        assert cited(kept) == kept
