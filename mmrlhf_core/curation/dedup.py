"""Near-duplicate pictures, and queries that ask the same about them.

Two pictures are near-duplicates when the cosine of their embeddings reaches a threshold. They are looked for in a
partition of its own, finer than the clusters that sampling uses: a pair is found when one of the two has its home cell
among the other's `probes` nearest cells. Up to `EXACT` pictures there is one cell, and the search is exact.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch

from mmrlhf_core.curation import cluster
from mmrlhf_core.models.policy import device
from mmrlhf_core.records import Query

EXACT = 20_000  # pictures that are compared one with all others
PER_CELL = 100  # pictures per cell that the partition is fitted to
SIDE = 2_048  # rows and columns of similarities held at a time


def cells_for(n: int) -> int:
    """Cells of the partition for `n` pictures: one up to EXACT, then the square root of n."""
    return 1 if n <= EXACT else round(n**0.5)


def near_pairs(x: np.ndarray, threshold: float, probes: int, seed: int, cells: int = 0) -> np.ndarray:
    """[P, 2] int64, all pairs i < j found with cosine(x[i], x[j]) >= `threshold`, in rising order.

    `x` [N, D] may be memory-mapped; no row may be zero. `cells` 0 means `cells_for(N)`.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"A cosine threshold of {threshold} is not usable. Give one above 0 and at most 1.")
    cells = cells or cells_for(len(x))
    probes = min(probes, cells)
    home = np.zeros((len(x), 1), np.int32)
    if cells > 1:
        fitted = cluster.kmeans(x, cells, seed, iterations=6, sample=min(len(x), PER_CELL * cells))
        home = cluster.nearest(x, fitted.centres, probes)
    found = [pair for members, visitors in _cells(home, cells) for pair in _pairs(x, members, visitors, threshold)]
    if not found:
        return np.empty((0, 2), np.int64)
    keys = np.unique(np.concatenate(found))
    return np.stack([keys // len(x), keys % len(x)], 1)


def _cells(home: np.ndarray, cells: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(pictures that live in a cell, pictures that have it among their other probes) for every cell."""
    probes = home.shape[1]
    order = np.argsort(home.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(home.ravel(), minlength=cells))
    for entry in np.split(order, ends[:-1]):
        yield entry[entry % probes == 0] // probes, entry[entry % probes > 0] // probes


def _rows(x: np.ndarray, index: np.ndarray) -> torch.Tensor:
    """Rows of `x` on the device in float32, with length one."""
    return torch.nn.functional.normalize(torch.from_numpy(np.asarray(x[index], np.float32)).to(device()), dim=1)


def _pairs(x: np.ndarray, members: np.ndarray, visitors: np.ndarray, threshold: float) -> Iterator[np.ndarray]:
    """Keys i * N + j (i < j) of near pairs between members, and between members and visitors, block by block."""
    both, n = np.concatenate([members, visitors]), len(x)
    for left in range(0, len(members), SIDE):
        a = _rows(x, members[left : left + SIDE])
        for right in range(left, len(both), SIDE):
            b = _rows(x, both[right : right + SIDE]) if right != left or len(visitors) else a
            hits = (a @ b.T >= threshold).nonzero().cpu().numpy()
            i, j = members[left + hits[:, 0]], both[right + hits[:, 1]]
            apart = i != j
            low, high = np.minimum(i, j)[apart], np.maximum(i, j)[apart]
            if len(low):
                yield low * n + high


def neighbours(pictures: Sequence[str], pairs: np.ndarray) -> dict[str, set[str]]:
    """For each picture with near-duplicates, their names; `pairs` [P, 2] holds places in `pictures`."""
    near: dict[str, set[str]] = defaultdict(set)
    for i, j in pairs.tolist():
        near[pictures[i]].add(pictures[j])
        near[pictures[j]].add(pictures[i])
    return dict(near)


def keep_first(queries: Iterable[Query], near: Mapping[str, set[str]]) -> dict[str, str]:
    """Which queries to drop: id of the query -> id of the kept query that it repeats.

    Queries are met in the order of their ids. One is dropped when a query kept before asks the same (case and spaces
    aside) about as many pictures, and both the first and the last of them are the same or near-duplicates; a picture
    alone is first and last. So no two kept queries repeat each other, every dropped one repeats a kept one directly
    and not through a chain, and the order of `queries` changes nothing. The same picture with another question is
    kept: what is learned from a query is an answer, and another question has another answer.
    """
    kept: dict[tuple[str, int, str], list[Query]] = defaultdict(list)
    dropped = {}
    for query in sorted(queries, key=lambda query: query.id):
        asked, (first, last) = " ".join(query.prompt.lower().split()), (query.media[0], query.media[-1])
        rivals = (r for name in (first, *near.get(first, ())) for r in kept.get((asked, len(query.media), name), ()))
        alike = [r.id for r in rivals if r.media[-1] == last or r.media[-1] in near.get(last, ())]
        if alike:
            dropped[query.id] = min(alike)
        else:
            kept[asked, len(query.media), first].append(query)
    return dropped


def found_share(truth: Iterable[tuple[str, str]], found: Iterable[tuple[str, str]]) -> tuple[int, int, int]:
    """(pairs in both, pairs in `truth`, pairs in `found`); the order within a pair does not count."""
    a, b = ({tuple(sorted(pair)) for pair in pairs} for pairs in (truth, found))
    return len(a & b), len(a), len(b)
