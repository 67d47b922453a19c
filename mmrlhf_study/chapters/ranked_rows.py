"""Variants of the ranked rows for the experiments, and the β that MM-DPO trains every pair with."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

import numpy as np
import torch

from mmrlhf_core.data import graph
from mmrlhf_core.data.records import Pair, Record, column
from mmrlhf_core.objectives import preference
from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_core.training.losses import Objective


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
