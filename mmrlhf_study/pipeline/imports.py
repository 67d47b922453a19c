"""What a piece of code reaches by its imports: files of the two packages, and the rooms that a stage depends on."""

import ast
from collections.abc import Iterable
from pathlib import Path

PACKAGES = ("mmrlhf_core", "mmrlhf_study")
BY_FILE = ("mmrlhf_study/chapters", "mmrlhf_study/pipeline")  # rooms with a file for every stage
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


def rooms(files: Iterable[str]) -> list[str]:
    """The folders that hold these files, as a stage depends on them; in rooms with a file for every stage, the file.

    `__init__.py` files of a package, and of a room with a file for every stage, hold a sentence and no code.
    """
    found = set()
    for file in map(Path, files):
        folder = file.parent.as_posix()
        if folder not in BY_FILE and folder not in PACKAGES:
            found.add(folder)
        elif file.name != "__init__.py":
            found.add(file.as_posix())
    return sorted(found)
