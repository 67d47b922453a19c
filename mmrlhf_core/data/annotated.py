"""Annotated queries, each with its responses, reasons, pairs and ties, for reward training and evaluation."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from mmrlhf_core.data import records
from mmrlhf_core.data.records import Critique, Pair, Query, Ranking, Response

REASON_KINDS = ("raw", "expanded")  # the annotator's own words, and the same written out in full


@dataclass(frozen=True)
class Annotated:
    """One query with at least one pair. Each of `ties` names two responses of equal rank and different text."""

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
        return {response: getattr(self.critiques.get(response), name, "") for response in self.responses}


def by_query(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """The pairs of each query, in order."""
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.query].append(pair)
    return dict(groups)


def gather(
    queries: Iterable[Query], responses: Iterable[Response], critiques: Iterable[Critique], pairs: Iterable[Pair],
    rankings: Iterable[Ranking] = (),
) -> list[Annotated]:  # fmt: skip
    """The queries that have pairs, in order; the panel's rankings decide which responses are tied."""
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    for response in responses:
        texts[response.query][response.id] = response.text
    reasons: dict[str, dict[str, Critique]] = defaultdict(dict)
    for critique in critiques:
        reasons[critique.query][critique.response] = critique
    panel = {ranking.query: ranking for ranking in rankings if ranking.annotator == "panel"}
    groups, gathered = by_query(pairs), []
    for query in queries:
        if group := groups.pop(query.id, []):
            own = texts[query.id]
            _check(query.id, group, own)
            ties = _ties(panel[query.id], own) if query.id in panel else ()
            gathered.append(Annotated(query, own, reasons[query.id], tuple(group), ties))
    if groups:
        raise ValueError(
            f"{len(groups)} queries have pairs but are not among the queries, first {next(iter(groups))!r}."
        )
    return gathered


def _check(query: str, pairs: Sequence[Pair], texts: Mapping[str, str]) -> None:
    """Refuse pairs of one query that name unknown responses or lie in several parts of the data."""
    missing = {name for pair in pairs for name in (pair.chosen, pair.rejected)} - texts.keys()
    if missing or len(parts := {pair.split for pair in pairs}) > 1:
        problem = f"name {sorted(missing)}, which it does not have" if missing else f"lie in parts {sorted(parts)}"
        raise ValueError(f"The pairs of query {query!r} {problem}. Take pairs and responses from the same run.")


def _ties(ranking: Ranking, texts: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Every two responses of equal rank whose texts differ."""
    ranked = combinations(zip(ranking.responses, ranking.ranks, strict=True), 2)
    return tuple((a, b) for (a, rank), (b, other) in ranked if rank == other and texts[a] != texts[b])


def read(folder: str | Path) -> list[Annotated]:
    """The annotated queries in the files of an annotation campaign."""
    kinds = {"queries": Query, "responses": Response, "critiques": Critique, "pairs": Pair, "rankings": Ranking}
    return gather(*(records.read(Path(folder) / f"{name}.parquet", kind) for name, kind in kinds.items()))
