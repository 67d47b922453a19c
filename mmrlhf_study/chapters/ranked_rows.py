"""From annotated pairs and the reward model's margins to the ranked rows that preference training reads.

Nothing is guessed: a pair that names an unknown query or response, has no margin, or has margins of several reward
models is an error that says which and what to do.
"""

from collections.abc import Iterable, Mapping, Sequence

from mmrlhf_core.data import graph
from mmrlhf_core.data.records import Pair, Query, RecordError, Response
from mmrlhf_core.rollout.score import Margin
from mmrlhf_core.training.dataset import RankedRow

DATA_PARTS = ("train", "dev", "test")


def by_pair(margins: Iterable[Margin]) -> dict[tuple[str, str, str], float]:
    """δ of each (query, better, worse); all margins have to come from one reward model."""
    margins = list(margins)
    if len(models := {one.model for one in margins}) > 1:
        names = ", ".join(sorted(model[:12] or "one never saved" for model in models))
        raise ValueError(f"The margins come from {len(models)} reward models ({names}). Score all pairs with one.")
    return {(one.query, one.chosen, one.rejected): one.reward_margin for one in margins}


def _check(pairs: Sequence[Pair], queries: Mapping[str, Query], responses: Mapping[str, Response]) -> None:
    """Refuse pairs that name what is not there, or that belong to no part."""
    for pair in pairs:
        if pair.query not in queries:
            raise RecordError(f"A pair names query {pair.query!r}, which is not among the queries. Annotate again.")
        for name in (pair.chosen, pair.rejected):
            if name not in responses or responses[name].query != pair.query:
                whose = f"a response to {responses[name].query!r}" if name in responses else "not among the responses"
                raise RecordError(f"A pair of query {pair.query!r} names {name!r}, which is {whose}. Annotate again.")
        if pair.split not in DATA_PARTS:
            raise RecordError(
                f"A pair of query {pair.query!r} is in no part; give each one of {', '.join(DATA_PARTS)}."
            )


def _row(query: Query, pairs: Sequence[Pair], texts: Mapping[str, str], delta: Mapping[tuple, float]) -> RankedRow:
    """One query with its pairs; of its responses those that stand in some pair."""
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.chosen, pair.rejected)))
    return RankedRow(
        id=query.id,
        prompt=query.prompt,
        modality=query.modality,
        media=query.media,
        responses=tuple(texts[name] for name in names),
        winners=tuple(names.index(pair.chosen) for pair in pairs),
        losers=tuple(names.index(pair.rejected) for pair in pairs),
        margins=tuple(delta[pair.query, pair.chosen, pair.rejected] for pair in pairs),
    )


def build(
    queries: Iterable[Query], responses: Iterable[Response], pairs: Sequence[Pair], margins: Iterable[Margin]
) -> dict[str, list[RankedRow]]:
    """The rows of train, dev and test, each query with all its pairs, in the order of the pairs."""
    asked, said = {one.id: one for one in queries}, {one.id: one for one in responses}
    _check(pairs, asked, said)
    delta, texts = by_pair(margins), {name: one.text for name, one in said.items()}
    missing = [pair for pair in pairs if (pair.query, pair.chosen, pair.rejected) not in delta]
    if missing:
        one = missing[0]
        raise ValueError(
            f"{len(missing)} of {len(pairs)} pairs have no margin, the first {one.chosen!r} over {one.rejected!r} of "
            f"query {one.query!r}. Score the pairs with the reward model first: dvc repro reward_model."
        )
    found: dict[str, list[RankedRow]] = {part: [] for part in DATA_PARTS}
    for query, mine in graph.by_query(pairs).items():
        if len(parts := {pair.split for pair in mine}) > 1:
            raise RecordError(f"The pairs of query {query!r} are in {', '.join(sorted(parts))}; put them in one part.")
        found[mine[0].split].append(_row(asked[query], mine, texts, delta))
    return found
