"""Captions for the figures of an executed chapter: the chapter writes each figure with its caption to reports/figures.

A notebook keeps a figure without its caption and in low resolution. The file that looks the same has both, so the book
shows the file, numbered. A picture for which no file looks the same stays as it is.
"""

import base64
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

THUMB_SIDE = 64  # pixels, for comparing
ALIKE = 6.5  # mean difference of grey levels, of 255; the same figure at two resolutions differs by 0.3 to 6.2


def thumbnail(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("L").resize((THUMB_SIDE, THUMB_SIDE)), float)


def saved(folder: Path) -> dict[Path, np.ndarray]:
    """The figures of a chapter with their thumbnails."""
    pictures = {}
    for file in sorted(folder.glob("*.png")):
        with Image.open(file) as picture:
            pictures[file] = thumbnail(picture)
    return pictures


def same(png: str, among: Mapping[Path, np.ndarray]) -> Path | None:
    """The saved figure that a picture (PNG in base64) shows; None unless exactly one file looks like it."""
    if not among:
        return None
    with Image.open(BytesIO(base64.b64decode(png))) as picture:
        seen = thumbnail(picture)
    distances = sorted((float(np.abs(seen - other).mean()), file) for file, other in among.items())
    nearest, *others = distances
    clear = not others or nearest[0] < others[0][0] / 1.5
    return nearest[1] if nearest[0] < ALIKE and clear else None


def caption(file: Path) -> str:
    """The caption that a figure file carries."""
    with Image.open(file) as picture:
        return str(picture.info.get("Description", file.stem))
