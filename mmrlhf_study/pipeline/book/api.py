"""A page of the core's public functions and classes, made from their docstrings without importing them.

Docstrings are read with `ast`, so the page costs no import of torch, and they are Markdown already: names in backticks.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from mmrlhf_study.pipeline.book.text import cited

Function = ast.FunctionDef | ast.AsyncFunctionDef
FENCE = "`" * 7
ROOMS = {  # in the order a pair of responses meets them
    "objectives": "Objectives", "ranked": "Ranked trees", "models": "Models", "data": "Data", "rollout": "Rollouts",
    "training": "Training",
}  # fmt: skip


def _public(body: list[ast.stmt]) -> Iterator[Function | ast.ClassDef]:
    """Functions and classes of a module or class that are documented and not private."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_") and ast.get_docstring(node):
            yield node


def signature(node: Function | ast.ClassDef) -> str:
    """Name, arguments and return; of a class the fields that a dataclass takes."""
    if isinstance(node, ast.ClassDef):
        fields = [ast.unparse(line) for line in node.body if isinstance(line, ast.AnnAssign)]
        return f"{node.name}({', '.join(fields)})" if fields else node.name
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){returns}"


def _entry(node: Function | ast.ClassDef, kind: str) -> Iterator[str]:
    """One function or class as a Sphinx directive, the methods of a class inside it."""
    fence = FENCE if kind == "method" else FENCE + "`"
    yield f"{fence}{{py:{kind}}} {signature(node)}\n\n{ast.get_docstring(node)}\n"
    if isinstance(node, ast.ClassDef):
        for method in _public(node.body):
            if not isinstance(method, ast.ClassDef):
                yield from _entry(method, "method")
    yield f"{fence}\n"


def _module(file: Path, name: str) -> Iterator[str]:
    """One module: what it is for, then what it offers."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    entries = list(_public(tree.body))
    if not entries:
        return
    yield f"### {name.partition('.')[2]}\n"
    yield f"{FENCE}`{{py:module}} {name}\n{FENCE}`\n\n{ast.get_docstring(tree) or ''}\n"
    for node in entries:
        yield from _entry(node, "class" if isinstance(node, ast.ClassDef) else "function")


def page(package: Path) -> str:
    """The API page of the core, as Markdown."""
    lines = ["# The core's functions and classes\n", f"What `{package.name}` offers, room by room.\n"]
    for room in [*ROOMS, *sorted({file.parent.name for file in package.glob("*/*.py")} - set(ROOMS))]:
        modules = [file for file in sorted((package / room).glob("*.py")) if file.name != "__init__.py"]
        if modules:
            lines.append(f"## {ROOMS.get(room, room)}\n")
            lines += [line for file in modules for line in _module(file, f"{package.name}.{room}.{file.stem}")]
    return cited("\n".join(lines))
