"""Chapter 03's tables, figures, cards, metrics and sentences."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmrlhf_core.data.records import Pair
from mmrlhf_core.rollout.score import Scored
from mmrlhf_study.annotation import views
from mmrlhf_study.annotation.views import Records
from mmrlhf_study.chapters.figures import GREY, PALETTE, colours, finish, legend, points, side_by_side
from mmrlhf_study.chapters.intervals import Estimate
from mmrlhf_study.chapters.reporting import Headline, nested, shown
from mmrlhf_study.evaluation import compare, paper
from mmrlhf_study.evaluation.reward_bench import ALL_CATEGORIES
from mmrlhf_study.evaluation.reward_study import CHANCE

ACC = ("acc", "acc_low", "acc_high")
ACC_PLUS = ("acc_plus", "acc_plus_low", "acc_plus_high")
ACCURACY = ("accuracy", "low", "high")
PAPER_COLUMNS = {  # name of a variant here: its column in the paper's Table 4
    "no critique": "no critique",
    "raw reasons": "raw reasons",
    "expanded reasons": "MM-RLHF-Reward",
    "given critiques": "given critiques",
}
PREDICTED = (  # (better, worse) variants in the paper's Table 4
    ("expanded reasons", "no critique"),
    ("expanded reasons", "raw reasons"),
    ("raw reasons", "no critique"),
    ("given critiques", "expanded reasons"),
)
REWARD_CAPTIONS = {
    "accuracy": "Test ACC of every row by category, mean over seeds, 95 % intervals over queries (MiniWorld)",
    "curves": "Losses and training accuracy, one line per seed (MiniWorld)",
    "reliability": "Accuracy against the model's confidence, 95 % intervals over queries (MiniWorld)",
    "margins": "ACC by size of the margin, 95 % intervals over queries (MiniWorld)",
    "critiques": "Critiques compared with the scenes: faults and verdicts on claims, 95 % intervals (MiniWorld)",
    "length": "ACC by mean length of a pair's two critiques, 95 % intervals over queries (MiniWorld)",
    "compute": "ACC against operations per response (no attention, no vision), 95 % intervals over queries (MiniWorld)",
}


# ---------------------------------------------------------------- tables


def in_words(overview: pd.DataFrame) -> pd.DataFrame:
    """An overview as text: one row per variant, one column per category, `ACC [low, high] / ACC+`."""
    text = [f"{shown(r.acc, r.acc_low, r.acc_high)} / {r.acc_plus:.2f}" for r in overview.itertuples()]
    wide = overview.assign(text=text).pivot(index="arm", columns="category", values="text")
    return wide.loc[list(dict.fromkeys(overview.arm)), list(dict.fromkeys(overview.category))]


def beside_paper(overview: pd.DataFrame) -> pd.DataFrame:
    """ACC / ACC+ of the variants that are also in the paper, with its numbers."""
    columns, printed = {}, paper.table_4()
    for arm, column in PAPER_COLUMNS.items():
        if arm in set(overview.arm):
            for source, rows in (
                ("MiniWorld", overview[overview.arm == arm]),
                ("paper", printed[printed.model == column]),
            ):
                text = [f"{acc:.2f} / {plus:.2f}" for acc, plus in zip(rows.acc, rows.acc_plus, strict=True)]
                columns[arm, source] = pd.Series(text, index=list(rows.category))
    return pd.DataFrame(columns).reindex(list(printed.category.unique())).fillna("–")


def paper_quote(arm: str) -> str:
    """The paper's overall numbers of a variant, for the front page."""
    printed = paper.table_4()
    row = printed[(printed.model == PAPER_COLUMNS[arm]) & (printed.category == ALL_CATEGORIES)].iloc[0]
    return f"ACC {row.acc:.2f}, ACC+ {row.acc_plus:.2f} (Tab. 4)"


def predictions(compared: pd.DataFrame) -> pd.DataFrame:
    """Each prediction from the paper with the difference here: confirmed, refuted, or not distinguished.

    Confirmed: same sign and Holm's p below 0.05. Refuted: opposite sign and Holm's p below 0.05.
    """
    overall = paper.table_4().query("category == @ALL_CATEGORIES").set_index("model").acc
    rows = []
    for better, worse in PREDICTED:
        for row in compared[compared.arm.isin((better, worse)) & compared.against.isin((better, worse))].itertuples():
            sign, wanted = (1, compare.BETTER) if row.arm == better else (-1, compare.WORSE)
            outcome = {wanted: "confirmed", compare.OPEN: compare.OPEN}.get(row.verdict, "refuted")
            gap = overall[PAPER_COLUMNS[better]] - overall[PAPER_COLUMNS[worse]]
            rows.append((f"{better} better than {worse}", gap, sign * row.value, row.p_holm, outcome))
    return pd.DataFrame(rows, columns=["prediction", "difference in the paper", "difference here", "p_holm", "outcome"])


# ---------------------------------------------------------------- figures


def _chance(axis: Axes) -> None:
    """A line at ½, chance."""
    axis.axhline(0.5, color=GREY, linestyle="--", linewidth=1)


def accuracy_figure(overview: pd.DataFrame) -> Figure:
    """ACC of every variant in every category; the line marks chance."""
    figure, axis = plt.subplots(figsize=(9, 3.8))
    side_by_side(axis, overview[overview.arm != CHANCE], "arm", "category", ACC)
    _chance(axis)
    finish(axis, "Test pairs in the right order, MiniWorld", ylabel="ACC")
    return figure


def curves_figure(rows: pd.DataFrame) -> Figure:
    """Critique loss, score loss and accuracy during training; one line per variant and seed."""
    panels = {
        "critique": "critique loss per token",
        "score": "score loss (nats)",
        "accuracy": "pairs in the right order",
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 3), layout="constrained")
    for axis, (column, label) in zip(axes, panels.items(), strict=True):
        for arm, colour in colours(rows.arm).items():
            for number, (_, run) in enumerate(rows[rows.arm == arm].groupby("seed")):
                if run[column].any():
                    axis.plot(run.step, run[column], color=colour, alpha=0.8, label="" if number else arm)
        finish(axis, label, xlabel="step")
    _chance(axes[-1])
    axes[-1].legend(fontsize=8, frameon=False)
    return figure


def reliability_figure(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy against confidence; the two are equal on the diagonal."""
    figure, axis = plt.subplots(figsize=(5.5, 4))
    axis.plot([0.5, 1], [0.5, 1], color=GREY, linestyle="--", linewidth=1)
    for name, colour in colours(tables).items():
        points(axis, tables[name].confidence, tables[name], ACCURACY, color=colour, label=name, fmt="o-")
    axis.legend(fontsize=8, frameon=False)
    finish(axis, "Reliability, MiniWorld", xlabel="confidence σ(|margin|)", ylabel="pairs in the right order")
    return figure


def quantiles_figure(rows: pd.DataFrame, title: str, label: str) -> Figure:
    """Accuracy in equal groups, sorted by a value; each tick is a group's range."""
    figure, axis = plt.subplots(figsize=(7, 3.2))
    points(axis, range(len(rows)), rows, ACCURACY, color=PALETTE[0])
    _chance(axis)
    names = [f"{round(low, 3):.3g}–{round(high, 3):.3g}" for low, high in zip(rows["from"], rows["to"], strict=True)]
    axis.set_xticks(range(len(rows)), names, fontsize=8, rotation=30)
    finish(axis, title, xlabel=label, ylabel="pairs in the right order")
    return figure


def critiques_figure(quality: pd.DataFrame) -> Figure:
    """Every measure of critique quality, one point per model or kind of annotator."""
    figure, axis = plt.subplots(figsize=(9, 3.4))
    side_by_side(axis, quality.assign(measure=[fill(name, 18) for name in quality.measure]), "writer", "measure")
    finish(axis, "Critiques compared with the scenes, MiniWorld", ylabel="share")
    return figure


def costs_figure(costs: pd.DataFrame) -> Figure:
    """ACC against operations per response."""
    figure, axis = plt.subplots(figsize=(6.5, 3.6))
    for name, colour in colours(costs.way).items():
        row = costs[costs.way == name]
        points(axis, row.GFLOP, row, ACC, color=colour, label=name)
    _chance(axis)
    legend(axis)
    finish(
        axis,
        "The cost of a score, MiniWorld",
        xlabel="10⁹ operations per response (no attention, no vision)",
        ylabel="ACC",
    )
    return figure


def cards(pairs: Iterable[Pair], scored: Iterable[Scored], known: Records, folder: str | Path) -> str:
    """Pairs with pictures and scores; the model's critiques replace the annotators' reasons."""
    by_name = {(record.query, record.response): record for record in scored}
    html = []
    for pair in pairs:
        sides = [by_name[pair.query, name] for name in (pair.chosen, pair.rejected)]
        reasons = [f"critique: {side.critiques[0] or '(none)'} → score {side.score:+.2f}" for side in sides]
        html.append(views.pair_card(replace(pair, chosen_reason=reasons[0], rejected_reason=reasons[1]), known, folder))
    return views.page(html)


# ---------------------------------------------------------------- metrics and sentences


def headlines(overview: pd.DataFrame, error: Estimate) -> list[Headline]:
    """ACC and ACC+ of the variants that are also in the paper, and the calibration error of the full model."""
    numbers = []
    for row in overview[(overview.category == ALL_CATEGORIES) & overview.arm.isin(PAPER_COLUMNS)].to_dict("records"):
        for name, columns in (("ACC", ACC), ("ACC+", ACC_PLUS)):
            ends = (row[column] for column in columns)
            numbers.append((f"reward model, {row['arm']}: {name}", *ends, paper_quote(row["arm"])))
    numbers.append(("reward model: expected calibration error", *map(float, error), ""))
    return [Headline(label, v, min(low, v), max(high, v), "MiniWorld", paper) for label, v, low, high, paper in numbers]


def metrics(
    overview: pd.DataFrame, compared: pd.DataFrame, controls: pd.DataFrame, other_pictures: pd.DataFrame,
    quality: pd.DataFrame, costs: pd.DataFrame, pairs: pd.Series,
) -> dict[str, Any]:  # fmt: skip
    """All tables as nested plain numbers, without clock times and verdicts."""
    return {
        "arms": nested(overview[overview.category == ALL_CATEGORIES], "arm"),
        "comparisons": nested(compared.drop(columns="verdict"), "arm", "against"),
        "controls": nested(controls, "arm"),
        "other_pictures": nested(other_pictures.drop(columns="verdict"), "arm"),
        "critiques": nested(quality, "writer", "measure"),
        "costs": nested(costs.drop(columns="ms"), "way"),
        "pairs": {str(name): int(number) for name, number in pairs.items()},
    }


_HALF = {compare.BETTER: "interval above ½", compare.WORSE: "interval below ½", compare.OPEN: "interval includes ½"}
_SHIFT = {compare.BETTER: "it falls", compare.WORSE: "it rises", compare.OPEN: "no change is shown"}


def _of_arm(row: Any) -> str:
    """ACC of one variant, where its interval lies, ACC+, and the share of ties, which count as wrong."""
    half = _HALF[compare.side(row.acc_low, row.acc_high, 0.5)]
    ties = f" Ties, counted as wrong: {row.ties / row.pairs:.0%}." if row.ties else ""
    return f"{row.arm}: ACC {shown(row.acc, row.acc_low, row.acc_high)} ({half}); ACC+ {row.acc_plus:.2f}.{ties}"


def _of_difference(row: Any) -> str:
    numbers = shown(row.value, row.low, row.high, sign="+")
    return f"{row.arm} minus {row.against}: {numbers}, {row.verdict} after Holm's correction."


def _of_pictures(row: Any) -> str:
    """How ACC changes from a query's own pictures to another query's: the negative of the row's difference."""
    change = shown(-row.value, -row.high, -row.low, sign="+")
    variant = row.arm.removesuffix(", own pictures")
    return f"{variant}: with another query's pictures, ACC changes by {change}; {_SHIFT[row.verdict]} (Holm)."


def _of_costs(costs: pd.DataFrame) -> str:
    """Cost and ACC of the most expensive way to score against the cheapest."""
    rows = costs.sort_values("GFLOP")
    first, last = rows.iloc[0], rows.iloc[-1]
    return (
        f"{last['way']} takes {last['GFLOP'] / first['GFLOP']:.1f} times the operations of {first['way']}, without "
        f"attention and vision tower. ACC: {last['acc']:.2f} against {first['acc']:.2f}."
    )


def sentences(
    overview: pd.DataFrame, compared: pd.DataFrame, error: Estimate, controls: pd.DataFrame,
    other_pictures: pd.DataFrame, quality: pd.DataFrame, costs: pd.DataFrame,
) -> list[str]:  # fmt: skip
    """One sentence per result, each with its numbers."""
    lines = [
        _of_arm(row) for row in overview[(overview.category == ALL_CATEGORIES) & (overview.seeds > 0)].itertuples()
    ]
    variants = compared[compared.arm.isin(PAPER_COLUMNS) & compared.against.isin(PAPER_COLUMNS)]
    lines += [_of_difference(row) for row in variants.itertuples()]
    lines.append(f"Expected calibration error of the full model (noise adds to it): {shown(*map(float, error))}.")
    for measure, rows in quality.groupby("measure", sort=False):
        writers = (f"{row.writer} {shown(row.value, row.low, row.high)}" for row in rows.itertuples())
        lines.append(f"{measure}: {'; '.join(writers)}.")
    lines += [f"Control: {_of_arm(row)}" for row in controls.itertuples()]
    lines += [f"Control: {_of_pictures(row)}" for row in other_pictures.itertuples()]
    return [*lines, _of_costs(costs)]
