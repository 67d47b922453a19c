"""The figures of the curation chapter; each takes plain data and returns a matplotlib figure."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image

INK, SOFT, ACCENT, SECOND = "#1d2733", "#9fb0c0", "#0b6e6e", "#c8553d"


def funnel(rows: Sequence[tuple[str, int, int]]) -> Figure:
    """Bars of what is left after each filter, with what it removed; `rows` as `funnel.table` gives them."""
    figure, axes = plt.subplots(figsize=(8, 3.2))
    names = [f"{step}" if not gone else f"{step}  (−{gone:,})" for step, gone, _ in rows]
    bars = axes.barh(names, [left for *_, left in rows], color=[SOFT] * (len(rows) - 1) + [ACCENT])
    axes.bar_label(bars, [f"{left:,}" for *_, left in rows], padding=4, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, rows[0][2] * 1.12)
    axes.set_xlabel("queries left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def scatter(points: np.ndarray, names: Sequence[str], shown: Mapping[int, Image.Image]) -> Figure:
    """A map [N, 2] coloured by name, with the thumbnails of the points in `shown` (place -> picture)."""
    figure, axes = plt.subplots(figsize=(9, 7))
    for number, name in enumerate(sorted(set(names))):
        here = np.array([n == name for n in names])
        axes.scatter(*points[here].T, s=3, alpha=0.5, color=plt.cm.tab10(number % 10), label=name)
    for place, picture in shown.items():
        box = OffsetImage(np.asarray(picture.resize((64, 64))), zoom=0.42)
        axes.add_artist(AnnotationBbox(box, points[place], pad=0.1, bboxprops={"edgecolor": SOFT}))
    axes.legend(markerscale=4, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axes.set_xticks([])
    axes.set_yticks([])
    return figure


def members(rows: Sequence[tuple[str, Sequence[Image.Image], Sequence[Image.Image]]]) -> Figure:
    """One line per cluster: its name, the members nearest to the centre, a gap, the members farthest from it."""
    near, far = len(rows[0][1]), len(rows[0][2])
    shape = {"ncols": near + far + 1, "squeeze": False, "figsize": (0.85 * (near + far + 1), 0.9 * len(rows))}
    figure, axes = plt.subplots(len(rows), **shape, width_ratios=[1] * near + [0.4] + [1] * far)
    for line, (name, close, distant) in zip(axes, rows, strict=True):
        for cell, picture in zip([*line[:near], *line[near + 1 :]], [*close, *distant], strict=True):
            cell.imshow(picture)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        for cell in line:
            cell.set_xticks([])
            cell.set_yticks([])
        line[near].axis("off")
    axes[0][0].set_title("nearest to the centre", fontsize=9, loc="left")
    axes[0][near + 1].set_title("farthest from it", fontsize=9, loc="left")
    return figure


def threshold(rows: pd.DataFrame, chosen: float) -> Figure:
    """Recall and precision on planted near-duplicates against the cosine threshold, per `rule`, with the one in use."""
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    for style, (rule, line) in zip((":", "-"), rows.groupby("rule", sort=True), strict=False):
        axes.plot(line["cosine"], line["recall"], color=ACCENT, linestyle=style, label=f"recall, {rule}")
        axes.plot(line["cosine"], line["precision"], color=SECOND, linestyle=style, label=f"precision, {rule}")
    axes.axvline(chosen, color=SOFT, linestyle="--", label=f"in use: {chosen}")
    axes.set(xlabel="cosine threshold", ylim=(-0.02, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def growth(rows: pd.DataFrame, measure: str, label: str) -> Figure:
    """A measure against the size of the set for each way of drawing, with 95 % intervals over seeds."""
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    part = rows[rows["measure"] == measure]
    for colour, (how, line) in zip((SECOND, ACCENT), part.groupby("drawn", sort=True), strict=True):
        axes.plot(line["queries"], line["mean"], color=colour, marker="o", markersize=3, label=how)
        axes.fill_between(line["queries"], line["low"], line["high"], color=colour, alpha=0.2)
    axes.set(xlabel="queries drawn", ylabel=label, xscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def pairs(rows: Sequence[tuple[Image.Image, Image.Image, str]], titles: tuple[str, str]) -> Figure:
    """Columns of two pictures, one above the other, with a line of text below."""
    figure, axes = plt.subplots(2, len(rows), figsize=(1.5 * len(rows), 3.4), squeeze=False)
    for column, (above, below, text) in zip(axes.T, rows, strict=True):
        for cell, picture in zip(column, (above, below), strict=True):
            cell.imshow(picture)
            cell.set_xticks([])
            cell.set_yticks([])
        column[1].set_xlabel(text, fontsize=8)
    for cell, title in zip(axes[:, 0], titles, strict=True):
        cell.set_ylabel(title, fontsize=9)
    return figure
