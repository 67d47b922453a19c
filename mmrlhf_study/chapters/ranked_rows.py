"""From annotated pairs and the reward model's margins to the ranked rows that preference training reads.

Nothing is guessed: a pair that names an unknown query or response, has no margin, or has margins of several reward
models is an error that says which and what to do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

import numpy as np
import torch

from mmrlhf_core.data import graph
from mmrlhf_core.data.records import Pair, Query, Record, RecordError, Response, column
from mmrlhf_core.objectives import preference
from mmrlhf_core.rollout.score import Margin
from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_core.training.losses import Objective

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


def hardest(pairs: Iterable[Pair]) -> list[Pair]:
    """Of each query the pairs with the most ranks between, best against worst.

    Published pairs do not say how many ranks lie between; where they are a whole ranking, it does.
    """
    kept = []
    for mine in graph.by_query(pairs).values():
        order = graph.ranking(mine)
        rank = dict(zip(order.responses, order.ranks, strict=True)) if order else {}
        steps = [rank[pair.rejected] - rank[pair.chosen] if rank else pair.steps for pair in mine]
        kept += [pair for pair, between in zip(mine, steps, strict=True) if between == max(steps)]
    return kept


def sample(rows: Sequence[RankedRow], count: int, seed: int) -> list[RankedRow]:
    """At most `count` rows, drawn at random, in their order; all of them at 0."""
    if not 0 < count < len(rows):
        return list(rows)
    chosen = sorted(Random(f"rows {seed}").sample(range(len(rows)), count))
    return [rows[number] for number in chosen]


def shuffled(rows: Sequence[RankedRow], seed: int) -> list[RankedRow]:
    """The same margins dealt out to other pairs at random: β keeps its distribution and loses its meaning."""
    dealt = iter(np.random.default_rng(seed).permutation([delta for row in rows for delta in row.margins]).tolist())
    return [replace(row, margins=tuple(next(dealt) for _ in row.margins)) for row in rows]


# ---------------------------------------------------------------- β of every pair


@dataclass(frozen=True, slots=True)
class PairBeta(Record):
    """The β that MM-DPO trains one pair with."""

    VERSION: ClassVar[int] = 1

    query: str = column("id of the query", filled=True)
    winner: int = column("number of the better response in the query's ranked row")
    loser: int = column("number of the worse response")
    delta: float = column("the reward model's margin δ")
    beta: float = column("β(δ), §4 of the paper; 0 where the pair is dropped")


def betas(rows: Iterable[RankedRow], o: Objective) -> list[PairBeta]:
    """β(δ) of every pair of the rows, in order, from the function that training uses."""
    found = []
    for row in rows:
        delta = torch.tensor(row.margins, dtype=torch.double)
        beta = preference.dynamic_beta(delta, o.beta_ori, o.w, o.k, o.negative_margin).tolist()
        for values in zip(row.winners, row.losers, row.margins, beta, strict=True):
            found.append(PairBeta(row.id, *values))
    return found
