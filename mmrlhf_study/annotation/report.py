"""The tables of the annotation chapter, each with 95 % intervals over queries.

Published files hold no single judgements: from an empty table of judgements every one of these is empty too.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from mmrlhf_core.data.records import SCALES, Query, Ranking, Response
from mmrlhf_study.annotation import agreement, biases, bradley_terry
from mmrlhf_study.chapters.intervals import Estimate, bootstrap

INTERVAL_COLUMNS = ("value", "low", "high")
TOLD = "inverted, told apart"


def _rows(labels: Sequence[str], found: Estimate) -> pd.DataFrame:
    """One row per label with value, low and high."""
    return pd.DataFrame({end: np.atleast_1d(getattr(found, end)) for end in INTERVAL_COLUMNS}, index=list(labels))


def agreement_table(table: pd.DataFrame, category: Mapping[str, str], draws: int, seed: int) -> pd.DataFrame:
    """α (ordinal) and mean pairwise κ (quadratic weights, and none) per scale, over all queries and per class."""
    rows = []
    classes = table["query"].map(category)
    for group in ("all", *sorted(set(classes))) if len(table) else ():
        mine = table if group == "all" else table[classes == group]
        for scale in SCALES:
            rated = agreement.ratings(mine, scale)
            measures = {
                "alpha": (agreement.coincidences(rated), agreement.alpha),
                "kappa": (agreement.pairwise(rated, "none"), agreement.mean_kappa),
                "weighted kappa": (agreement.pairwise(rated), agreement.mean_kappa),
            }
            for name, (counts, statistic) in measures.items():
                found = bootstrap(counts, statistic, draws, seed)
                head = {"class": group, "scale": scale, "measure": name, "queries": mine["query"].nunique()}
                rows.append(head | dict(zip(INTERVAL_COLUMNS, map(float, found), strict=True)))
    return pd.DataFrame(rows, columns=["class", "scale", "measure", "queries", *INTERVAL_COLUMNS])


def in_words(rows: pd.DataFrame) -> pd.Series:
    """`0.53 [0.50, 0.56]` for each row with value, low, high."""
    return pd.Series([f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in rows.itertuples()], rows.index, str)


def annotator_table(table: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Per annotator and scale: weighted κ with all others, leave-one-out share, mean deviation and its spread."""
    parts = []
    for scale in SCALES if len(table) else ():
        rated = agreement.ratings(table, scale)
        n = len(rated.names)
        measures = {
            "weighted kappa": (
                agreement.against_others(rated),
                lambda o, n=n: agreement.kappa(o.reshape(*o.shape[:-1], n, agreement.SCALE_POINTS**2)),
            ),
            "equals majority": (agreement.leave_one_out(rated), agreement.share),
            "bias": (biases.per_rater(rated), lambda o: biases.mean_and_sd(o)[..., 0]),
            "spread": (biases.per_rater(rated), lambda o: biases.mean_and_sd(o)[..., 1]),
        }
        for name, (counts, statistic) in measures.items():
            found = _rows(rated.names, bootstrap(counts, statistic, draws, seed))
            parts.append(found.rename_axis("annotator").reset_index().assign(scale=scale, measure=name))
    columns = ["annotator", "scale", "measure", *INTERVAL_COLUMNS]
    return pd.concat(parts)[columns].reset_index(drop=True) if parts else pd.DataFrame(columns=columns)


def bias_table(table: pd.DataFrame, texts: Mapping[str, str], draws: int, seed: int) -> pd.DataFrame:
    """Slopes of the overall score: per doubling of length, per place in the order shown, per 100 queries.

    Length is compared within an annotator's query, so it holds quality too; place and list are against the other
    annotators of the same response, who saw it elsewhere: these two are free of quality.
    """
    if table.empty:
        return pd.DataFrame(columns=list(INTERVAL_COLUMNS))
    y, query = table["overall"].to_numpy(float), biases.codes(table["query"])
    sheet, response = biases.codes(table["query"], table["annotator"]), biases.codes(table["response"])
    length = np.log2(table["response"].map(texts).str.len().clip(lower=1)).to_numpy()
    asked = {
        "length (per doubling)": (length, sheet),
        "place shown (per place)": (table["place"].to_numpy(float), response),
        "list (per 100 queries)": (table["item"].to_numpy(float) / 100, response),
    }
    found = [
        _rows([name], bootstrap(biases.moments(y, x, within, query), biases.slope, draws, seed))
        for name, (x, within) in asked.items()
    ]
    return pd.concat(found)


def longer_table(
    rankings: Sequence[Ranking], responses: Iterable[Response], category: Mapping[str, str], draws: int, seed: int
) -> pd.DataFrame:
    """Share of pairs of different rank in which the longer response is the better one, per class."""
    size = {one.id: len(one.text) for one in responses}
    lengths, wins, group, cluster = [], [], [], []
    for number, ranking in enumerate(rankings):
        named = list(zip(ranking.responses, ranking.ranks, strict=True))
        both = [(a, b) for a, rank in named for b, other in named if rank < other]
        lengths += [(size[a], size[b]) for a, b in both]
        wins += [0] * len(both)
        group += [category[ranking.query]] * len(both)
        cluster += [number] * len(both)
    lengths_, group_ = np.array(lengths).reshape(-1, 2), np.array(group)
    parts = []
    for name in ("all", *sorted(set(group))):
        mine = np.ones(len(group_), bool) if name == "all" else group_ == name
        counts = biases.longer_wins(lengths_[mine], np.array(wins)[mine], pd.factorize(np.array(cluster)[mine])[0])
        parts.append(_rows([name], bootstrap(counts, agreement.share, draws, seed)).assign(pairs=int(mine.sum())))
    return pd.concat(parts)


def score_table(table: pd.DataFrame) -> pd.DataFrame:
    """How many judgements gave each point of each scale."""
    points = range(1, 6)
    return pd.DataFrame({scale: table[scale].value_counts().reindex(points, fill_value=0) for scale in SCALES})


def strength_table(
    rankings: Sequence[Ranking], responses: Iterable[Response], draws: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(share of comparisons the row model wins from the column model, Bradley–Terry strengths with intervals).

    Answers written to break a tie are nobody's and left out.
    """
    model_of = {one.id: one.responder for one in responses}
    models = sorted({model_of[name] for ranking in rankings for name in ranking.responses} - {"annotator"})
    counts = bradley_terry.wins(rankings, model_of, models)
    total = counts.sum(0).reshape(len(models), -1)
    with np.errstate(invalid="ignore"):
        matrix = pd.DataFrame(total / (total + total.T), index=models, columns=models)
    bradley_terry.require_connected(total, models)
    found = _rows(models, bootstrap(counts, bradley_terry.strengths, draws, seed))
    return matrix, found.sort_values("value", ascending=False)


def time_table(table: pd.DataFrame, category: Mapping[str, str], draws: int, seed: int) -> pd.DataFrame:
    """Mean seconds one annotator spends on a query, per class."""
    if table.empty:
        return pd.DataFrame(columns=[*INTERVAL_COLUMNS, "sheets"])
    spent = table.groupby(["query", "annotator"], as_index=False)["seconds"].sum()
    classes, parts = spent["query"].map(category), []
    for name in ("all", *sorted(set(classes))):
        mine = spent if name == "all" else spent[classes == name]
        query, ones = pd.factorize(mine["query"])[0], np.ones(len(mine))
        weights = np.stack((mine["seconds"], ones), -1).ravel()
        counts = agreement.cells(np.repeat(query, 2), np.tile([0, 1], len(mine)), weights, 2)
        parts.append(_rows([name], bootstrap(counts, agreement.share, draws, seed)).assign(sheets=len(mine)))
    return pd.concat(parts)


def inversion_table(
    rankings: Iterable[Ranking], scores: Mapping[str, float], category: Mapping[str, str], draws: int, seed: int
) -> pd.DataFrame:
    """Shares of the people's pairs that a judge orders the other way (`inverted`), that it does not tell apart
    (`tied`), and of those it tells apart the ones it orders the other way (`inverted, told apart`), per class."""
    found = [(category[one.query], *bradley_terry.inversions(one, scores)) for one in rankings]
    parts = [pd.DataFrame(columns=["class", "outcome", "pairs", *INTERVAL_COLUMNS])][: not found]
    for name in ("all", *sorted({row[0] for row in found})) if found else ():
        mine = np.array([row[1:] for row in found if name in ("all", row[0])], float)
        cluster, n = np.repeat(np.arange(len(mine)), 6), len(mine)
        other, tied, total = mine.T
        weights = np.stack((other, total, tied, total, other, total - tied), -1).ravel()
        counts = agreement.cells(cluster, np.tile(range(6), n), weights, 6)
        rows = _rows(["inverted", "tied", TOLD], bootstrap(counts, agreement.share, draws, seed))
        parts.append(rows.rename_axis("outcome").reset_index().assign(**{"class": name}, pairs=int(mine[:, 2].sum())))
    return pd.concat(parts)[["class", "outcome", "pairs", *INTERVAL_COLUMNS]].reset_index(drop=True)


def enough_table(
    table: pd.DataFrame, truth: Mapping[str, float], responses: Iterable[str], repeats: int, seed: int
) -> pd.DataFrame:
    """Order agreement with `truth` of the mean of 1, 2, .. annotators, from the responses that all of them judged."""
    wide = table[table["response"].isin(set(responses))].pivot_table("overall", "response", "annotator").dropna()
    if wide.empty:
        return pd.DataFrame(columns=["annotators", *INTERVAL_COLUMNS], dtype=float)
    query = biases.codes(table.drop_duplicates("response").set_index("response").loc[wide.index, "query"])
    target = np.array([truth[name] for name in wide.index])
    found = bradley_terry.curve(wide.to_numpy(), target, query, repeats, seed)
    low, high = np.quantile(found, (0.025, 0.975), axis=-1)
    columns = {"annotators": range(1, len(found) + 1), "value": found.mean(-1), "low": low, "high": high}
    return pd.DataFrame(columns)


def case_table(kinds: Sequence[str], right: Mapping[str, Sequence[float]], draws: int, seed: int) -> pd.DataFrame:
    """Share of cases decided rightly by each judge, per kind; `right` holds 1, 0 or a share per case."""
    parts = []
    for kind in dict.fromkeys(kinds):
        mine = np.array([one == kind for one in kinds])
        for name, values in right.items():
            hits = np.array(values)[mine]
            weights = np.stack((hits, np.ones(len(hits))), -1).ravel()
            counts = agreement.cells(np.repeat(np.arange(len(hits)), 2), np.tile([0, 1], len(hits)), weights, 2)
            found = _rows([name], bootstrap(counts, agreement.share, draws, seed))
            parts.append(found.rename_axis("judge").reset_index().assign(kind=kind, cases=len(hits)))
    columns = ["kind", "judge", "cases", *INTERVAL_COLUMNS]
    return pd.concat(parts)[columns].reset_index(drop=True) if parts else pd.DataFrame(columns=columns)


def categories(queries: Iterable[Query]) -> dict[str, str]:
    """The class of each query, by id."""
    return {query.id: query.category or "unknown" for query in queries}
