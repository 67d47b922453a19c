"""The figures and cards of the reward-model chapter; each takes a table of this floor."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmrlhf_core.data.records import Pair
from mmrlhf_core.rollout.score import Scored
from mmrlhf_study.annotation import views
from mmrlhf_study.annotation.views import Records

CAPTIONS = {
    "accuracy": "ACC of every arm per class on test pairs, mean over seeds, 95 % intervals over queries (MiniWorld)",
    "curves": "Losses and share of pairs in order over the training batches, a line per seed (MiniWorld)",
    "reliability": "Share of pairs in order against the confidence of the reward model, 95 % intervals (MiniWorld)",
    "margins": "Share of pairs in order by tenths of the margin, 95 % intervals over queries (MiniWorld)",
    "critiques": "Faults named and claims judged by critiques, held against the scenes, 95 % intervals (MiniWorld)",
    "length": "Share of pairs in order by the mean length of their two critiques, 95 % intervals (MiniWorld)",
    "compute": "ACC against the operations that scoring a response takes, 95 % intervals over queries (MiniWorld)",
}
PALETTE = "colorblind"


def _finish(axis: Axes, title: str, **labels: str) -> None:
    """Title, labels and no frame."""
    axis.set_title(title, loc="left", fontsize=11)
    axis.set(**labels)
    axis.spines[["top", "right"]].set_visible(False)


def _points(axis: Axes, x: Sequence[float], rows: pd.DataFrame, column: str, colour: object, label: str = "") -> None:
    """Values with their intervals."""
    ends = [f"{column}_low", f"{column}_high"] if f"{column}_low" in rows else ["low", "high"]
    value = rows[column].to_numpy(float)
    error = np.abs(rows[ends].to_numpy(float).T - value).clip(min=0)
    axis.errorbar(x, value, yerr=error, fmt="o", color=colour, markersize=4, capsize=2, label=label or None)


def accuracy(made: pd.DataFrame) -> Figure:
    """ACC of every arm in every category; the line is a fair coin."""
    arms = [arm for arm in dict.fromkeys(made.arm) if arm != "chance"]
    categories = list(dict.fromkeys(made.category))
    figure, axis = plt.subplots(figsize=(9, 3.8))
    for number, (arm, colour) in enumerate(zip(arms, sns.color_palette(PALETTE, len(arms)), strict=True)):
        mine = made[made.arm == arm].set_index("category").loc[categories]
        shift = (number - (len(arms) - 1) / 2) * 0.8 / len(arms)
        _points(axis, np.arange(len(categories)) + shift, mine, "acc", colour, arm)
    axis.axhline(0.5, color="#9aa5b1", linestyle="--", linewidth=1)
    axis.set_xticks(range(len(categories)), categories)
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    _finish(axis, "Test pairs in order, MiniWorld", ylabel="ACC")
    return figure


def curves(rows: pd.DataFrame) -> Figure:
    """Critique loss, score loss and accuracy over training, a line per arm and seed."""
    shown = {"critique": "critique loss per token", "score": "score loss (nats)", "accuracy": "pairs in order"}
    figure, axes = plt.subplots(1, len(shown), figsize=(11, 3), layout="constrained")
    arms = list(dict.fromkeys(rows.arm))
    for axis, (column, label) in zip(axes, shown.items(), strict=True):
        for arm, colour in zip(arms, sns.color_palette(PALETTE, len(arms)), strict=True):
            for number, (_, mine) in enumerate(rows[rows.arm == arm].groupby("seed")):
                if mine[column].any():
                    axis.plot(mine.step, mine[column], color=colour, alpha=0.8, label="" if number else arm)
        _finish(axis, label, xlabel="step")
    axes[-1].axhline(0.5, color="#9aa5b1", linestyle="--", linewidth=1)
    axes[-1].legend(fontsize=8, frameon=False)
    return figure


def reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Share right against confidence; on the diagonal the two agree."""
    figure, axis = plt.subplots(figsize=(5.5, 4))
    axis.plot([0.5, 1], [0.5, 1], color="#9aa5b1", linestyle="--", linewidth=1)
    for (name, rows), colour in zip(tables.items(), sns.color_palette(PALETTE, len(tables)), strict=True):
        _points(axis, rows.confidence, rows, "accuracy", colour, name)
        axis.plot(rows.confidence, rows.accuracy, color=colour, linewidth=1)
    axis.legend(fontsize=8, frameon=False)
    _finish(axis, "Reliability, MiniWorld", xlabel="confidence σ(|margin|)", ylabel="pairs in order")
    return figure


def quantiles(rows: pd.DataFrame, title: str, label: str) -> Figure:
    """Share right per group of a value; ticks are the group's ends."""
    figure, axis = plt.subplots(figsize=(7, 3.2))
    _points(axis, range(len(rows)), rows, "accuracy", sns.color_palette(PALETTE)[0])
    axis.axhline(0.5, color="#9aa5b1", linestyle="--", linewidth=1)
    names = [f"{round(low, 3):.3g}–{round(high, 3):.3g}" for low, high in zip(rows["from"], rows["to"], strict=True)]
    axis.set_xticks(range(len(rows)), names, fontsize=8, rotation=30)
    _finish(axis, title, xlabel=label, ylabel="pairs in order")
    return figure


def critiques(rows: pd.DataFrame) -> Figure:
    """Every measure of critique quality, a point per writer."""
    writers, measures = list(dict.fromkeys(rows.writer)), list(dict.fromkeys(rows.measure))
    figure, axis = plt.subplots(figsize=(9, 3.4))
    for number, (writer, colour) in enumerate(zip(writers, sns.color_palette(PALETTE, len(writers)), strict=True)):
        mine = rows[rows.writer == writer].set_index("measure").reindex(measures)
        shift = (number - (len(writers) - 1) / 2) * 0.7 / len(writers)
        _points(axis, np.arange(len(measures)) + shift, mine, "value", colour, writer)
    axis.set_xticks(range(len(measures)), [fill(name, 18) for name in measures], fontsize=9)
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    _finish(axis, "Critiques against the scenes, MiniWorld", ylabel="share")
    return figure


def compute(rows: pd.DataFrame) -> Figure:
    """ACC against operations per response; columns way, GFLOP, acc and its ends."""
    figure, axis = plt.subplots(figsize=(6.5, 3.6))
    for (_, row), colour in zip(rows.iterrows(), sns.color_palette(PALETTE, len(rows)), strict=True):
        _points(axis, [row["GFLOP"]], row.to_frame().T, "acc", colour, row["way"])
    axis.axhline(0.5, color="#9aa5b1", linestyle="--", linewidth=1)
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    _finish(axis, "What a score costs, MiniWorld", xlabel="10⁹ operations per response", ylabel="ACC")
    return figure


def cards(pairs: Iterable[Pair], scored: Iterable[Scored], known: Records, folder: str | Path) -> str:
    """Pairs with pictures, scores, and the critiques these were read after in the place of the annotators' reasons."""
    by_name = {(one.query, one.response): one for one in scored}
    found = []
    for pair in pairs:
        sides = [by_name[pair.query, name] for name in (pair.chosen, pair.rejected)]
        said = [f"score {one.score:+.2f}, after: {one.critiques[0] or '(no critique)'}" for one in sides]
        shown = replace(pair, chosen_reason=said[0], rejected_reason=said[1])
        found.append(views.pair_card(shown, known, folder))
    return views.page(found)
