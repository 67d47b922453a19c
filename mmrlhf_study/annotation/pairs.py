"""From rankings to pairs: the panel's order, which pairs to make, how many there can be, and which part they go to."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from statistics import fmean

import pandas as pd

from mmrlhf_core.data import storage
from mmrlhf_core.data.records import Critique, Pair, Query, Ranking
from mmrlhf_study.annotation.records import SCALES, Judgement
from mmrlhf_study.curation import links

PAIRINGS = ("all", "hardest", "adjacent")
CEILING = 167_277  # paper, Tab. 1: 25,762 queries of four answers, 4,235 of three; "over 120k" is what ties leave


def latest(judgements: Iterable[Judgement]) -> list[Judgement]:
    """One judgement per annotator and response: the last round of each."""
    last: dict[tuple[str, str], Judgement] = {}
    for one in judgements:
        key = (one.annotator, one.response)
        if key not in last or one.round >= last[key].round:
            last[key] = one
    return list(last.values())


def panel(rankings: Sequence[Ranking]) -> Ranking:
    """The order of several annotators' rankings of one query: by mean rank, equal means are ties."""
    ids = sorted(rankings[0].responses)
    if any(sorted(one.responses) != ids for one in rankings):
        raise ValueError(f"The rankings of {rankings[0].query!r} are not of the same responses.")
    ranks: dict[str, list[int]] = {name: [] for name in ids}
    for one in rankings:
        for name, rank in zip(one.responses, one.ranks, strict=True):
            ranks[name].append(rank)
    means = {name: Fraction(sum(given), len(given)) for name, given in ranks.items()}
    levels = sorted(set(means.values()))
    return Ranking(
        query=rankings[0].query,
        annotator="panel",
        responses=tuple(ids),
        ranks=tuple(levels.index(means[name]) + 1 for name in ids),
        basis=f"mean rank of {len(rankings)} annotators",
    )


def extended(ranking: Ranking, response: str, repair: str) -> Ranking:
    """A ranking that was one tie with the written response above it, or the damaged one below."""
    if set(ranking.ranks) != {1} or repair not in ("written", "damaged"):
        raise ValueError(f"Only a full tie is repaired, by 'written' or 'damaged'; not {ranking.order} by {repair!r}.")
    rest = 2 if repair == "written" else 1
    return replace(
        ranking,
        responses=(*ranking.responses, response),
        ranks=(*(rest for _ in ranking.ranks), 3 - rest),
        repair=repair,
    )


def typical(judgements: Iterable[Judgement]) -> Judgement:
    """Of several judgements of one response the one nearest to their mean on all scales; its reason stands for them."""
    rows = sorted(judgements, key=lambda one: one.annotator)
    mean = {scale: fmean(getattr(one, scale) for one in rows) for scale in SCALES}
    return min(rows, key=lambda one: sum(abs(getattr(one, scale) - mean[scale]) for scale in SCALES))


# ---------------------------------------------------------------- pairs


def ordered(ranking: Ranking, how: str) -> list[tuple[str, str, int]]:
    """(better, worse, ranks between) of the pairs that `how` asks for."""
    rank = dict(zip(ranking.responses, ranking.ranks, strict=True))
    most = max(ranking.ranks) - 1
    wanted = {"all": range(1, most + 1), "hardest": range(max(most, 1), most + 1), "adjacent": range(1, 2)}[how]
    return [(a, b, rank[b] - rank[a]) for a in rank for b in rank if rank[b] - rank[a] in wanted]


def make(
    rankings: Iterable[Ranking],
    judgements: Iterable[Judgement],
    critiques: Iterable[Critique],
    texts: Mapping[str, str],
    how: str = "all",
) -> list[Pair]:
    """Pairs of responses of different rank: all of them, only best against worst, or only of neighbouring ranks.

    The paper takes all; "hardest" is what it says others take, the pairs with the largest difference of rank. `texts`
    by response: where two models gave the same answer, the same two texts make one pair.
    """
    if how not in PAIRINGS:
        raise ValueError(f"No way {how!r} to make pairs. Give {', '.join(PAIRINGS)}.")
    given = defaultdict(list)
    for one in latest(judgements):
        given[one.response].append(one)
    scales = ("overall", *SCALES)
    mean = {name: [fmean(getattr(one, scale) for one in rows) for scale in scales] for name, rows in given.items()}
    why = {one.response: one.reason for one in critiques}
    pairs: dict[tuple[str, str, str], Pair] = {}
    for ranking in rankings:
        for better, worse, steps in ordered(ranking, how):
            key = (ranking.query, texts[better], texts[worse])
            margins = [a - b for a, b in zip(mean[better], mean[worse], strict=True)]
            told = (why[better], why[worse], steps, *margins, ranking.repair or "ranked")
            pairs.setdefault(key, Pair(ranking.query, better, worse, *told))
    return list(pairs.values())


def counts(
    queries: Iterable[Query], rankings: Iterable[Ranking], pairs: Iterable[Pair], texts: Mapping[str, str]
) -> pd.DataFrame:
    """Per class: queries, responses, different texts among them, pairs these allow without ties, pairs there are."""
    category = {query.id: query.category for query in queries}
    rows = []
    for one in rankings:
        k = len({texts[name] for name in one.responses})
        head = {"category": category[one.query], "queries": 1, "responses": len(one.responses)}
        rows.append(head | {"different": k, "ceiling": k * (k - 1) // 2})
    table = pd.DataFrame(rows).groupby("category").sum()
    number = pd.Series([category[pair.query] for pair in pairs]).value_counts()
    table["pairs"] = number.reindex(table.index, fill_value=0)
    table.loc["all"] = table.sum()
    return table.assign(share=table["pairs"] / table["ceiling"])


# ---------------------------------------------------------------- parts


def clusters(queries: Sequence[Query]) -> dict[str, str]:
    """A name for each query that it shares with all that show the same picture or a near-duplicate of it."""
    together = []
    for query in queries:
        near = [f"g {query.group}"] * bool(query.group) + [f"q {query.plant}"] * bool(query.plant)
        together.append([f"q {query.id}", *(f"m {path}" for path in query.media), *near])
    head = links.heads(together)
    return {query.id: head[f"q {query.id}"] for query in queries}


def split(queries: Sequence[Query], dev: float, test: float, seed: int) -> dict[str, str]:
    """ "train", "dev" or "test" for each query, so that no picture crosses parts.

    Clusters of queries come in an order that only the seed and their names decide; the first ones fill test, then dev,
    to at most their shares.
    """
    if not (dev >= 0 and test >= 0 and dev + test < 1):
        raise ValueError(f"Shares dev {dev} and test {test} have to be 0 or more and leave something for train.")
    groups = defaultdict(list)
    for query, cluster in clusters(queries).items():
        groups[cluster].append(query)
    order = sorted(groups.values(), key=lambda names: storage.sha256_bytes(f"{seed} {min(names)}".encode()))
    room = {"test": int(test * len(queries)), "dev": int(dev * len(queries)), "train": len(queries)}
    part = {}
    for names in order:
        chosen = next(name for name, left in room.items() if len(names) <= left)
        room[chosen] -= len(names)
        part |= dict.fromkeys(names, chosen)
    return part
