"""The stage `book`: `reports/book/index.html` from the executed chapters, without running them again.

`python -m mmrlhf_study.pipeline.book.build` needs reports/chapters, reports/metrics and reports/runs. Sphinx writes the
pages; a warning is an error. The book needs no network and opens from a folder.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from sphinx.cmd.build import build_main

import mmrlhf_core
from mmrlhf_core.data import storage
from mmrlhf_study.pipeline.book import api, findings, notebooks, overview, pages, results
from mmrlhf_study.pipeline.chapters import Chapter, chapters, read

BOOK = "reports/book"
HERE = Path(__file__).parent
FIXED = ("conf.py", "book.css", "references.bib", "glossary.md", "teach.md", "limits.md", "engine.md")


def write_chapter(chapter: Chapter, folder: Path) -> None:
    """The executed notebook, once as a page and once as it is, to be downloaded."""
    executed = storage.path(f"reports/chapters/{chapter.name}.ipynb")
    if not executed.is_file():
        raise ValueError(f"{chapter.name} has not been run. Run it first: dvc repro {chapter.stage}")
    shutil.copyfile(executed, folder / "executed" / executed.name)
    figures = storage.path(f"reports/figures/{chapter.stage}")
    shutil.copytree(figures, folder / "figures" / chapter.stage)
    nbformat.write(notebooks.for_book(read(executed), chapter, figures), folder / "chapters" / executed.name)


def write_sources(folder: Path) -> None:
    """Everything that Sphinx reads."""
    every = chapters()
    for name in ("executed", "chapters"):
        (folder / name).mkdir()
    for chapter in every:
        write_chapter(chapter, folder)
    for name in FIXED:
        shutil.copyfile(HERE / name, folder / name)
    runs = [storage.read_json(f"reports/runs/{chapter.stage}.json") for chapter in every]
    drawn = overview.write(storage.path(overview.OVERVIEW_FILE))
    if drawn:
        shutil.copyfile(storage.path(overview.OVERVIEW_FILE), folder / "overview.png")
    texts = {
        "index": pages.front(findings.read(), every, runs, drawn),
        "numbers": pages.numbers(every),
        "symbols": pages.symbols(),
        "sources": pages.SOURCES,
        "api": api.page(Path(mmrlhf_core.__file__).parent),
    }
    for name, text in texts.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def make() -> None:
    """Write the book whole or not at all."""
    with tempfile.TemporaryDirectory() as work, storage.writing(BOOK) as target:
        source = Path(work) / "source"
        source.mkdir()
        write_sources(source)
        words = ["-q", "-W", "--keep-going", "-b", "html", "-d", f"{work}/doctrees", str(source), str(target)]
        if build_main(words):
            raise ValueError("Sphinx found something wrong in a page; its message is above.")
        (target / ".buildinfo").unlink(missing_ok=True)


def main() -> int:
    try:
        make()
        results.make()
    except (ValueError, OSError) as error:
        print(f"book: {error}", file=sys.stderr)
        return 2
    print(f"To read: {BOOK}/index.html, in short: {results.RESULTS_FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
