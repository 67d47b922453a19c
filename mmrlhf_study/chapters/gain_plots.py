"""The figures of the preference chapters; each takes a table and returns a matplotlib figure."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmrlhf_core.objectives import preference
from mmrlhf_study.evaluation.gains import AVERAGE, label
from mmrlhf_study.evaluation.paper import FIGURE_12A

COLOURS = (
    "#9aa5b1", "#0b6e6e", "#c2571a", "#5a4fa2", "#a8324a", "#4878a8", "#7a8b1f", "#b0761f", "#2f4858", "#d08fb0",
    "#6fb1a0", "#3c2a1e",
)  # fmt: skip
PANELS = {  # of the learning curves: column and title
    "loss": "preference loss",
    "sft loss": "SFT loss (nats per token)",
    "chosen": "log π/π_ref of chosen (nats)",
    "rejected": "log π/π_ref of rejected (nats)",
    "margin": "implicit reward margin",
    "beta": "β used (median)",
    "kl": "KL of own answers (nats)",
    "length": "length of own answers (tokens)",
}


def captions(world: str) -> dict[str, str]:
    """What the figures of chapter 04 show, by name."""
    told = {
        "arms": "Mean score of every arm on the test questions, 95 % intervals, strokes for seeds; beside it the paper",
        "families": "The same for each family of questions",
        "margins": "Reward margins of the training pairs by class",
        "scaling": "Fig. 5 of the paper drawn from the library: 1 - exp(-k delta)",
        "weights": "MM-DPO over the weight of the SFT loss, validation and test, 95 % intervals over questions",
        "curves": "Learning curves, means over seeds; KL and length of the policy's own answers from the first seed",
        "falling": "Log-ratios of chosen and rejected answers while training; gradients of single pairs at its start",
        "habits": "Reward of every arm against what it may be bought with",
    }
    return {name: f"{text} ({world})" for name, text in told.items()}


def _plain(axis: Axes, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)


def scaling_figure(ks: Sequence[float], to: float = 10) -> Figure:
    """Fig. 5: 1 − e^(−kδ) over δ, read off the library's β(δ) at β_ori = w = 1."""
    figure, axis = plt.subplots(figsize=(5.5, 3.2))
    delta = torch.linspace(0, to, 201, dtype=torch.double)
    for colour, k in zip(COLOURS[1:], ks, strict=False):
        axis.plot(delta, preference.dynamic_beta(delta, 1.0, 1.0, k) - 1, color=colour, label=f"k = {k:g}")
    _plain(axis, "1 − e^(−kδ), from the library")
    axis.set_xlabel("reward margin δ")
    axis.legend(frameon=False, fontsize=9)
    return figure


def margins_figure(deltas: Mapping[str, Sequence[float]], world: str) -> Figure:
    """Histograms of δ by class; what lies left of 0 is ordered the other way round by the reward model."""
    figure, axes = plt.subplots(1, len(deltas), figsize=(2.1 * len(deltas) + 1, 2.6), sharex=True, layout="constrained")
    every = np.concatenate([np.asarray(values, float) for values in deltas.values()])
    bins = np.linspace(every.min(), every.max() + 1e-9, 25)
    for axis, (name, values) in zip(np.atleast_1d(axes), deltas.items(), strict=True):
        axis.hist(values, bins, color=COLOURS[1])
        axis.axvline(0, color=COLOURS[2], linewidth=1)
        _plain(axis, f"{name} ({len(values)})")
    figure.supxlabel(f"reward margin δ of the training pairs ({world})", fontsize=9)
    return figure


def _dots(axis: Axes, rows: pd.DataFrame, single: pd.DataFrame | None) -> None:
    """One dot with interval per arm, and a small mark for each of its seeds."""
    at = np.arange(len(rows))[::-1]
    error = np.abs(rows[["low", "high"]].to_numpy(float).T - rows["value"].to_numpy(float))
    axis.errorbar(rows["value"], at, xerr=error, fmt="o", color=COLOURS[1], capsize=3, markersize=5)
    if single is not None:
        place = dict(zip(rows["arm"], at, strict=True))
        axis.plot(single["value"], [place[arm] - 0.28 for arm in single["arm"]], "|", color=COLOURS[2], markersize=7)
    axis.set_yticks(at, [label(arm) for arm in rows["arm"]], fontsize=9)


def arms_figure(found: pd.DataFrame, single: pd.DataFrame, world: str, unit: str) -> Figure:
    """Fig. 12a in miniature: the average of every arm with interval and seeds, and the paper's four bars beside it."""
    mine = found[found["family"] == AVERAGE]
    size = (10.5, 0.36 * len(mine) + 1.6)
    figure, axes = plt.subplots(1, 2, figsize=size, width_ratios=(2, 1), layout="constrained")
    _dots(axes[0], mine, single)
    _plain(axes[0], f"{world}: bars 95 % over questions, strokes seeds")
    axes[0].set_xlabel(f"mean {unit}", fontsize=9)
    axes[1].barh([label(arm) for arm in FIGURE_12A][::-1], list(FIGURE_12A.values())[::-1], color=COLOURS[0])
    axes[1].set_xlim(70, 78)
    _plain(axes[1], "paper, Fig. 12a")
    axes[1].set_xlabel("average of four benchmarks", fontsize=9)
    return figure


def families_figure(found: pd.DataFrame, world: str, unit: str) -> Figure:
    """The same for every family on its own."""
    names = [name for name in dict.fromkeys(found["family"]) if name != AVERAGE]
    arms = found["arm"].nunique()
    figure, axes = plt.subplots(
        1, len(names), figsize=(3 * len(names) + 1.5, 0.32 * arms + 1.5), sharey=True, layout="constrained"
    )
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        _dots(axis, found[found["family"] == name], None)
        _plain(axis, name)
    figure.supxlabel(f"mean {unit} ({world})", fontsize=9)
    return figure


def curves_figure(rows: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Learning curves of some arms, means over seeds; a panel for every column of `PANELS`."""
    figure, axes = plt.subplots(2, 4, figsize=(13, 5.4), layout="constrained")
    for axis, (column, title) in zip(axes.flat, PANELS.items(), strict=True):
        _plain(axis, title)
        if column not in rows:  # nobody watches runs in processes of their own
            axis.text(0.5, 0.5, "not watched", ha="center", transform=axis.transAxes, color=COLOURS[0])
            continue
        for colour, arm in zip(COLOURS[1:], arms, strict=False):
            mine = rows[rows["arm"] == arm].groupby("step")[column].mean().dropna()
            axis.plot(mine.index, mine, color=colour, label=label(arm), marker="." if len(mine) < 8 else None)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=4, loc="outside lower center", frameon=False, fontsize=9)
    return figure


def falling_figure(rows: pd.DataFrame, arms: Sequence[str], pairs: pd.DataFrame, world: str) -> Figure:
    """What chosen and rejected do during training, and which pairs push their chosen response down at the start."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for colour, arm in zip(COLOURS[1:], arms, strict=False):
        for column, style in (("chosen", "-"), ("rejected", "--")):
            mine = rows[rows["arm"] == arm].groupby("step")[column].mean().dropna()
            axes[0].plot(mine.index, mine, style, color=colour, label=f"{label(arm)}: {column}")
    axes[0].axhline(0, color=COLOURS[0], linewidth=1)
    axes[0].legend(frameon=False, fontsize=8)
    axes[0].set_xlabel("step")
    _plain(axes[0], f"log π/π_ref on training pairs, nats ({world})")
    falls = pairs["g_w·g_l"] > pairs["g_w·g_w"]
    for mark, colour, name in ((falls, COLOURS[2], "chosen falls"), (~falls, COLOURS[1], "chosen rises")):
        axes[1].scatter(pairs["g_w·g_w"][mark], pairs["g_w·g_l"][mark], s=18, color=colour, label=name)
    top = float(pairs["g_w·g_w"].max())
    axes[1].plot([0, top], [0, top], color=COLOURS[0], linewidth=1)
    axes[1].set(xlabel="g_w·g_w", ylabel="g_w·g_l")
    axes[1].legend(frameon=False, fontsize=8)
    _plain(axes[1], "a step on one pair alone, at the start")
    return figure


def weights_figure(found: Mapping[str, pd.DataFrame], world: str, unit: str) -> Figure:
    """The mean score over the SFT weight, on dev and on test; columns weight, value, low, high."""
    figure, axis = plt.subplots(figsize=(5.5, 3))
    for number, (part, rows) in enumerate(found.items()):
        error = np.abs(rows[["low", "high"]].to_numpy(float).T - rows["value"].to_numpy(float))
        at = np.arange(len(rows)) + 0.1 * number - 0.05
        axis.errorbar(at, rows["value"], error, fmt="o-", capsize=3, color=COLOURS[1 + number], label=part)
        axis.set_xticks(range(len(rows)), [f"{weight:g}" for weight in rows["weight"]])
    axis.set_xlabel("SFT weight")
    axis.legend(frameon=False)
    _plain(axis, f"MM-DPO's mean {unit} ({world})")
    return figure


def habits_figure(rows: pd.DataFrame, arms: Sequence[str], world: str) -> Figure:
    """Reward against what it may be bought with: one dot per arm, for every measure but the reward."""
    wide = rows.pivot(index="arm", columns="measure", values="value")
    names = [name for name in dict.fromkeys(rows["measure"]) if name != "reward"]
    figure, axes = plt.subplots(2, -(-len(names) // 2), figsize=(12, 6), layout="constrained", squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        for colour, arm in zip(COLOURS, arms, strict=False):
            axis.scatter(wide.loc[arm, name], wide.loc[arm, "reward"], s=34, color=colour, label=label(arm), alpha=0.8)
        _plain(axis, name)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=4, loc="outside lower center", frameon=False, fontsize=9)
    figure.supylabel(f"reward model's score ({world}, first seed)", fontsize=9)
    return figure


def grid_figure(ours: pd.DataFrame, paper: pd.DataFrame, world: str, unit: str) -> Figure:
    """Fig. 12b in miniature beside the paper's; `ours` has columns w, k, value, low, high, `paper` is k × w."""
    wide = ours.pivot(index="k", columns="w", values="value")
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.9 * len(wide) + 1.6), layout="constrained")
    said = {(row.k, row.w): f"{row.value:.2f}\n[{row.low:.2f}, {row.high:.2f}]" for row in ours.itertuples()}
    both = ((axes[0], wide, said, f"{world}: mean {unit}"), (axes[1], paper, {}, "paper, Fig. 12b (our reading of k)"))
    for axis, values, words, title in both:
        axis.imshow(values, cmap="BrBG", aspect="auto", alpha=0.75)
        for i, k in enumerate(values.index):
            for j, w in enumerate(values.columns):
                axis.text(j, i, words.get((k, w), f"{values.loc[k, w]:.1f}"), ha="center", va="center", fontsize=8)
        axis.set_xticks(range(values.shape[1]), [f"w = {w:g}" for w in values.columns])
        axis.set_yticks(range(values.shape[0]), [f"k = {k:g}" for k in values.index])
        axis.set_title(title, loc="left", fontsize=10)
    return figure


def mean_beta_figure(rows: pd.DataFrame, world: str, unit: str) -> Figure:
    """Every cell's score over the mean β its pairs were trained with."""
    figure, axis = plt.subplots(figsize=(6, 3.2))
    error = np.abs(rows[["low", "high"]].to_numpy(float).T - rows["value"].to_numpy(float))
    axis.errorbar(rows["beta"], rows["value"], error, fmt="o", capsize=3, color=COLOURS[1])
    for row in rows.itertuples():
        axis.annotate(f"w {row.w:g}, k {row.k:g}", (row.beta, row.value), fontsize=7)
    axis.set_xlabel("mean β over the training pairs")
    _plain(axis, f"{world}: mean {unit}")
    return figure
