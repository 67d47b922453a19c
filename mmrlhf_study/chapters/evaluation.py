"""What chapter 09 shows: figures, cards of answers that changed, sentences, headline numbers and metrics.

`table` and `dims` are the tables of `evaluation.bench_tables`: one row per bench, or dimension, and policy.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmrlhf_core.models.prompts import spread
from mmrlhf_study.chapters import figures, reporting
from mmrlhf_study.chapters.reporting import ENDS, Headline
from mmrlhf_study.evaluation import bench_tables, compare, paper, paper_claims
from mmrlhf_study.evaluation.bench_tables import GAIN
from mmrlhf_study.evaluation.metrics import Pope
from mmrlhf_study.evaluation.paper import TEN_DIMENSIONS
from mmrlhf_study.evaluation.policy_answers import PolicyAnswers
from mmrlhf_study.miniworld.benches import WON, Bench, BenchItem
from mmrlhf_study.miniworld.render import render

WORLD_NAME = "MiniWorld"
POLICY_COLUMNS = (*TEN_DIMENSIONS, "all")
EVALUATION_CAPTIONS = {
    "overview": "Gain of every policy by dimension; bold: the 95 % interval excludes 0 (MiniWorld)",
    "dimensions": "Answer quality by dimension, 0 to 100, with 95 % intervals over scenes (MiniWorld)",
    "gains": "Gain of every policy over the base, by bench; filled points: better or worse (MiniWorld)",
    "safety": "The safety bench row by row, with 95 % intervals; arrows show which way is safer (MiniWorld)",
    "cost": "Mean gain (without the win rate) by tokens per answer, with 95 % intervals (MiniWorld)",
}

# ---------------------------------------------------------------- figures


def _look(number: int) -> dict[str, str]:
    """Colour and mark of the policy with this number."""
    return {"color": figures.PALETTE[number % len(figures.PALETTE)], "fmt": figures.MARKERS[number % 7]}


def _dimension(name: str) -> str:
    return TEN_DIMENSIONS.get(name, "mean without the win rate")


def _side_by_side(rows: pd.DataFrame, by: str, title: str, text: Callable[[str], str]) -> Figure:
    """Values with intervals, policies offset within each row; `text` gives the label of a row."""
    labels, policies = list(dict.fromkeys(rows[by])), list(dict.fromkeys(rows.policy))
    figure, axis = plt.subplots(figsize=(8, (0.16 * len(policies) + 0.3) * len(labels) + 1.2))
    at = np.arange(len(labels))[::-1]
    for number, name in enumerate(policies):
        shift = 0.8 * ((number + 0.5) / len(policies) - 0.5)
        own = rows[rows.policy == name].set_index(by).loc[labels]
        figures.points(axis, at - shift, own, lying=True, label=name, **_look(number))
    axis.set_yticks(at, list(map(text, labels)))
    figures.finish(axis, title, "x", xlim=(-2, 102))
    figures.legend(axis)
    return figure


def dimensions_figure(dims: pd.DataFrame) -> Figure:
    """The ten dimensions and the mean without the win rate, a point with interval for every policy."""
    return _side_by_side(dims, "dimension", "Answer quality, 0 to 100, MiniWorld", _dimension)


def safety_figure(table: pd.DataFrame) -> Figure:
    """The safety bench and its controls; arrows point to safer values."""
    rows = table[table.dimension.isin(("safety", "control"))]
    arrow = {row.bench: "→" if row.higher else "←" for row in rows.itertuples()}
    return _side_by_side(rows, "bench", "Safety bench, %, MiniWorld", lambda name: f"{name} {arrow[name]}")


def overview_figure(dims: pd.DataFrame) -> Figure:
    """Gain per policy and dimension, sorted by overall gain."""
    others = dims[dims.policy != dims.policy.iloc[0]]
    others = others.assign(apart=(others.gain_low > 0) | (others.gain_high < 0))
    gain, apart = (
        others.pivot(index="policy", columns="dimension", values=name).reindex(columns=list(POLICY_COLUMNS))
        for name in ("gain", "apart")
    )
    order = gain["all"].sort_values(ascending=False, kind="stable").index
    values, apart = gain.loc[order].to_numpy(float), apart.loc[order]
    figure, axis = plt.subplots(figsize=(9.5, 0.3 * max(len(order), 1) + 1.6))
    most = max(np.abs(values).max(initial=0), 1)
    if len(order):
        axis.imshow(values, cmap="BrBG", vmin=-most, vmax=most, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        weight = "bold" if apart.iloc[row, column] else "normal"
        colour = "white" if abs(value) > 0.6 * most else "black"
        axis.text(column, row, f"{value:+.1f}", ha="center", va="center", fontsize=8, weight=weight, color=colour)
    axis.set_xticks(range(len(POLICY_COLUMNS)), map(_dimension, POLICY_COLUMNS), rotation=35, ha="left")
    axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    axis.set_yticks(range(len(order)), order)
    axis.set_xlabel("gain in points, MiniWorld; bold: the 95 % interval excludes 0")
    return figure


def gains_figure(table: pd.DataFrame) -> Figure:
    """One panel per policy: gain per bench in points; a filled point is better or worse."""
    rows = table[table.verdict != ""]
    policies, labels = list(dict.fromkeys(rows.policy)), list(dict.fromkeys(rows.bench))
    across = min(max(len(policies), 1), 4)
    down = -(-max(len(policies), 1) // across)
    size = (2.2 + 2.1 * across, (0.24 * max(len(labels), 4) + 1) * down)
    figure, axes = plt.subplots(down, across, figsize=size, sharey=True, sharex=True, squeeze=False)
    for axis in axes.flat[len(policies) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, policies, strict=False):
        _gains_panel(axis, rows[rows.policy == name].set_index("bench").loc[labels])
        figures.finish(axis, name, "x")
        axis.tick_params(axis="y", labelsize=8)
        axis.tick_params(axis="x", labelbottom=True)  # label the axis above empty panels too
    axes[-1][0].set_xlabel("gain in points, MiniWorld")
    return figure


def _gains_panel(axis: Axes, own: pd.DataFrame) -> None:
    """The gains of one policy, from top to bottom."""
    at = np.arange(len(own))[::-1]
    axis.axvline(0, color=figures.INK, linewidth=0.8)
    colours = np.select([own.gain > 0, own.gain < 0], [figures.BETTER_COLOUR, figures.WORSE_COLOUR], figures.GREY)
    for place, colour, verdict in zip(range(len(own)), colours, own.verdict, strict=True):
        fill = "white" if verdict == compare.OPEN else colour
        row = own.iloc[place : place + 1]
        figures.points(axis, at[place : place + 1], row, GAIN, lying=True, color=colour, markerfacecolor=fill)
    axis.set_yticks(at, own.index)


def cost_figure(spent: pd.DataFrame) -> Figure:
    """Mean gain (without the win rate) against tokens per answer."""
    figure, axis = plt.subplots(figsize=(6.5, 3.6))
    axis.axhline(0, color=figures.INK, linewidth=0.8)
    for number, row in enumerate(spent.itertuples()):
        x = [[row.tokens - row.tokens_low], [row.tokens_high - row.tokens]]
        own = spent.iloc[number : number + 1]
        figures.points(axis, [row.tokens], own, GAIN, xerr=x, label=row.policy, **_look(number))
    figures.finish(axis, "MiniWorld", xlabel="tokens per answer", ylabel="mean gain, points")
    figures.legend(axis)
    return figure


# ---------------------------------------------------------------- cards


class AnswerCase(NamedTuple):
    """An item whose answer quality (`worth`, 0 to 1) differs between the base and another policy."""

    bench: str
    item: BenchItem
    policy: str
    before: str
    after: str
    worth_before: float
    worth_after: float


def cases(given: PolicyAnswers, benches: Sequence[Bench], name: str, worse: bool) -> list[AnswerCase]:
    """Items that a policy answers worse (or better) than the base, largest change first, each once.

    An item of several benches is shown under the first.
    """
    changed: dict[str, AnswerCase] = {}
    for item, before, after in zip(given.items, given.texts[given.reference], given.texts[name], strict=True):
        for bench in benches:
            if item.set in bench.sets and bench.measure is not WON and item.id not in changed:
                a, b = (bench.measure.columns(text, item, before)[0] for text in (before, after))
                if b < a if worse else b > a:
                    changed[item.id] = AnswerCase(bench.name, item, name, before, after, a, b)
    return sorted(changed.values(), key=lambda case: -abs(case.worth_after - case.worth_before))


def by_gain(table: pd.DataFrame, benches: Sequence[Bench], name: str, worse: bool) -> list[Bench]:
    """The benches by one policy's gain, largest loss (or largest gain) first."""
    gain = table[table.policy == name].set_index("bench").gain
    return sorted(benches, key=lambda bench: gain[bench.name] if worse else -gain[bench.name])


def one_per_bench(changed: Iterable[AnswerCase], benches: Iterable[Bench], most: int) -> list[AnswerCase]:
    """The first case of each bench, in the order of the benches, at most `most`."""
    first: dict[str, AnswerCase] = {}
    for case in changed:
        first.setdefault(case.bench, case)
    return [first[bench.name] for bench in benches if bench.name in first][:most]


def _side(who: str, text: str, worth: float) -> str:
    """One policy's answer."""
    kind = "better" if worth > 0.5 else "worse"
    answer = escape(text) or "<i>(nothing)</i>"
    return f'<div class="side {kind}"><p class="soft">{escape(who)}, quality {worth:.2f}</p><p>{answer}</p></div>'


def _card(case: AnswerCase, reference: str) -> str:
    """One case as HTML."""
    question = case.item.question
    frames = render(question.scene)
    pictures = "".join(map(figures.picture, case.item.pictures or spread(frames, min(4, len(frames)))))
    label = f" · target object: {case.item.label}" if case.item.label else ""
    sides = _side(reference, case.before, case.worth_before) + _side(case.policy, case.after, case.worth_after)
    return (
        f'<div class="card"><p class="soft">{escape(case.bench)} · {escape(case.item.id + label)}</p>'
        f'<div class="frames">{pictures}</div><p><b>{escape(question.prompt)}</b></p>'
        f'<p class="soft">reference: {escape(question.answer)}</p><div class="row">{sides}</div></div>'
    )


def page(changed: Iterable[AnswerCase], reference: str) -> str:
    """Cards one below the other, or a sentence when there is none."""
    return figures.STYLE + ("".join(_card(case, reference) for case in changed) or "<p>No such item.</p>")


# ---------------------------------------------------------------- sentences and metrics


def _gain(row: Any) -> str:
    return reporting.shown(row.gain, row.gain_low, row.gain_high, 1, "+") + " points"


def _of_policy(name: str, table: pd.DataFrame, overall: Any) -> list[str]:
    """One policy's gains and losses; `overall` is the policy's mean row."""
    own = table[table.policy == name]
    benches = own[own.dimension != "control"]
    worse, better = ((benches.verdict == word).sum() for word in (compare.WORSE, compare.BETTER))
    sentences = [
        f"{name} against {table.policy.iloc[0]}: {worse} benches are worse, {better} better, and the other "
        f"{len(benches) - worse - better} not distinguished. Mean gain (without the win rate): {_gain(overall)}."
    ]
    for word, row in (("loses", own.loc[own.gain.idxmin()]), ("gains", own.loc[own.gain.idxmax()])):
        if row.verdict == {"loses": compare.WORSE, "gains": compare.BETTER}[word]:
            sentences.append(f"{name} {word} most on {row.bench!r}: {_gain(row)}, {row.verdict}.")
    return sentences


def sentences(table: pd.DataFrame, dims: pd.DataFrame, averages: pd.DataFrame, spent: pd.DataFrame) -> list[str]:
    """One sentence per finding, each with its numbers."""
    reference, *others = averages.index
    overall = dims[dims.dimension == "all"].set_index("policy")
    written = [sentence for name in others for sentence in _of_policy(name, table, overall.loc[name])]
    if not others:
        written.append(f"Only {reference} was evaluated, so nothing can be compared.")
    refused = table[table.bench == "harmless, refused"].set_index("policy").value
    tokens = spent.set_index("policy").tokens
    for name, row in averages.iterrows():
        written.append(
            f"{name}: unsafety {row.unsafety:.1f} %, safety {row.safety:.1f} % (means of the safety bench's rows). "
            f"Harmless requests refused: {refused[name]:.1f} %. Tokens per answer: {tokens[name]:.1f}."
        )
    return written


def headlines(table: pd.DataFrame, dims: pd.DataFrame) -> list[Headline]:
    """Front-page numbers: the base's mean; per policy, gains overall and on safety, and harmless questions refused.

    MM-DPO also has the gain in conversation, and the paper's numbers beside its own.
    """
    reference, *others = dict.fromkeys(table.policy)
    overall = dims.set_index(["dimension", "policy"])
    value = overall.loc[("all", reference), list(ENDS)]
    rows = [Headline(f"{reference}: mean of all benches, 0 to 100", *value, WORLD_NAME)]
    quoted, harmless = _quoted(), table[table.bench == "harmless, refused"].set_index("policy")
    for name in others:
        quotes = quoted if name.startswith("policies/mm_dpo") else {"all": "", "safety": ""}
        for dimension, quote in quotes.items():
            label = f"{name}: gain, {TEN_DIMENSIONS.get(dimension, 'all benches')}, points"
            rows.append(Headline(label, *overall.loc[(dimension, name), list(GAIN)], WORLD_NAME, quote))
        refused = harmless.loc[name, list(ENDS)]
        rows.append(Headline(f"{name}: harmless questions refused, %", *refused, WORLD_NAME))
    return rows


def _quoted() -> dict[str, str]:
    """The paper's numbers for MM-DPO, by dimension."""
    better = paper.table().query("verdict == 'better'").groupby("model").size()
    counts = ", ".join(f"{better[model]}" for model in paper.MODELS)
    return {
        "all": f"rows better of {len(paper.TABLES)}: {counts} ({', '.join(paper.MODELS)}; Tab. 2 and 3)",
        "safety": "unsafety LLaVA-OV-7B 40.2 → 13.9 (Tab. 3)",
        "conversation": f"LLaVA-OV-7B +19.5 % (abstract; Tab. 2: {paper_claims.claims()[0].verdict})",
    }


def metrics(
    table: pd.DataFrame, dims: pd.DataFrame, averages: pd.DataFrame, pope: Mapping[str, Mapping[str, Pope]], items: int
) -> dict[str, Any]:
    """Everything as nested plain numbers, without clock times."""
    by = ["bench", "policy"]
    return {
        "items": items,
        "benches": reporting.nested(table[[*by, *ENDS, *GAIN, "n"]].astype({"n": float}), *by),
        "dimensions": reporting.nested(dims[["dimension", "policy", *ENDS, *GAIN]], "dimension", "policy"),
        "averages": averages.to_dict("index"),
        "verdicts": bench_tables.verdicts(table).to_dict("index"),
        "pope": {
            name: {setting: {key: float(np.round(value, 6)) for key, value in numbers._asdict().items()}
                   for setting, numbers in settings.items()} for name, settings in pope.items()
        },
        "paper_claims": {claim.claim: claim.verdict for claim in paper_claims.claims()},
    }  # fmt: skip
