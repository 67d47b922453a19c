"""Annotated queries: each with its responses, reasons, pairs and ties, as reward training and evaluation take them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from mmrlhf_core.data import graph, records
from mmrlhf_core.data.records import Critique, Pair, Query, Ranking, Response

REASON_KINDS = ("raw", "expanded")  # an annotator's own words, and the same in full


@dataclass(frozen=True)
class Annotated:
    """One query with at least one pair. `ties` holds two responses of equal rank and different text each."""

    query: Query
    responses: Mapping[str, str]  # text by id
    critiques: Mapping[str, Critique]  # by id of the response
    pairs: tuple[Pair, ...]
    ties: tuple[tuple[str, str], ...] = ()

    @property
    def split(self) -> str:
        return self.pairs[0].split

    def reasons(self, kind: str) -> dict[str, str]:
        """The reasons of one kind by id of the response; blank where there is none."""
        if kind not in REASON_KINDS:
            raise ValueError(f"No kind of reasons {kind!r}. Give {' or '.join(REASON_KINDS)}.")
        name = "reason" if kind == "raw" else "expanded"
        return {one: getattr(self.critiques[one], name) if one in self.critiques else "" for one in self.responses}


def _ties(ranking: Ranking, texts: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Two responses of the same rank each, where they differ at all."""
    ranked = zip(ranking.responses, ranking.ranks, strict=True)
    both = [(a, b) for (a, rank), (b, other) in combinations(ranked, 2) if rank == other]
    return tuple((a, b) for a, b in both if texts[a] != texts[b])


def gather(
    queries: Iterable[Query], responses: Iterable[Response], critiques: Iterable[Critique], pairs: Iterable[Pair],
    rankings: Iterable[Ranking] = (),
) -> list[Annotated]:  # fmt: skip
    """The queries that have pairs, in order; of the rankings the panel's say what is tied."""
    said: dict[str, dict[str, str]] = defaultdict(dict)
    for response in responses:
        said[response.query][response.id] = response.text
    why: dict[str, dict[str, Critique]] = defaultdict(dict)
    for critique in critiques:
        why[critique.query][critique.response] = critique
    order = {ranking.query: ranking for ranking in rankings if ranking.annotator == "panel"}
    groups, found = graph.by_query(pairs), []
    for query in queries:
        if not (group := groups.pop(query.id, [])):
            continue
        texts, parts = said[query.id], {pair.split for pair in group}
        missing = {name for pair in group for name in (pair.chosen, pair.rejected)} - texts.keys()
        if missing or len(parts) > 1:
            raise ValueError(
                f"The pairs of query {query.id!r} name {sorted(missing)}, which are no responses to it, or lie in "
                f"several parts ({', '.join(map(repr, sorted(parts)))}). Make pairs and responses in one run."
            )
        ties = _ties(order[query.id], texts) if query.id in order else ()
        found.append(Annotated(query, texts, why[query.id], tuple(group), ties))
    if groups:
        raise ValueError(
            f"{len(groups)} queries have pairs and are not among the queries, first {next(iter(groups))!r}."
        )
    return found


def read(folder: str | Path) -> list[Annotated]:
    """What the annotation chapter wrote."""
    kinds = {"queries": Query, "responses": Response, "critiques": Critique, "pairs": Pair, "rankings": Ranking}
    return gather(*(records.read(Path(folder) / f"{name}.parquet", kind) for name, kind in kinds.items()))


def part(data: Iterable[Annotated], split: str) -> list[Annotated]:
    """The queries of one part of the data."""
    return [one for one in data if one.split == split]


def about(data: Iterable[Annotated], slice_: str) -> list[Annotated]:
    """The queries whose topic (or class, where they have no topic) begins with `slice_`."""
    return [one for one in data if (one.query.topic or one.query.category).startswith(slice_)]
