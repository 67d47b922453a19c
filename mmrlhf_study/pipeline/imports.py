"""Which files of the two packages a piece of code reaches by its imports."""

import ast
from collections.abc import Iterable
from pathlib import Path

PACKAGES = ("mmrlhf_core", "mmrlhf_study")
ROOT = Path(__file__).parents[2]


def imported(tree: ast.Module) -> set[str]:
    """Dotted names under the packages that a piece of code imports; a name may be a module or something in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in PACKAGES}


def _files(name: str, root: Path) -> set[Path]:
    """The files Python reads to import a dotted name: the packages on the way and the module itself."""
    folder, found = root, set()
    for part in name.split("."):
        folder = folder / part
        found |= {file for file in (folder / "__init__.py", folder.with_suffix(".py")) if file.is_file()}
    return found


def closure(names: Iterable[str], root: Path = ROOT) -> list[str]:
    """The files behind dotted names and behind all that these import, relative to `root` and sorted."""
    waiting = set().union(*(_files(name, root) for name in names))
    seen: set[Path] = set()
    while waiting:
        file = waiting.pop()
        seen.add(file)
        found = imported(ast.parse(file.read_text(encoding="utf-8")))
        waiting |= set().union(*(_files(name, root) for name in found)) - seen
    return sorted(file.relative_to(root).as_posix() for file in seen)
