"""The chapters: where they are, and what their `parameters` cell names."""

import ast
from dataclasses import dataclass
from pathlib import Path

import nbformat

from mmrlhf_core.data import storage
from mmrlhf_core.data.names import nearest


class ChapterError(ValueError):
    """A chapter is missing or not built as the runner needs it."""


@dataclass(frozen=True)
class Chapter:
    """One ordered notebook; `stage` is its name without the number, for DVC, params.yaml and reports."""

    file: Path

    @property
    def name(self) -> str:
        return self.file.stem

    @property
    def stage(self) -> str:
        return self.name.partition("_")[2]


def chapters() -> list[Chapter]:
    """All chapters in reading order."""
    return [Chapter(file) for file in sorted(storage.path("notebooks").glob("[0-9][0-9]_*.ipynb"))]


def find(name: str) -> Chapter:
    """The chapter with this stage or notebook name."""
    known = {key: chapter for chapter in chapters() for key in (chapter.stage, chapter.name)}
    if name.removesuffix(".ipynb") not in known:
        raise ChapterError(f"no chapter {name!r} in notebooks/. {nearest(name, {c.stage for c in chapters()})}")
    return known[name.removesuffix(".ipynb")]


def read(file: Path) -> nbformat.NotebookNode:
    """A notebook file, or a sentence saying why it cannot be read."""
    try:
        return nbformat.read(file, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError) as error:
        raise ChapterError(f"{file.name} is not a notebook: {str(error).splitlines()[0][:200]}") from None


def parameters(notebook: nbformat.NotebookNode, name: str) -> dict[str, object]:
    """Names and default values of the one cell tagged `parameters`: plain assignments of literals."""
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ChapterError(f"{name}: {len(tagged)} cells are tagged 'parameters'; a chapter has exactly one.")
    values = {}
    for node in _parse(tagged[0].source, name).body:
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
            raise ChapterError(f"{name}: the parameters cell holds only 'name = literal'; not {ast.unparse(node)!r}.")
        try:
            values[node.targets[0].id] = ast.literal_eval(node.value)
        except ValueError:
            raise ChapterError(
                f"{name}: parameter {ast.unparse(node)!r} is computed; papermill would keep this default. "
                "Write a literal."
            ) from None
    return values


def _parse(source: str, name: str) -> ast.Module:
    """Python of one cell, its magics left out."""
    try:
        return ast.parse("\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))))
    except SyntaxError as error:
        raise ChapterError(f"{name}: a cell is not Python ({error.msg}): {(error.text or '').strip()!r}") from None
