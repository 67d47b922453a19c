"""How every figure and card of the compendium looks: one palette, one way to draw an interval, one style sheet."""

import base64
from collections.abc import Hashable, Iterable, Sequence
from io import BytesIO

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from PIL import Image

INK, SOFT, LINE, GREY = "#1d2733", "#5b6876", "#dfe5ec", "#9aa5b1"
BETTER_COLOUR, WORSE_COLOUR = "#0b6e6e", "#c2571a"
PALETTE = (
    "#0b6e6e", "#c2571a", "#5a4fa2", "#b8860b", "#2f7fc1", "#8c3b5e", "#4d7c0f", "#e07bb0", "#5b6876", "#1d2733",
    "#6fb1a0", "#a8324a",
)  # fmt: skip
MARKERS = "osD^vP*"  # seven, so that a colour that comes again has another mark

STYLE = f"""<style>
.card {{ border: 1px solid {LINE}; border-radius: 10px; padding: .8rem 1rem; margin: .8rem 0; background: #fff;
  color: {INK}; font: 14px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }}
.card .row {{ display: flex; flex-wrap: wrap; gap: .9rem; }}
.card .side {{ flex: 1 1 16rem; border-radius: 8px; padding: .5rem .7rem; background: #f4f6f9;
  border-left: 4px solid {GREY}; }}
.card .better {{ border-color: {BETTER_COLOUR}; }} .card .worse {{ border-color: {WORSE_COLOUR}; }}
.card p {{ margin: .3rem 0; white-space: pre-wrap; }} .card .soft {{ color: {SOFT}; font-size: 13px; }}
.card mark {{ background: #ffe2a8; padding: 0 .1em; }}
.card .frames {{ display: flex; flex-wrap: wrap; gap: 4px; }}
.card img {{ height: 128px; image-rendering: pixelated; border: 1px solid {LINE}; }}
.card .broken {{ display: inline-block; border: 1px dashed {WORSE_COLOUR}; color: {WORSE_COLOUR}; padding: .5rem; }}
.wide {{ overflow-x: auto; max-width: 100%; }} .wide img {{ height: 96px; image-rendering: pixelated; }}
</style>"""


def colours(names: Iterable[Hashable], fixed: dict[Hashable, str] | None = None) -> dict[Hashable, str]:
    """A colour for each name, in order; `fixed` colours are kept and taken by no other name."""
    fixed = fixed or {}
    free = [colour for colour in PALETTE if colour not in fixed.values()]
    rest = [name for name in dict.fromkeys(names) if name not in fixed]
    return fixed | {name: free[number % len(free)] for number, name in enumerate(rest)}


def finish(axis: Axes, title: str, grid: str = "", **labels: object) -> None:
    """Title on the left, no frame, and what `Axes.set` takes; `grid` is "x", "y", "both" or blank."""
    axis.set_title(title, loc="left", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set(**labels)
    if grid:
        axis.grid(axis=grid, alpha=0.3)


def points(
    axis: Axes,
    at: Sequence[float],
    rows: pd.DataFrame,
    columns: tuple[str, str, str] = ("value", "low", "high"),
    lying: bool = False,
    **style: object,
) -> None:
    """Values with their intervals at the places `at`: upright over x, or lying beside y."""
    value, low, high = (rows[name].to_numpy(float) for name in columns)
    error = np.clip([value - low, high - value], 0, None)
    look = {"fmt": "o", "markersize": 4, "capsize": 2, "linewidth": 1} | style
    if lying:
        axis.errorbar(value, at, xerr=error, **look)
    else:
        axis.errorbar(at, value, yerr=error, **look)


def side_by_side(
    axis: Axes, rows: pd.DataFrame, series: str, place: str, columns: tuple[str, str, str] = ("value", "low", "high")
) -> None:
    """Points of several series, side by side over every place, with ticks and legend; both are columns of `rows`."""
    places, palette = list(dict.fromkeys(rows[place])), colours(rows[series])
    for number, (name, colour) in enumerate(palette.items()):
        part = rows[rows[series] == name].set_index(place).reindex(places)
        shift = (number - (len(palette) - 1) / 2) * 0.8 / len(palette)
        points(axis, np.arange(len(places)) + shift, part, columns, color=colour, label=name)
    axis.set_xticks(range(len(places)), places)
    legend(axis)


def legend(axis: Axes, **style: object) -> None:
    """A legend without frame, beside the axes."""
    axis.legend(**{"frameon": False, "fontsize": 8, "loc": "upper left", "bbox_to_anchor": (1, 1)} | style)


def picture(image: Image.Image, alt: str = "") -> str:
    """A picture inside an HTML page, pixels kept sharp. `alt` has to be escaped already."""
    file = BytesIO()
    image.save(file, "PNG")
    return f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
