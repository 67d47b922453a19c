"""From rankings to pairs: the panel's order, which pairs to make, how many are possible, and train, dev and test."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from statistics import fmean

import pandas as pd

from mmrlhf_core.data import storage
from mmrlhf_core.data.records import Critique, Pair, Query, Ranking
from mmrlhf_study.annotation.records import SCALES, Judgement
from mmrlhf_study.curation import links

PAIRINGS = ("all", "hardest", "adjacent")


def latest(judgements: Iterable[Judgement]) -> list[Judgement]:
    """One judgement per annotator and response: the last round of each."""
    last: dict[tuple[str, str], Judgement] = {}
    for one in judgements:
        key = (one.annotator, one.response)
        if key not in last or one.round >= last[key].round:
            last[key] = one
    return list(last.values())


def dense_ranks(values: Sequence[int | Fraction]) -> tuple[int, ...]:
    """Ranks without gaps in the order of these values: 1, 1, 3 become 1, 1, 2."""
    levels = sorted(set(values))
    return tuple(levels.index(value) + 1 for value in values)


def panel(rankings: Sequence[Ranking]) -> Ranking:
    """The order of several annotators' rankings of one query: by mean rank, equal means are ties."""
    ids = sorted(rankings[0].responses)
    if any(sorted(one.responses) != ids for one in rankings):
        raise ValueError(f"The rankings of {rankings[0].query!r} are not of the same responses.")
    ranks: dict[str, list[int]] = {name: [] for name in ids}
    for one in rankings:
        for name, rank in zip(one.responses, one.ranks, strict=True):
            ranks[name].append(rank)
    means = [Fraction(sum(given), len(given)) for given in ranks.values()]
    basis = f"mean rank of {len(rankings)} annotators"
    return Ranking(rankings[0].query, "panel", tuple(ids), dense_ranks(means), basis)


def written_order(ranking: Ranking) -> str:
    """The paper's way to write a ranking, by number of the response: `2>1=3>4`."""
    rows = sorted(zip(ranking.ranks, range(1, len(ranking.ranks) + 1), strict=True))
    text = str(rows[0][1])
    for (rank, _), (next_rank, number) in pairwise(rows):
        text += ("=" if rank == next_rank else ">") + str(number)
    return text


def extended(ranking: Ranking, response: str, repair: str) -> Ranking:
    """A full tie with one more response: a written one above it, or a damaged one below it."""
    if set(ranking.ranks) != {1} or repair not in ("written", "damaged"):
        given = f"{written_order(ranking)} by {repair!r}"
        raise ValueError(f"Only a full tie is repaired, by 'written' or 'damaged'; not {given}.")
    rest = 2 if repair == "written" else 1
    ranks = (*(rest for _ in ranking.ranks), 3 - rest)
    return replace(ranking, responses=(*ranking.responses, response), ranks=ranks, repair=repair)


def typical(judgements: Iterable[Judgement]) -> Judgement:
    """Of several judgements of one response the one nearest to their mean on all scales; its reason is used for all."""
    rows = sorted(judgements, key=lambda row: row.annotator)
    mean = {scale: fmean(getattr(row, scale) for row in rows) for scale in SCALES}
    return min(rows, key=lambda row: sum(abs(getattr(row, scale) - mean[scale]) for scale in SCALES))


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
    """Pairs of responses of different rank: all, only best against worst ("hardest"), or only neighbouring ranks.

    The paper takes all and says that others take the hardest. `texts` holds the text of each response: where two models
    gave the same answer, the same two texts make one pair.
    """
    if how not in PAIRINGS:
        raise ValueError(f"No way {how!r} to make pairs. Give {', '.join(PAIRINGS)}.")
    given = defaultdict(list)
    for judgement in latest(judgements):
        given[judgement.response].append(judgement)
    scales = ("overall", *SCALES)
    mean = {name: [fmean(getattr(row, scale) for row in rows) for scale in scales] for name, rows in given.items()}
    why = {critique.response: critique.reason for critique in critiques}
    pairs: dict[tuple[str, str, str], Pair] = {}
    for ranking in rankings:
        for better, worse, steps in ordered(ranking, how):
            key = (ranking.query, texts[better], texts[worse])
            margins = [a - b for a, b in zip(mean[better], mean[worse], strict=True)]
            rest = (why[better], why[worse], steps, *margins, ranking.repair or "ranked")
            pairs.setdefault(key, Pair(ranking.query, better, worse, *rest))
    return list(pairs.values())


def counts(
    queries: Iterable[Query], rankings: Iterable[Ranking], pairs: Iterable[Pair], texts: Mapping[str, str]
) -> pd.DataFrame:
    """Per class: queries, responses, different texts, pairs that these texts allow without ties, pairs that exist."""
    category, rows = {query.id: query.category for query in queries}, []
    for ranking in rankings:
        k = len({texts[name] for name in ranking.responses})
        head = {"category": category[ranking.query], "queries": 1, "responses": len(ranking.responses)}
        rows.append(head | {"different": k, "ceiling": k * (k - 1) // 2})
    table = pd.DataFrame(rows).groupby("category").sum()
    number = pd.Series([category[pair.query] for pair in pairs]).value_counts()
    table["pairs"] = number.reindex(table.index, fill_value=0)
    table.loc["all"] = table.sum()
    return table.assign(share=table["pairs"] / table["ceiling"])


# ---------------------------------------------------------------- parts


def clusters(queries: Sequence[Query]) -> dict[str, str]:
    """A cluster name for each query; queries with the same picture, or near-duplicates of it, share the name."""
    linked = []
    for query in queries:
        near = [f"g {query.group}"] * bool(query.group) + [f"q {query.plant}"] * bool(query.plant)
        linked.append([f"q {query.id}", *(f"m {path}" for path in query.media), *near])
    head = links.heads(linked)
    return {query.id: head[f"q {query.id}"] for query in queries}


def split(queries: Sequence[Query], dev: float, test: float, seed: int) -> dict[str, str]:
    """ "train", "dev" or "test" for each query, so that no picture is in two parts.

    The seed and the names of the queries alone decide the order of the clusters; the first ones fill test, then dev, to
    at most their shares.
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
