"""Pairs of one query as a graph: the ranking behind them, or the contradictions and cycles that prevent a ranking."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mmrlhf_core.data import annotated, published
from mmrlhf_core.data.records import Pair, Query, Ranking


class Conflict(NamedTuple):
    """Pairs or rows that contradict each other. They are reported and kept."""

    kind: str  # "contradiction": each preferred to the other; "cycle": three or more in a ring; "shared id"
    query: str
    responses: tuple[str, ...]


def _worse(pairs: Sequence[Pair]) -> dict[str, set[str]]:
    """For each response of one query, all that are worse than it, directly or through others."""
    worse: dict[str, set[str]] = {}
    for pair in pairs:
        worse.setdefault(pair.chosen, set()).add(pair.rejected)
        worse.setdefault(pair.rejected, set())
    for middle in worse:
        for name in worse:
            if middle in worse[name]:
                worse[name] |= worse[middle]
    return worse


def conflicts(queries: Iterable[Query], pairs: Iterable[Pair]) -> list[Conflict]:
    """Published ids that two queries share, and the contradictions and cycles of each query's preference graph."""
    reported = [Conflict("shared id", one.id, ()) for one in queries if published.original_id(one.id) != one.id]
    for query, group in annotated.by_query(pairs).items():
        edges, worse = {(pair.chosen, pair.rejected) for pair in group}, _worse(group)
        both = sorted((a, b) for a, b in edges if a < b and (b, a) in edges)
        rings = {tuple(sorted(b for b in worse[a] if a in worse[b])) for a in worse if a in worse[a]}
        reported += [Conflict("contradiction", query, names) for names in both]
        reported += [Conflict("cycle", query, ring) for ring in sorted(rings) if len(ring) > 2]
    return reported


def ranking(pairs: Sequence[Pair]) -> Ranking | None:
    """The order with ties whose pairs of different rank are exactly these pairs of one query; None if there is none."""
    worse = _worse(pairs)
    sizes = sorted({len(below) for below in worse.values()}, reverse=True)
    ranks = {name: sizes.index(len(below)) + 1 for name, below in worse.items()}
    implied = {(a, b) for a in ranks for b in ranks if ranks[a] < ranks[b]}
    if implied != {(pair.chosen, pair.rejected) for pair in pairs}:
        return None
    return Ranking(pairs[0].query, "published", tuple(ranks), tuple(ranks.values()))
