"""Small pictures with captions."""

import numpy as np
from PIL import Image

WORDS = ("red", "green", "blue", "left", "right")
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 230)}


def drawing(number: int, side: int = 64) -> tuple[Image.Image, str]:
    """A coloured block on the left or on the right, with its caption and a texture of its own."""
    colour, where = list(COLOURS)[number % 3], ("left", "right")[number // 3 % 2]
    pixels = np.random.default_rng(number).integers(150, 255, (side // 8, side // 8, 3)).repeat(8, 0).repeat(8, 1)
    start = 4 if where == "left" else side // 2
    pixels[8 : side - 8, start : start + side // 2 - 8] = COLOURS[colour]
    return Image.fromarray(pixels.astype(np.uint8)), f"{colour} {where}"
