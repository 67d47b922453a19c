"""The figures of the evaluation chapter; each takes a table of `comparison` and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmrlhf_study.evaluation.paper import TEN_DIMENSIONS

CAPTIONS = {
    "overview": "Gain of every policy in every dimension; bold where the 95 % interval leaves out 0 (MiniWorld)",
    "dimensions": "How good the answers are in each of the ten dimensions, with 95 % intervals over scenes (MiniWorld)",
    "gains": "Gains and losses of every policy against the first one, bench by bench; filled where shown (MiniWorld)",
    "safety": "The safety bench row by row, with 95 % intervals; arrows say which way is safer (MiniWorld)",
    "cost": "Gain over all benches against tokens per answer, with 95 % intervals (MiniWorld)",
}
COLOURS = ("#5b6876", "#0b6e6e", "#c2571a", "#5a4fa2", "#b8860b", "#2f7fc1", "#8c3b5e", "#4d7c0f", "#e07bb0", "#1d2733")
MARKERS = "osD^vP*"  # seven, so that colours that come again have other marks
BETTER, WORSE, OPEN = "#0b6e6e", "#c2571a", "#9aa5b1"


def _points(axis: Axes, rows: pd.DataFrame, at: np.ndarray, names: tuple[str, str, str], **style: object) -> None:
    """Points with their intervals, lying; `names` are the columns of value, low and high."""
    value, low, high = (rows[name].to_numpy(float) for name in names)
    error = np.clip([value - low, high - value], 0, None)
    axis.errorbar(value, at, xerr=error, linestyle="", capsize=2, markersize=4, linewidth=1, **style)


def _mark(number: int) -> str:
    return MARKERS[number % len(MARKERS)]


def _plain(axis: Axes, title: str, labels: list[str]) -> None:
    """Title, names of the rows from top to bottom, no frame."""
    axis.set_yticks(np.arange(len(labels))[::-1], labels)
    axis.set_title(title, loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="x", alpha=0.3)


def _side_by_side(rows: pd.DataFrame, by: str, labels: list[str], title: str) -> Figure:
    """Value with interval of every policy in every row, policies apart within the row."""
    policies = list(dict.fromkeys(rows.policy))
    figure, axis = plt.subplots(figsize=(8, (0.16 * len(policies) + 0.3) * len(labels) + 1.2))
    at = np.arange(len(labels))[::-1]
    for number, name in enumerate(policies):
        mine = rows[rows.policy == name].set_index(by).loc[labels]
        shift = 0.8 * ((number + 0.5) / len(policies) - 0.5)
        colour = COLOURS[number % len(COLOURS)]
        _points(axis, mine, at - shift, ("value", "low", "high"), color=colour, marker=_mark(number), label=name)
    _plain(axis, title, labels)
    axis.set_xlim(-2, 102)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def dimensions(found: pd.DataFrame) -> Figure:
    """The ten dimensions and the mean of all benches, a dot with interval for every policy."""
    figure = _side_by_side(
        found, "dimension", [*TEN_DIMENSIONS, "all"], "How good the answers are, 0 to 100, MiniWorld"
    )
    axis = figure.axes[0]
    axis.set_yticks(
        axis.get_yticks(), [TEN_DIMENSIONS.get(name, "mean of all benches") for name in (*TEN_DIMENSIONS, "all")]
    )
    return figure


def overview(found: pd.DataFrame) -> Figure:
    """Every policy's gain in every dimension, from the most gained over all at the top to the least."""
    others = found[found.policy != found.policy.iloc[0]]
    others = others.assign(apart=(others.gain_low > 0) | (others.gain_high < 0))
    columns = [*TEN_DIMENSIONS, "all"]
    gain, apart = (
        others.pivot(index="policy", columns="dimension", values=name).reindex(columns=columns)
        for name in ("gain", "apart")
    )
    order = gain["all"].sort_values(ascending=False, kind="stable").index
    gain, apart = gain.loc[order], apart.loc[order]
    figure, axis = plt.subplots(figsize=(9.5, 0.3 * max(len(gain), 1) + 1.6))
    values = gain.to_numpy(float)
    most = max(np.abs(values).max(initial=0), 1)
    if len(gain):
        axis.imshow(values, cmap="BrBG", vmin=-most, vmax=most, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        weight = "bold" if apart.iloc[row, column] else "normal"
        colour = "white" if abs(value) > 0.6 * most else "black"
        axis.text(column, row, f"{value:+.1f}", ha="center", va="center", fontsize=8, weight=weight, color=colour)
    names = [TEN_DIMENSIONS.get(name, "mean of all benches") for name in gain]
    axis.set_xticks(range(len(names)), names, rotation=35, ha="left")
    axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    axis.set_yticks(range(len(gain)), order)
    axis.set_xlabel("gain in points, MiniWorld; bold: the 95 % interval leaves out 0")
    return figure


def safety(found: pd.DataFrame) -> Figure:
    """The rows of the safety bench and its controls."""
    rows = found[found.dimension.isin(("safety", "control"))]
    first = rows.drop_duplicates("bench")
    figure = _side_by_side(rows, "bench", list(first.bench), "Safety bench, %, MiniWorld")
    labels = [f"{name} {'→' if higher else '←'}" for name, higher in zip(first.bench, first.higher, strict=True)]
    figure.axes[0].set_yticks(figure.axes[0].get_yticks(), labels)
    return figure


def gains(found: pd.DataFrame) -> Figure:
    """One panel per policy: every bench's gain or loss in points; orange is worse, green better, filled is shown."""
    rows = found[found.verdict != ""]
    policies, labels = list(dict.fromkeys(rows.policy)), list(dict.fromkeys(rows.bench))
    across = min(max(len(policies), 1), 4)
    down = -(-max(len(policies), 1) // across)
    size = (2.2 + 2.1 * across, (0.24 * max(len(labels), 4) + 1) * down)
    figure, axes = plt.subplots(down, across, figsize=size, sharey=True, sharex=True, squeeze=False)
    for axis in axes.flat[len(policies) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, policies, strict=False):
        mine = rows[rows.policy == name].set_index("bench").loc[labels]
        at = np.arange(len(labels))[::-1]
        axis.axvline(0, color="#1d2733", linewidth=0.8)
        for colour, chosen in ((BETTER, mine.gain > 0), (WORSE, mine.gain < 0), (OPEN, mine.gain == 0)):
            for shown in (True, False):
                kept = (chosen & ((mine.verdict != "not shown") == shown)).to_numpy()
                style = {"color": colour, "markerfacecolor": colour if shown else "white"}
                _points(axis, mine[kept], at[kept], ("gain", "gain_low", "gain_high"), marker="o", **style)
        _plain(axis, name, labels)
        axis.tick_params(axis="y", labelsize=8)
        axis.tick_params(axis="x", labelbottom=True)  # also above an empty place
    axes[-1][0].set_xlabel("gain in points, MiniWorld")
    return figure


def cost(found: pd.DataFrame) -> Figure:
    """Gain over all benches against tokens per answer."""
    figure, axis = plt.subplots(figsize=(6.5, 3.6))
    axis.axhline(0, color="#1d2733", linewidth=0.8)
    for number, row in enumerate(found.itertuples()):
        x, y = ([[mid - low], [high - mid]] for mid, low, high in (
            (row.tokens, row.tokens_low, row.tokens_high), (row.gain, row.gain_low, row.gain_high)))  # fmt: skip
        colour = COLOURS[number % len(COLOURS)]
        style = {"fmt": _mark(number), "color": colour, "capsize": 2, "label": row.policy}
        axis.errorbar([row.tokens], [row.gain], yerr=y, xerr=x, **style)
    axis.set(xlabel="tokens per answer", ylabel="gain over all benches, points", title="MiniWorld")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
