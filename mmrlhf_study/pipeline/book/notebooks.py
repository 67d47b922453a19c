"""An executed chapter as the book shows it: parameters as a table, long code folded, progress bars left out.

Code is folded when it has more than `LONG` lines or begins with an import; the reader opens it with a click. Code under
the heading "The idea" stays open, and so does a cell that carries the tag `show-input`. The tags of myst-nb, such as
`hide-input` and `remove-cell`, work as well. The notebook is never executed here.
"""

import ast
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from mmrlhf_study.pipeline.book import captions
from mmrlhf_study.pipeline.book.text import cited, plain
from mmrlhf_study.pipeline.chapters import Chapter

LONG_CODE = 8
LOG_LINE = re.compile(r"^\[\d{4}-\d\d-\d\d [\d:,]+\] \[[A-Z]+\].*\n?", re.MULTILINE)  # what DeepSpeed reports at import
COLUMNS = ("parameter", "value", "meaning", "range", "paper")


def parameter_rows(defaults: str, injected: str) -> Iterator[tuple[str, ...]]:
    """Name, value in this run, meaning, range and the paper's value; the comments are those of the parameters cell."""
    values = {node.targets[0].id: ast.unparse(node.value) for node in ast.parse(injected).body}
    for line in defaults.splitlines():
        name, _, rest = line.partition(" = ")
        parts = [part.strip() for part in rest.partition("  # ")[2].split(";")]
        paper = [part.removeprefix("paper:").strip() for part in parts if part.startswith("paper:")]
        limits = [part for part in parts[1:] if not part.startswith("paper:")]
        yield name, values.get(name, ""), parts[0], "; ".join(limits), "; ".join(paper)


def parameter_table(defaults: str, injected: str) -> NotebookNode:
    """The parameters of the run, folded."""
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    rows = list(parameter_rows(defaults, injected))
    body = "".join(
        f"<tr><td><code>{escape(row[0])}</code></td><td><code>{escape(row[1])}</code></td>"
        + "".join(f"<td>{escape(text)}</td>" for text in row[2:])
        + "</tr>"
        for row in rows
    )
    return new_markdown_cell(
        f'<details class="parameters"><summary>The {len(rows)} parameters of this run</summary>'
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>'
    )


def how_to_run(chapter: Chapter) -> NotebookNode:
    """The exact commands that edit and rerun the chapter, and the executed notebook as a file."""
    return new_markdown_cell(
        f"**Edit and run this chapter:** `jupyter lab notebooks/{chapter.file.name}`, then `dvc repro {chapter.stage}` "
        f"({{download}}`executed notebook </executed/{chapter.file.name}>`)"
    )


def quiet(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs a reader wants: no stderr (progress bars and warnings), no log lines."""
    kept = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                continue
            output.text = LOG_LINE.sub("", output.text)
            if not output.text.strip():
                continue
        kept.append(output)
    return kept


def folded(source: str) -> bool:
    """Whether the code of a cell is hidden at first."""
    lines = [line for line in source.splitlines() if line.strip()]
    return len(lines) > LONG_CODE or (bool(lines) and lines[0].startswith(("import ", "from ")))


class Figures:
    """The figures of one chapter; each is shown once, with its number and caption."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known = captions.saved(folder)
        self.shown: set[Path] = set()

    def take(self, cell: NotebookNode) -> list[NotebookNode]:
        """Take pictures with a caption out of a cell's outputs and return them as cells of their own."""
        kept, cells = [], []
        for output in cell.outputs:
            png = output.get("data", {}).get("image/png")
            file = captions.same(png, self.known) if png else None
            if file is None:
                kept.append(output)
            else:
                cells.append(new_markdown_cell(self.markdown(file)))
        cell.outputs = kept
        return cells

    def markdown(self, file: Path) -> str:
        """The figure, or a reference to it when the chapter has shown it before."""
        name = f"fig-{self.folder.name}-{file.stem}"
        if file in self.shown:
            return f"{{numref}}`{name}` shows it."
        self.shown.add(file)
        text = plain(captions.caption(file))
        return f"```{{figure}} /figures/{self.folder.name}/{file.name}\n:name: {name}\n:alt: {text}\n\n{text}\n```"


def code_cell(cell: NotebookNode, heading: str, figures: Figures) -> list[NotebookNode]:
    """A cell of code without noise, folded when it is long, and its figures."""
    tags = cell.metadata.get("tags", [])
    cell.outputs = quiet(cell.outputs)
    if folded(cell.source) and "show-input" not in tags and "the idea" not in heading.lower():
        cell.metadata["tags"] = [*tags, "hide-input"]
    return [cell, *figures.take(cell)]


def for_book(notebook: NotebookNode, chapter: Chapter, figures: Path) -> NotebookNode:
    """The executed notebook with its cells as the book shows them; `figures` is the folder of the chapter's figures."""
    page = nbformat.from_dict(notebook)
    page.metadata = nbformat.from_dict({"language_info": {"name": "python", "pygments_lexer": "ipython3"}})
    tagged = {tag: cell for cell in page.cells for tag in cell.metadata.get("tags", [])}
    defaults, injected = tagged.get("parameters"), tagged.get("injected-parameters")
    cells, heading, own = [], "", Figures(figures)
    for cell in page.cells:
        if cell is injected:
            continue
        if cell is defaults:
            cells += [how_to_run(chapter), parameter_table(cell.source, (injected or cell).source)]
        elif cell.cell_type == "code":
            cells += code_cell(cell, heading, own)
        else:
            heading = next((line for line in cell.source.splitlines()[::-1] if line.startswith("#")), heading)
            cell.source = cited(cell.source)
            cells.append(cell)
    page.cells = cells
    return page
