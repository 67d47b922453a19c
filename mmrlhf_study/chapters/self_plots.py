"""The pictures of the self-improvement chapter: figures from its tables, and cards of queries with all answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmrlhf_core.data.records import Query
from mmrlhf_study.annotation import views
from mmrlhf_study.chapters.self_training import PEOPLE

COLOURS = {"base": "#5b6876", "weak": "#8c6d1f", "own": "#0b6e6e", "people": "#c2571a", "truth": "#5a4fa2"}
COLOURS |= {"random": "#9aa5b1"}
OTHER = "#333333"


def _points(axis: Axes, x: Sequence[float], rows: pd.DataFrame, arm: str, line: str = "", label: str = "") -> None:
    """Values with their intervals above `x`."""
    error = [(rows["value"] - rows["low"]).clip(lower=0), (rows["high"] - rows["value"]).clip(lower=0)]
    look = {"color": COLOURS.get(arm, OTHER), "capsize": 3, "markersize": 5, "label": label or None}
    axis.errorbar(x, rows["value"], error, fmt=f"o{line}", **look)


def _plain(axis: Axes, title: str, zero: bool = True) -> None:
    if zero:
        axis.axhline(0, color="#9aa5b1", linestyle="--", linewidth=1)
    axis.set_title(title, loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)


def arms(gains: pd.DataFrame, score: str, world: str) -> Figure:
    """Gain over the base of every arm with most answers in one round; grey bars reach from lowest to highest seed."""
    rows = gains[(gains["rounds"] == 1) & (gains["n"] == gains["n"].max())].reset_index(drop=True)
    figure, axis = plt.subplots(figsize=(7.5, 3.4))
    axis.vlines(rows.index + 0.18, rows["lowest seed"], rows["highest seed"], color="#c3ccd5", linewidth=5)
    for place, row in rows.iterrows():
        _points(axis, [place], rows.loc[[place]], row["arm"])
    axis.set_xticks(rows.index, rows["arm"])
    axis.set_ylabel(f"gain over base ({score})")
    _plain(axis, f"95 % over queries; grey: lowest to highest seed ({world})")
    return figure


def sweeps(gains: pd.DataFrame, score: str, world: str) -> Figure:
    """Gain against the number of answers, and against the number of rounds."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    most = gains["n"].max()
    for axis, column, part in zip(
        axes, ("n", "rounds"), (gains[gains["rounds"] == 1], gains[gains["n"] == most]), strict=True
    ):
        for number, (arm, rows) in enumerate(part.groupby("arm", sort=False)):
            if len(rows) > 1:
                rows = rows.sort_values(column)
                _points(axis, rows[column] + 0.06 * number, rows, arm, "-", arm)
        axis.set_xlabel({"n": "answers per query", "rounds": "rounds, same steps together"}[column])
        axis.set_xticks(sorted(set(part[column])))
        _plain(axis, world)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=9)
    axes[0].set_ylabel(f"gain over base ({score})")
    return figure


def compute(gains: pd.DataFrame, passes: Mapping[str, float], score: str, world: str) -> Figure:
    """Gain against all token passes spent on it."""
    figure, axis = plt.subplots(figsize=(7.5, 3.6))
    for arm, rows in gains.groupby("arm", sort=False):
        x = [passes[name] / 1000 for name in rows["name"]]
        _points(axis, x, rows, arm, label=arm)
        for place, (_, row) in zip(x, rows.iterrows() if arm != PEOPLE else (), strict=False):
            note = f"{row['n']}" + (f" × {row['rounds']} rounds" if row["rounds"] > 1 else "")
            axis.annotate(note, (place, row["value"]), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axis.set(xlabel="thousand token passes: sampling, scoring, training", ylabel=f"gain over base ({score})")
    _plain(axis, f"Gain against compute; the number is n ({world})")
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def best_of(table: pd.DataFrame, marks: Mapping[str, float], score: str, world: str) -> Figure:
    """Score of the picked answer against the number of answers picked from, one line per signal.

    `marks` are scores to compare with, such as those of greedy answers of trained policies, by their names.
    """
    figure, axis = plt.subplots(figsize=(7.5, 3.4))
    for number, (name, rows) in enumerate(table.groupby("signal", sort=False)):
        _points(axis, rows["k"] * (1 + 0.02 * number), rows, name, "-", name)
    for name, value in marks.items():
        axis.axhline(value, color=COLOURS.get(name, OTHER), linestyle=":", linewidth=1.4, label=f"{name}, greedy")
    axis.set(xscale="log", xlabel="answers to choose from, no training", ylabel=score)
    axis.set_xticks(sorted(set(table["k"])), sorted(set(table["k"])))
    axis.minorticks_off()
    _plain(axis, f"Best of k at inference; dotted: one greedy answer ({world})", zero=False)
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def states(table: pd.DataFrame, world: str) -> Figure:
    """Shares of queries per class, one bar with its interval for each measure."""
    kinds, measures = list(dict.fromkeys(table["class"])), list(dict.fromkeys(table["measure"]))
    figure, axis = plt.subplots(figsize=(8.5, 3.2))
    for number, measure in enumerate(measures):
        rows = table[table["measure"] == measure].set_index("class").loc[kinds]
        x = np.arange(len(kinds)) + (number - (len(measures) - 1) / 2) * 0.22
        error = [(rows["value"] - rows["low"]).clip(lower=0), (rows["high"] - rows["value"]).clip(lower=0)]
        axis.bar(x, rows["value"], 0.2, yerr=error, capsize=2, label=measure)
    axis.set_xticks(range(len(kinds)), [f"{kind}\nn = {n}" for kind, n in _sizes(table).items()])
    axis.set_ylabel("share of queries")
    _plain(axis, f"What all answers to a query have in common ({world})", zero=False)
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _sizes(table: pd.DataFrame) -> dict[str, int]:
    """Queries of each class, in the order of the table."""
    return dict(zip(table["class"], table["n"], strict=True))


def card(
    query: Query, texts: Sequence[str], signals: Mapping[str, Sequence[float]], order: str, why: Sequence[str],
    folder: str | Path,
) -> str:  # fmt: skip
    """A query with its different answers and every signal's score, best by the signal `order` first.

    `why` holds a critique of each answer, or nothing.
    """
    first = [k for k, text in enumerate(texts) if text not in texts[:k]]
    shown = []
    for k in sorted(first, key=lambda k: -signals[order][k] if order in signals else k):
        times = f" ×{texts.count(texts[k])}" if texts.count(texts[k]) > 1 else ""
        notes = [f"answer {k + 1}{times}", *(f"{name} {scores[k]:.2f}" for name, scores in signals.items())]
        shown.append((" · ".join(notes), texts[k], f"Critique: {why[k]}" if why and why[k] else ""))
    return views.answers_card(query, shown, folder)
