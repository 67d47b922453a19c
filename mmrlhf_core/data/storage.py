"""Files that are written whole or not at all, hashed by content, and never outside their folder."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MARKER = "dvc.yaml"


def root() -> Path:
    """The project folder: the nearest one at or above the working directory that holds `dvc.yaml`."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / MARKER).is_file():
            return folder
    raise ValueError(
        f"No {MARKER} at or above {here}. Start Python or Jupyter inside the project folder, or change into it first."
    )


def path(relative: str | Path) -> Path:
    """`relative` inside the project folder; an absolute path is unchanged, also outside a project."""
    return Path(relative) if Path(relative).is_absolute() else root() / relative


def inside(folder: str | Path, relative: str) -> Path:
    """`folder / relative`; an empty or absolute path, or one that leads out of `folder`, is an error (links count)."""
    base = Path(folder).resolve()
    if not relative or "\0" in relative or Path(relative).is_absolute():
        raise ValueError(f"{relative!r} is not a relative path inside {base.name}/. Give one such as 'a/b.png'.")
    target = (base / relative).resolve()
    if target == base or base not in target.parents:
        raise ValueError(f"{relative!r} leads out of {base.name}/. Media must lie inside their folder.")
    return target


def _sync(target: Path) -> None:
    """Flush a file to disk; a folder with one call for the whole system, because single calls take minutes."""
    if target.is_dir():
        os.sync()
        return
    with open(target, "rb") as stream:
        os.fsync(stream.fileno())


def remove(target: Path) -> None:
    """Delete a file or a folder, if there is one."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


@contextmanager
def writing(target: str | Path) -> Iterator[Path]:
    """Yield a path for a new file or folder, and rename it to `target` if the block succeeds; else change nothing."""
    target = path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    temporary = holder / target.name
    try:
        yield temporary
        if not temporary.exists():
            raise ValueError(f"Nothing was written for {target.name}: the block has to create the given path.")
        _sync(temporary)
        if temporary.is_dir() and target.exists():
            os.rename(target, holder / "replaced")
        os.replace(temporary, target)
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def write_text(target: str | Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with writing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: str | Path, value: Any) -> None:
    """Write JSON with sorted keys, whole or not at all; NaN and infinity are refused."""
    write_text(target, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(source: str | Path) -> Any:
    """Read a JSON file; a broken file is an error that names it."""
    file = path(source)
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} is not readable JSON ({error}). Delete it and rerun the stage that makes it."
        ) from error


def read_object(source: str | Path, keys: Iterable[str] = ()) -> dict[str, Any]:
    """The object of a JSON file that has at least these keys; another content is an error that names file and key."""
    value = read_json(source)
    if not isinstance(value, dict):
        raise ValueError(f"{source} holds {json.dumps(value)[:60]}, not a JSON object. Give the right file.")
    for key in keys:
        if key not in value:
            raise ValueError(f"{source} has no {key!r}; it has {', '.join(map(repr, value)) or 'no keys'}.")
    return value


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(source: str | Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with open(source, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_tree(folder: str | Path) -> str:
    """SHA-256 over the relative names and contents of all files below `folder`, order independent."""
    base = Path(folder)
    files = sorted(f for f in base.rglob("*") if f.is_file())
    rows = (f"{file.relative_to(base).as_posix()} {sha256_file(file)}" for file in files)
    return sha256_bytes("\n".join(rows).encode())
