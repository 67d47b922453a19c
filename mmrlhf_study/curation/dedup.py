"""Near-duplicate pictures, and queries that ask the same about them.

Two pictures are near-duplicates when the cosine of their embeddings reaches a threshold and their thumbnails agree too,
because an embedding says what is in a picture and not which picture it is. Pairs are searched in a partition that is
finer than the clusters of sampling: a pair is found when the home cell of one picture is among the `probes` nearest
cells of the other. Up to `EXACT` pictures there is one cell, and the search is exact.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import faiss
import numpy as np
import torch
from PIL import Image

from mmrlhf_core.data import storage
from mmrlhf_core.data.records import Query
from mmrlhf_study.curation import cluster

EXACT = 20_000  # pictures of which each is compared with all others
PER_CELL = 100  # pictures per cell that the partition is fitted to
SIMILARITIES_HELD = 2_048  # pictures searched for at a time
THUMB = 8  # pixels per side of a thumbnail


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
    home = np.zeros((len(x), 1), np.int32)
    if cells > 1:
        centres, _ = cluster.fit(x, cells, seed, iterations=6, sample=min(len(x), PER_CELL * cells))
        home = cluster.nearest(x, centres, min(probes, cells))
    keys = [key for members, visitors in _cells(home, cells) for key in _keys(x, members, visitors, threshold)]
    keys = np.unique(np.concatenate(keys)) if keys else np.empty(0, np.int64)
    return np.stack([keys // len(x), keys % len(x)], 1)


def _cells(home: np.ndarray, cells: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(pictures that live in a cell, pictures that have it among their other probes) for every cell."""
    probes = home.shape[1]
    order = np.argsort(home.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(home.ravel(), minlength=cells))
    for entry in np.split(order, ends[:-1]):
        yield entry[entry % probes == 0] // probes, entry[entry % probes > 0] // probes


def _rows(x: np.ndarray, index: np.ndarray) -> torch.Tensor:
    """Rows of `x` in float32, with length one."""
    return torch.nn.functional.normalize(torch.from_numpy(np.asarray(x[index])).float(), dim=1)


def _keys(x: np.ndarray, members: np.ndarray, visitors: np.ndarray, threshold: float) -> Iterator[np.ndarray]:
    """Keys i * N + j (i < j) of near pairs between members, and between members and visitors, block by block."""
    faiss.omp_set_num_threads(torch.get_num_threads())
    index, both = faiss.IndexFlatIP(x.shape[1]), np.concatenate([members, visitors])
    index.add(_rows(x, members).numpy())
    above = float(np.nextafter(np.float32(threshold), np.float32(0)))  # faiss leaves out what equals its threshold
    for start in range(0, len(both) * bool(len(members)), SIMILARITIES_HELD):
        rows = both[start : start + SIMILARITIES_HELD]
        ends, _, place = index.range_search(_rows(x, rows).numpy(), above)
        i, j = np.repeat(rows, np.diff(ends.astype(np.int64))), members[place]
        apart = i != j
        yield np.minimum(i, j)[apart] * len(x) + np.maximum(i, j)[apart]


def thumbnail(picture: Image.Image) -> np.ndarray:
    """[3 * THUMB^2] float32 of length one: the picture shrunk, each colour minus its mean; zeros for a blank one.

    So tint and contrast have no effect, and noise and lossy saving little.
    """
    small = np.asarray(picture.convert("RGB").resize((THUMB, THUMB), Image.Resampling.BOX), np.float32).reshape(-1, 3)
    flat = (small - small.mean(0)).ravel()
    return flat / max(float(np.linalg.norm(flat)), 1.0)


def agreement(pairs: np.ndarray, pictures: Sequence[str], media: str | Path) -> np.ndarray:
    """[P] correlation of the thumbnails of each pair; only pictures of a pair are opened."""
    places = np.unique(pairs)
    thumbs = np.zeros((len(places), 3 * THUMB**2), np.float32)
    for row, place in enumerate(places):
        with Image.open(storage.inside(storage.path(media), pictures[place])) as picture:
            thumbs[row] = thumbnail(picture)
    left, right = (np.searchsorted(places, side) for side in pairs.T)
    return np.einsum("pd,pd->p", thumbs[left], thumbs[right])


def pair_cosines(x: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """[P] cosine of each pair of rows of `x`."""
    left, right = (_rows(x, side) for side in pairs.T)
    return (left * right).sum(1).cpu().numpy()


def neighbours(pictures: Sequence[str], pairs: np.ndarray) -> dict[str, set[str]]:
    """For each picture with near-duplicates, their names; `pairs` [P, 2] holds places in `pictures`."""
    near: dict[str, set[str]] = defaultdict(set)
    for i, j in pairs.tolist():
        near[pictures[i]].add(pictures[j])
        near[pictures[j]].add(pictures[i])
    return dict(near)


def keep_first(queries: Iterable[Query], near: Mapping[str, set[str]]) -> dict[str, str]:
    """Which queries to drop: id of the query -> id of the kept query that it repeats.

    Queries are visited in the order of their ids. One is dropped when a query kept before asks the same (case and
    spaces ignored) about as many pictures, and both the first and the last of them are the same or near-duplicates; a
    single picture is first and last. So no two kept queries repeat each other, every dropped one repeats a kept one
    directly and not through a chain, and the order of `queries` does not matter. The same picture with another question
    is kept, because it needs another answer.
    """
    kept: dict[tuple[str, int, str], list[Query]] = defaultdict(list)
    dropped = {}
    for query in sorted(queries, key=lambda query: query.id):
        text, (first, last) = " ".join(query.prompt.lower().split()), (query.media[0], query.media[-1])
        rivals = (r for name in (first, *near.get(first, ())) for r in kept.get((text, len(query.media), name), ()))
        alike = [r.id for r in rivals if r.media[-1] == last or r.media[-1] in near.get(last, ())]
        if alike:
            dropped[query.id] = min(alike)
        else:
            kept[text, len(query.media), first].append(query)
    return dropped


def planted_shares(queries: Sequence[Query], dropped: Mapping[str, str]) -> tuple[int, int, int]:
    """(planted near-duplicates that were dropped, planted ones, drops that join two queries of one origin).

    The recall is the first over the second, the precision the last over all drops. A query's origin is the one it is
    planted after, or itself.
    """
    origin = {query.id: query.plant or query.id for query in queries}
    planted = [query.id for query in queries if query.plant]
    right = sum(origin[gone] == origin[kept] for gone, kept in dropped.items())
    return sum(name in dropped for name in planted), len(planted), right
