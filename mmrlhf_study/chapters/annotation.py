"""What chapter 02 shows: tables with 95 % intervals over queries, their figures, the headline numbers and metrics.

Published files lack individual judgements; the tables are then empty.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmrlhf_core.data.records import Pair, Query, Ranking, Response
from mmrlhf_study.annotation import agreement, bradley_terry
from mmrlhf_study.annotation.campaign import Campaign
from mmrlhf_study.annotation.records import SCALES
from mmrlhf_study.chapters import figures, reporting
from mmrlhf_study.chapters.intervals import Estimate, bootstrap
from mmrlhf_study.chapters.reporting import ENDS, Headline

OUTCOMES = ("inverted", "tied", "inverted, ties excluded")  # of a pair of responses that a judge scores
_KEPT = "over 120,000 of 167,277 pairs (72 %), §2.3 and Tab. 1"  # the paper's share of possible pairs
_CAPTIONS = {
    "alpha": "Krippendorff's alpha per scale and class, 95 % intervals over queries",
    "annotator_bias": "Mean deviation of each annotator from the others on the same responses",
    "scores": "Distribution of points on each scale",
    "longer": "Share of pairs won by the longer response; equal lengths are excluded",
    "wins": "Share of comparisons that the row model wins against the column model; a tie counts half",
    "strengths": "Bradley-Terry strengths of the responders, 95 % intervals over queries",
    "enough": "Share of pairs that the mean of n annotators orders correctly; band: 95 % of random panels",
    "cases": "Four kinds of case from App. D: share decided correctly by simulated people and by the model judge",
}


def _groups(labels: pd.Series) -> Iterator[tuple[str, np.ndarray]]:
    """ "all", then each label, with its rows; nothing for an empty table."""
    for name in ("all", *sorted(set(labels))) if len(labels) else ():
        yield name, np.full(len(labels), True) if name == "all" else (labels == name).to_numpy()


def _rows(head: Mapping[str, Any], estimate: Estimate) -> pd.DataFrame:
    """The columns `head`, then value, low and high: one row per value."""
    return pd.DataFrame({**head, **{end: np.atleast_1d(getattr(estimate, end)) for end in ENDS}})


def _joined(parts: Sequence[pd.DataFrame], *columns: str) -> pd.DataFrame:
    """The parts as one table with these columns; without parts an empty one."""
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(columns))


def _shares(draws: int, seed: int, clusters: np.ndarray, *numbers: np.ndarray) -> Estimate:
    """Shares with intervals over clusters; `numbers`: hits, tries, hits, tries, …, each [n]."""
    return bootstrap(agreement.side_by_side(clusters, *numbers), agreement.share, draws, seed)


# ---------------------------------------------------------------- tables


def categories(queries: Iterable[Query]) -> dict[str, str]:
    """The class of each query, by id."""
    return {query.id: query.category or "unknown" for query in queries}


def agreement_table(table: pd.DataFrame, category: Mapping[str, str], draws: int, seed: int) -> pd.DataFrame:
    """Ordinal α and mean pairwise κ (quadratic weights, and plain) per scale, overall and per class."""
    parts = []
    for group, chosen in _groups(table["query"].map(category)):
        inside = table[chosen]
        for scale in SCALES:
            rated = agreement.ratings(inside, scale)
            measures = {
                "alpha": (agreement.coincidences(rated), agreement.alpha),
                "kappa": (agreement.pairwise(rated, "none"), agreement.mean_kappa),
                "weighted kappa": (agreement.pairwise(rated), agreement.mean_kappa),
            }
            for name, (counts, statistic) in measures.items():
                head = {"class": group, "scale": scale, "measure": name, "queries": inside["query"].nunique()}
                parts.append(_rows(head, bootstrap(counts, statistic, draws, seed)))
    return _joined(parts, "class", "scale", "measure", "queries", *ENDS)


def annotator_table(table: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Per annotator and scale: weighted κ with all others, agreement with their majority, mean deviation, spread."""
    parts = []
    for scale in SCALES if len(table) else ():
        rated = agreement.ratings(table, scale)
        shape = (len(rated.names), agreement.SCALE_POINTS**2)
        measures = {
            "weighted kappa": (
                agreement.against_others(rated),
                lambda counts, shape=shape: agreement.kappa(counts.reshape(*counts.shape[:-1], *shape)),
            ),
            "equals majority": (agreement.leave_one_out(rated), agreement.share),
            "bias": (agreement.per_rater(rated), lambda sums: agreement.mean_and_sd(sums)[..., 0]),
            "spread": (agreement.per_rater(rated), lambda sums: agreement.mean_and_sd(sums)[..., 1]),
        }
        for name, (counts, statistic) in measures.items():
            head = {"annotator": list(rated.names), "scale": scale, "measure": name}
            parts.append(_rows(head, bootstrap(counts, statistic, draws, seed)))
    return _joined(parts, "annotator", "scale", "measure", *ENDS)


def bias_table(table: pd.DataFrame, texts: Mapping[str, str], draws: int, seed: int) -> pd.DataFrame:
    """Slopes of the overall score: per doubled length, per position shown, per 100 queries.

    Length varies between the responses to a query, so its slope also reflects quality. Position and list vary between
    the annotators of one response, so these two slopes do not reflect quality.
    """
    if table.empty:
        return _joined([], "what", *ENDS)
    y, query = table["overall"].to_numpy(float), agreement.codes(table["query"])
    sheet, response = agreement.codes(table["query"], table["annotator"]), agreement.codes(table["response"])
    regressors = {
        "length (per doubling)": (np.log2(table["response"].map(texts).str.len().clip(lower=1)).to_numpy(), sheet),
        "place shown (per place)": (table["place"].to_numpy(float), response),
        "list (per 100 queries)": (table["item"].to_numpy(float) / 100, response),
    }
    return _joined(
        [
            _rows({"what": name}, bootstrap(agreement.moments(y, x, within, query), agreement.slope, draws, seed))
            for name, (x, within) in regressors.items()
        ]
    )


def longer_table(
    rankings: Sequence[Ranking], responses: Iterable[Response], category: Mapping[str, str], draws: int, seed: int
) -> pd.DataFrame:
    """Share of pairs won by the longer response, per class; ties in rank or length are excluded."""
    size, rows, parts = {response.id: len(response.text) for response in responses}, [], []
    for number, ranking in enumerate(rankings):
        ranked = list(zip(ranking.responses, ranking.ranks, strict=True))
        both = [(size[a], size[b]) for a, rank in ranked for b, other in ranked if rank < other]
        rows += [(category[ranking.query], number, *lengths) for lengths in both]
    pairs = pd.DataFrame(rows, columns=["class", "query", "better", "worse"])
    for name, chosen in _groups(pairs["class"]):
        inside = pairs[chosen]
        longer, differ = inside["better"] > inside["worse"], inside["better"] != inside["worse"]
        estimate = _shares(draws, seed, agreement.codes(inside["query"]), longer, differ)
        parts.append(_rows({"class": name}, estimate).assign(pairs=len(inside)))
    return _joined(parts, "class", *ENDS, "pairs")


def score_table(table: pd.DataFrame) -> pd.DataFrame:
    """How many judgements gave each point of each scale."""
    return pd.DataFrame({scale: table[scale].value_counts().reindex(range(1, 6), fill_value=0) for scale in SCALES})


def strength_table(
    rankings: Sequence[Ranking], responses: Iterable[Response], draws: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(share of comparisons that the row model wins against the column model, Bradley–Terry strengths, best first).

    Answers that were written to break a tie come from no model and are left out.
    """
    model_of = {response.id: response.responder for response in responses}
    models = sorted({model_of[name] for ranking in rankings for name in ranking.responses} - {"annotator"})
    counts = bradley_terry.wins(rankings, model_of, models)
    total = counts.sum(0).reshape(len(models), -1)
    bradley_terry.require_connected(total, models)
    with np.errstate(invalid="ignore"):
        shares = pd.DataFrame(total / (total + total.T), index=models, columns=models)
    strengths = _rows({"model": models}, bootstrap(counts, bradley_terry.strengths, draws, seed))
    return shares, strengths.sort_values("value", ascending=False, ignore_index=True)


def time_table(table: pd.DataFrame, category: Mapping[str, str], draws: int, seed: int) -> pd.DataFrame:
    """Mean seconds per annotator and query, per class; the times are simulated."""
    spent, parts = table.groupby(["query", "annotator"], as_index=False)["seconds"].sum(), []
    for name, chosen in _groups(spent["query"].map(category)):
        inside = spent[chosen]
        estimate = _shares(draws, seed, agreement.codes(inside["query"]), inside["seconds"], np.ones(len(inside)))
        parts.append(_rows({"class": name}, estimate).assign(sheets=len(inside)))
    return _joined(parts, "class", *ENDS, "sheets")


def inversion_table(
    rankings: Iterable[Ranking], scores: Mapping[str, float], category: Mapping[str, str], draws: int, seed: int
) -> pd.DataFrame:
    """Per class, shares of the annotators' pairs by the outcome of a judge (`OUTCOMES`).

    Of all pairs: "inverted" (the judge orders them the other way) or "tied" (the judge scores both responses equally).
    The third is the share of inverted pairs among those that are not tied.
    """
    rows = [(category[ranking.query], *bradley_terry.inversions(ranking, scores)) for ranking in rankings]
    counted, parts = pd.DataFrame(rows, columns=["class", "inverted", "tied", "pairs"]), []
    for name, chosen in _groups(counted["class"]):
        inverted, tied, pairs = counted.loc[chosen, ["inverted", "tied", "pairs"]].to_numpy(float).T
        numbers = (inverted, pairs, tied, pairs, inverted, pairs - tied)
        head = {"class": name, "outcome": list(OUTCOMES), "pairs": int(pairs.sum())}
        parts.append(_rows(head, _shares(draws, seed, np.arange(len(pairs)), *numbers)))
    return _joined(parts, "class", "outcome", "pairs", *ENDS)


def enough_table(
    table: pd.DataFrame, truth: Mapping[str, float], responses: Iterable[str], repeats: int, seed: int
) -> pd.DataFrame:
    """How often the mean of 1, 2, … annotators orders two responses as `truth`; only responses that all judged."""
    wide = table[table["response"].isin(set(responses))].pivot_table("overall", "response", "annotator").dropna()
    if wide.empty:
        return pd.DataFrame(columns=["annotators", *ENDS], dtype=float)
    query = agreement.codes(table.drop_duplicates("response").set_index("response").loc[wide.index, "query"])
    target = np.array([truth[name] for name in wide.index])
    shares = bradley_terry.curve(wide.to_numpy(), target, query, repeats, seed)
    low, high = np.quantile(shares, (0.025, 0.975), axis=-1)
    return _rows({"annotators": range(1, len(shares) + 1)}, Estimate(shares.mean(-1), low, high))


def case_table(kinds: Sequence[str], right: Mapping[str, Sequence[float]], draws: int, seed: int) -> pd.DataFrame:
    """Share of cases that each judge decides correctly, per kind; `right` holds 1, 0 or a share for each case."""
    parts = []
    for kind in dict.fromkeys(kinds):
        for judge, values in right.items():
            hits = np.array([value for name, value in zip(kinds, values, strict=True) if name == kind])
            head = {"kind": kind, "judge": judge, "cases": len(hits)}
            parts.append(_rows(head, _shares(draws, seed, np.arange(len(hits)), hits, np.ones(len(hits)))))
    return _joined(parts, "kind", "judge", "cases", *ENDS)


# ---------------------------------------------------------------- figures


def intervals(rows: pd.DataFrame, names: str, title: str, mark: float | None = None) -> Figure:
    """Values with intervals: one row per entry of the column `names`, one colour per scale if there are scales.

    `mark` is the place of a reference line.
    """
    labels = list(dict.fromkeys(rows[names]))
    parts = {scale: rows[rows["scale"] == scale] for scale in SCALES} if "scale" in rows else {"": rows}
    figure, axis = plt.subplots(figsize=(7, 0.5 * len(labels) + 1.2))
    at = np.arange(len(labels))[::-1] + 0.11 * (len(parts) - 1)
    if mark is not None:
        axis.axvline(mark, color=figures.GREY, linestyle="--", linewidth=1)
    for number, (scale, colour) in enumerate(figures.colours(parts).items()):
        part = parts[scale].set_index(names).reindex(labels)
        figures.points(axis, at - 0.22 * number, part, lying=True, color=colour, label=scale or None)
    axis.set_yticks(np.arange(len(labels))[::-1], labels)
    if len(parts) > 1:
        figures.legend(axis)
    figures.finish(axis, title)
    return figure


def histograms(counts: pd.DataFrame) -> Figure:
    """How often each point of each scale was given, as shares."""
    figure, axes = plt.subplots(1, len(SCALES), figsize=(9, 2.6), sharey=True)
    for axis, (scale, colour) in zip(axes, figures.colours(SCALES).items(), strict=True):
        axis.bar(counts.index, counts[scale] / max(counts[scale].sum(), 1), color=colour)
        figures.finish(axis, scale, xticks=range(1, 6))
    axes[0].set_ylabel("share of judgements")
    return figure


def matrix(shares: pd.DataFrame, title: str) -> Figure:
    """Win shares, row against column."""
    n = len(shares)
    figure, axis = plt.subplots(figsize=(0.9 * n + 2, 0.75 * n + 1.2))
    axis.imshow(shares, vmin=0, vmax=1, cmap="BrBG")
    for i, j in np.ndindex(n, n):
        if i != j:
            axis.text(j, i, f"{shares.iloc[i, j]:.2f}", ha="center", va="center", fontsize=10)
    axis.set_xticks(range(n), shares.columns, rotation=20)
    axis.set_yticks(range(n), shares.index)
    figures.finish(axis, title)
    return figure


def curve(rows: pd.DataFrame, title: str) -> Figure:
    """Values with their band against the number of annotators."""
    figure, axis = plt.subplots(figsize=(6, 3))
    axis.fill_between(rows["annotators"], rows["low"], rows["high"], color=figures.BETTER_COLOUR, alpha=0.15)
    axis.plot(rows["annotators"], rows["value"], "o-", color=figures.BETTER_COLOUR, markersize=4)
    figures.finish(axis, title, xlabel="judgements per response")
    return figure


def write_figures(drawn: Mapping[str, Figure], world: str) -> None:
    """Write the figures with caption and source of the data."""
    for name, figure in drawn.items():
        on = "MiniWorld" if name == "cases" else world  # these cases exist only there
        reporting.write_figure("annotation", name, figure, f"{_CAPTIONS[name]} ({on})")


# ---------------------------------------------------------------- what is reported


def kept_share(result: Campaign, pairs: Sequence[Pair], draws: int, seed: int) -> Estimate:
    """Share of the possible pairs that exist (tied pairs do not), with its interval over queries."""
    number = Counter(pair.query for pair in pairs)
    texts = {response.id: response.text for response in result.responses}
    different = {order.query: len({texts[name] for name in order.responses}) for order in result.panel}
    sizes = np.array([(number[query], k * (k - 1) // 2) for query, k in different.items()], float)
    return Estimate(*(end[0] for end in _shares(draws, seed, np.arange(len(sizes)), *sizes.T)))


def right_share(pairs: Sequence[Pair], scores: Mapping[str, float]) -> float | None:
    """Share of ranked pairs that are ordered as their true scores; pairs with equal true scores are excluded.

    None if no true scores are known.
    """
    gaps = [scores[pair.chosen] - scores[pair.rejected] for pair in pairs if scores and pair.origin == "ranked"]
    different = [gap > 0 for gap in gaps if gap]
    return sum(different) / len(different) if different else None


def _where(rows: pd.DataFrame, **values: str) -> pd.DataFrame:
    """The rows with these values."""
    return rows[np.logical_and.reduce([rows[name] == value for name, value in values.items()])]


def headlines(
    agreed: pd.DataFrame, inverted: pd.DataFrame, compared: pd.DataFrame, kept: Estimate, world: str
) -> list[Headline]:
    """The chapter's headline numbers, measured on `world`; what could not be measured is left out."""
    alpha = _where(agreed, **{"class": "all"}, measure="alpha")
    turned = _where(inverted, **{"class": "all"}, outcome="inverted")
    parts = [
        alpha.assign(label="Krippendorff's alpha, " + alpha["scale"]),
        _rows({"label": "Share of possible pairs kept", "paper": _KEPT}, kept),
        turned.assign(label="Pairs the model judge turns around"),
        compared.assign(label="App. D, " + compared["kind"] + ": " + compared["judge"] + " right"),
    ]
    rows = pd.concat(parts).fillna({"paper": ""})
    return [Headline(row.label, row.value, row.low, row.high, world, row.paper) for row in rows.itertuples()]


def metrics(result: Campaign, pairs: Sequence[Pair], right: float | None) -> dict[str, Any]:
    """Counts of a campaign as plain numbers; `right` is the share of pairs ordered as the truth, where it is known."""
    return {
        "queries": len(result.queries),
        "responses": len(result.responses),
        "judgements": len(result.judgements),
        "checked_sheets": result.checked,
        "returned_sheets": result.returned,
        "repairs": dict(sorted(Counter(order.repair for order in result.panel if order.repair).items())),
        "pairs": len(pairs),
        "pairs_by_origin": dict(sorted(Counter(pair.origin for pair in pairs).items())),
        "pairs_by_split": dict(sorted(Counter(pair.split for pair in pairs).items())),
        **({} if right is None else {"pairs_ordered_as_truth": right}),
    }
