"""Read pictures and clips: check the path, decode every picture, hash its content.

A clip is a folder of frames. Every error text is the kind of fault, a colon and the details.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mmrlhf_core.data import storage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 64_000_000  # width x height; a larger picture is refused before it is decoded


class MediaError(ValueError):
    """A picture or clip cannot be used."""


class Picture(NamedTuple):
    """A decoded picture: its path inside the media folder, its content hash, and its bytes where no file holds it."""

    path: str
    digest: str
    data: bytes | None = None


def natural(path: Path) -> tuple[list[str | int], str]:
    """Sorting key that puts frame10 after frame2."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path.as_posix()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings; size and decoding decide whether a picture is usable.

    Warning filters belong to the whole process, so use this around all reading threads, not inside one.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def decode(source: Path | io.BytesIO, name: str) -> str:
    """Decode the whole picture and return its format in lower case, or raise the reason why it cannot be used."""
    try:
        with Image.open(source, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height <= MAX_PIXELS:
                picture.load()
                return str(picture.format).lower()
    except Image.DecompressionBombError as error:
        raise MediaError(f"picture too large: {name} is over {MAX_PIXELS:,} pixels") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaError(f"unreadable picture: {name}") from error
    raise MediaError(f"picture too large: {name} is {width} x {height}, over {MAX_PIXELS:,} pixels")


def _target(media: Path, relative: str) -> Path:
    """The file or folder a row names; it lies inside the media folder."""
    try:
        target = storage.inside(media, relative)
        if target.exists():
            return target
    except (ValueError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        raise MediaError(f"path not inside the media folder: {relative[:200]!r}") from error
    except OSError as error:
        raise MediaError(f"unusable path: {relative[:200]!r}") from error
    raise MediaError(f"missing media: {relative!r}")


def stored(media: Path, relative: str) -> Picture:
    """A picture that lies in the media folder; its path comes back without links, dots or doubled slashes."""
    target = _target(media, relative)
    if not target.is_file():
        raise MediaError(f"not a picture file: {relative!r}")
    decode(target, repr(relative))
    return Picture(target.relative_to(media.resolve()).as_posix(), storage.sha256_file(target))


def frames(media: Path, relative: str) -> list[str]:
    """The frames of a clip in natural order, as paths inside the media folder; hidden files do not count."""
    folder = _target(media, relative)
    if not folder.is_dir():
        raise MediaError(f"clip is not a folder: {relative!r}; extract its frames into one")
    names = (item.relative_to(media.resolve()) for item in folder.iterdir() if item.name[0] != ".")
    if paths := [name.as_posix() for name in sorted(names, key=natural)]:
        return paths
    raise MediaError(f"zero frames: {relative!r}")
