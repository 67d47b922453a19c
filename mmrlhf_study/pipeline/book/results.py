"""`reports/RESULTS.md`: the results without running anything, one figure and a few numbers a chapter.

The words are those of `reports/findings.yaml`, the numbers those of `reports/metrics`. The figures are copied to
`reports/results` in at most 256 colours, small enough to be kept in git.
"""

from pathlib import Path

from PIL import Image

from mmrlhf_core.data import storage
from mmrlhf_study.pipeline.book import captions, findings, overview, pages
from mmrlhf_study.pipeline.book.findings import ChapterFinding
from mmrlhf_study.pipeline.book.text import plain, table
from mmrlhf_study.pipeline.chapters import Chapter, chapters

RESULTS_FILE, RESULTS_FOLDER = "reports/RESULTS.md", "reports/results"
WIDEST = 1200  # pixels
RESULTS_HEAD = """# Results

Written by the stage `book` from `reports/metrics`, `reports/figures` and the texts of `reports/findings.yaml`.
"""


def copy_picture(source: Path, target: Path) -> None:
    """Copy a figure in few colours."""
    with Image.open(source) as picture:
        picture.thumbnail((WIDEST, 10 * WIDEST))
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, "PNG", optimize=True)


def section(chapter: Chapter, finding: ChapterFinding, folder: Path) -> str:
    """One chapter: its figure, its numbers beside the paper's, and what they mean."""
    rows = findings.metrics(chapter.stage).get("headline", {})
    figure = storage.path(f"reports/figures/{chapter.stage}/{finding.figure}.png")
    parts = [f"## {pages.heading(chapter)['title']}\n", finding.text.strip() + "\n"]
    if figure.is_file():
        caption = plain(captions.caption(figure))
        copy_picture(figure, folder / f"{chapter.stage}.png")
        parts.append(f"![{caption}](results/{chapter.stage}.png)\n\n*{caption}*\n")
    parts.append(table(pages.HEADLINE, pages.headline_rows(rows, finding.headlines)))
    return "\n".join(parts)


def make() -> None:
    """Write the page and its pictures."""
    known, every = findings.read(), chapters()
    runs = [storage.read_json(f"reports/runs/{chapter.stage}.json") for chapter in every]
    parts = [RESULTS_HEAD, pages.other_profile(known, runs), pages.claim_table(known, every, "../notebooks/{}.ipynb")]
    with storage.writing(RESULTS_FOLDER) as folder:
        folder.mkdir()
        if storage.path(overview.OVERVIEW_FILE).is_file():
            copy_picture(storage.path(overview.OVERVIEW_FILE), folder / "overview.png")
            parts.append("![Headline numbers of all chapters with their intervals](results/overview.png)\n")
        parts += [section(c, known.chapters[c.stage], folder) for c in every if c.stage in known.chapters]
    storage.write_text(RESULTS_FILE, "\n".join(parts))
