"""The figures of the annotation chapter; each takes a table of `report` and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmrlhf_study.annotation.records import SCALES

CAPTIONS = {
    "alpha": "Krippendorff's alpha per scale and class, 95 % intervals over queries",
    "annotator_bias": "Mean deviation of each annotator from the others of the same responses",
    "scores": "How often each point of each scale was given",
    "longer": "Share of pairs of different length whose longer response is the better one",
    "wins": "Share of comparisons the row model wins from the column model, ties as halves",
    "strengths": "Bradley-Terry strengths of the responders, 95 % intervals over queries",
    "enough": "Pairs that the mean of n annotators orders as the truth does; band: 95 % of random panels",
    "cases": "App. D in miniature: share of cases decided rightly by people and by the model judge",
}
COLOURS = {"helpfulness": "#0b6e6e", "faithfulness": "#c2571a", "ethics": "#5a4fa2"}


def _bars(axis: Axes, rows: pd.DataFrame, at: np.ndarray, colour: str, label: str = "") -> None:
    """Points with their intervals, lying."""
    error = np.abs(rows[["low", "high"]].to_numpy(float).T - rows["value"].to_numpy(float))
    axis.errorbar(rows["value"], at, xerr=error, fmt="o", color=colour, label=label or None, capsize=3, markersize=5)


def intervals(rows: pd.DataFrame, title: str, mark: float | None = None) -> Figure:
    """One point with interval per row of a table with value, low, high; `mark` draws a line to compare with."""
    figure, axis = plt.subplots(figsize=(7, 0.45 * len(rows) + 1.1))
    at = np.arange(len(rows))[::-1]
    if mark is not None:
        axis.axvline(mark, color="#9aa5b1", linestyle="--", linewidth=1)
    _bars(axis, rows, at, "#0b6e6e")
    axis.set_yticks(at, [str(name) for name in rows.index])
    axis.set_title(title, loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def by_scale(rows: pd.DataFrame, group: str, title: str, mark: float | None = None) -> Figure:
    """Points with intervals per group and scale, from columns `group`, scale, value, low, high."""
    names = list(dict.fromkeys(rows[group]))
    figure, axis = plt.subplots(figsize=(7.5, 0.55 * len(names) + 1.3))
    at = np.arange(len(names))[::-1].astype(float)
    if mark is not None:
        axis.axvline(mark, color="#9aa5b1", linestyle="--", linewidth=1)
    for number, scale in enumerate(SCALES):
        mine = rows[rows["scale"] == scale].set_index(group).reindex(names)
        _bars(axis, mine, at - 0.22 * (number - 1), COLOURS[scale], scale)
    axis.set_yticks(at, names)
    axis.set_title(title, loc="left", fontsize=11)
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def histograms(counts: pd.DataFrame) -> Figure:
    """How often each point of each scale was given, as shares."""
    figure, axes = plt.subplots(1, len(SCALES), figsize=(9, 2.6), sharey=True)
    for axis, scale in zip(axes, SCALES, strict=True):
        axis.bar(counts.index, counts[scale] / max(counts[scale].sum(), 1), color=COLOURS[scale])
        axis.set_title(scale, fontsize=11)
        axis.set_xticks(range(1, 6))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("share of judgements")
    return figure


def matrix(rows: pd.DataFrame, title: str) -> Figure:
    """Win shares, row against column."""
    figure, axis = plt.subplots(figsize=(0.9 * len(rows) + 2, 0.75 * len(rows) + 1.2))
    axis.imshow(rows, vmin=0, vmax=1, cmap="BrBG")
    for i, j in np.ndindex(rows.shape):
        if i != j:
            axis.text(j, i, f"{rows.iloc[i, j]:.2f}", ha="center", va="center", fontsize=10)
    axis.set_xticks(range(len(rows)), rows.columns, rotation=20)
    axis.set_yticks(range(len(rows)), rows.index)
    axis.set_title(title, loc="left", fontsize=11)
    return figure


def curve(rows: pd.DataFrame, title: str) -> Figure:
    """Value with its band against the number of annotators."""
    figure, axis = plt.subplots(figsize=(6, 3))
    axis.fill_between(rows["annotators"], rows["low"], rows["high"], color="#0b6e6e", alpha=0.15)
    axis.plot(rows["annotators"], rows["value"], "o-", color="#0b6e6e", markersize=4)
    axis.set_xlabel("judgements per response")
    axis.set_title(title, loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    return figure
