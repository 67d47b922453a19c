"""What a way of drawing does to a query set: how much of the pool's variety it holds, and how evenly."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from mmrlhf_core.data.records import Query
from mmrlhf_study.curation import sample


def entropy(counts: Sequence[int]) -> float:
    """Shannon entropy in bits of shares proportional to `counts`; 0 for a single count, log2(n) for n equal ones."""
    total = sum(counts)
    return -sum(n / total * math.log2(n / total) for n in counts if n)


def measures(
    ids: Sequence[str], cells: Mapping[str, str], clusters: Mapping[str, int], possible: int
) -> dict[str, float]:
    """Three measures of a query set. A cell is a topic together with a class.

    `coverage` is the share of `possible` cells with a query in the set, `entropy` is over clusters in bits, `largest`
    is the share of the most frequent cell.
    """
    seen = Counter(cells[name] for name in ids)
    return {
        "coverage": len(seen) / possible,
        "entropy": entropy(list(Counter(clusters[name] for name in ids).values())),
        "largest": max(seen.values()) / len(ids),
    }


def compare(
    queries: Sequence[Query],
    kinds: Mapping[str, str],
    clusters: Mapping[str, int],
    counts: Sequence[Mapping[str, int]],
    seeds: Sequence[int],
) -> pd.DataFrame:
    """Measures of drawing evenly over clusters and of drawing at random, for sets of each composition in `counts`.

    Both ways draw the same number per kind; at random means that all queries count as one cluster. One row per way,
    size and seed.
    """
    cells = {query.id: f"{query.topic} {kinds[query.id]}" for query in queries if kinds[query.id] in counts[0]}
    possible = len(set(cells.values()))
    ways = {"even over clusters": clusters, "at random": dict.fromkeys(clusters, 0)}
    rows = []
    for how, drawn_over in ways.items():
        for wanted in counts:
            for seed in seeds:
                ids = sorted(sample.draw(queries, kinds, drawn_over, wanted, seed))
                values = measures(ids, cells, clusters, possible)
                rows.append({"drawn": how, "queries": len(ids), "seed": seed, **values})
    return pd.DataFrame(rows)


def intervals(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, 2.5 % and 97.5 % quantile over seeds of each measure, per way and size."""
    long = rows.melt(["drawn", "queries", "seed"], var_name="measure")
    groups = long.groupby(["measure", "drawn", "queries"], sort=True)["value"]
    return groups.agg(mean="mean", low=lambda v: v.quantile(0.025), high=lambda v: v.quantile(0.975)).reset_index()
