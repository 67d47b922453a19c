"""The report page: everything on it is escaped, comes from the chapters' files and needs no network."""

import re

import matplotlib.pyplot as plt
import pandas as pd
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mmrlhf_core.data import storage
from mmrlhf_study.chapters import reporting
from mmrlhf_study.pipeline import overview, page, site

FACTS = {
    "seconds": 12.3,
    "peak_memory_mib": 512,
    "started": "2026-01-02T03:04:05+00:00",
    "parameters": {"profile": "<i>mini", "seed": 1, "threads": 2},
    "versions": {"torch": "2 & more"},
    "hardware": {"system": "Linux", "cores": 2, "memory_gib": 24, "accelerators": "none"},
}


def prepare() -> None:
    row = reporting.Headline("accuracy <b>", 0.5, 0.25, 0.75, "MiniWorld", paper="0.85 (Table 4)")
    plain = reporting.Headline("steps", 1200, 1200, 1200, "MiniWorld")
    reporting.write_metrics("tiny", {}, [row, plain])
    axes = plt.figure().subplots()
    axes.plot([1, 2])
    reporting.write_figure("tiny", "line", axes.figure, 'a caption with <script>alert(1)</script> and "quotes"')
    storage.write_json("reports/runs/tiny.json", FACTS)


def test_the_page_shows_numbers_beside_the_papers_and_escapes_everything(project):
    prepare()
    assert site.main() == 0
    text = (project / "reports/index.html").read_text()
    assert (
        "accuracy &lt;b&gt;</td><td class='number'>0.5 (0.25 to 0.75)</td><td>MiniWorld</td><td>0.85 (Table 4)" in text
    )
    assert "1,200 (1,200 to 1,200)" in text
    assert "not reported" in text
    assert "&lt;i&gt;mini" in text
    assert "2 &amp; more" in text
    assert "2026-01-02 03:04:05 UTC" in text
    assert "<script" not in text
    assert 'href="chapters/00_tiny.html"' in text
    assert 'src="figures/tiny/line.png"' in text
    assert "A tiny chapter" in text
    assert not re.search(r"(src|href)=.https?:", text)


def test_the_main_results_of_all_chapters_stand_in_one_figure():
    def row(value: float) -> dict[str, object]:
        return {"value": value, "low": value - 1, "high": value + 1, "world": "MiniWorld", "paper": ""}

    scores = {"mean score: DPO": row(7.0), "mean score: base": row(6.0), "MM-DPO less DPO": row(-0.2)}
    drawn = overview.figure({"mm_dpo": scores, "self_improvement": {"own: gain over base, points": row(0.5)}})
    first, second = drawn.axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["base", "DPO"], "by value, whole labels only"
    assert "(MiniWorld)" in first.get_title(loc="left")
    assert [label.get_text() for label in second.get_yticklabels()] == ["own"]
    bounds = [tuple(bar[:, 0]) for bar in first.collections[0].get_segments()]
    assert bounds == [(5, 7), (6, 8)], "the interval, not its width"
    assert overview.figure({"mm_dpo": {"MM-DPO less DPO": row(1.0)}}) is None


def test_the_page_begins_with_the_main_results(project, monkeypatch):
    prepare()
    reporting.write_metrics("tiny", {}, [reporting.Headline("mean score: base", 6, 5, 7, "MiniWorld")])
    monkeypatch.setattr(overview, "PANELS", [("tiny", "Scores", r"mean score: (.+)")])
    assert site.main() == 0
    text = (project / "reports/index.html").read_text()
    assert text.index('href="#tiny"') < text.index('src="overview.png"') < text.index('<section id="tiny"')
    assert (project / "reports/overview.png").is_file()


def test_the_page_names_the_chapter_that_has_not_run(project, capsys):
    assert site.main() == 2
    assert "reports/runs/tiny.json" in capsys.readouterr().err
    assert not (project / "reports/index.html").exists()


def test_figures_and_series_have_the_same_bytes_each_time(project):
    def written() -> tuple[bytes, bytes]:
        prepare()
        reporting.write_series("tiny", "line", pd.DataFrame({"x": [1, 2], "y": [1 / 3, 2e-9]}))
        return (project / "reports/figures/tiny/line.png").read_bytes(), (
            project / "reports/plots/tiny/line.csv"
        ).read_bytes()

    assert written() == written()
    assert written()[1] == b"x,y\n1,0.333333\n2,2e-09\n"


def test_a_chapters_page_has_its_equations_and_no_scripts():
    text = (
        r"A loss $-\log\sigma(\beta\delta)$, code `$HOME` and cost \$5 to \$6." + "\n\n$$\na_1 + b\n$$\n\n```\n$x$\n```"
    )
    notebook = new_notebook(cells=[new_markdown_cell(text), new_code_cell("price = '$a$'")])
    html = page.to_html(notebook, "title <x>")
    assert html.count("<math") == 2
    assert "$HOME" in html
    assert "$x$" in html
    assert "$a$" in html
    assert "<script" not in html
    assert not re.search(r"(src|href)=.https?:", html)
    assert "<x>" not in html
