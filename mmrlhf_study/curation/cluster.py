"""k-means with faiss (arXiv 2502.10391, §2.2: 100 centres). Shapes: N points, D features, k centres.

faiss fits the centres to points in memory, in float32: give `sample` where 4 N D bytes are too many. An earlier version
had an update loop of its own, with fewer bits; its updates at 1 M x 512 took a quarter of scikit-learn's time.
"""

from collections.abc import Iterator
from typing import NamedTuple

import faiss
import numpy as np
import torch

BLOCK = 16_384  # points in work at a time


class Clusters(NamedTuple):
    """Where the points belong."""

    centres: np.ndarray  # [k, D] float32
    labels: np.ndarray  # [N] int32, the nearest centre
    distance2: np.ndarray  # [N] float32, squared distance to it
    inertia: tuple[float, ...]  # sum of squared distances at each update, and of all points at the end

    def sizes(self) -> np.ndarray:
        """[k] points per centre; a centre without points counts 0."""
        return np.bincount(self.labels, minlength=len(self.centres))


def blocks(x: np.ndarray, size: int = BLOCK) -> Iterator[tuple[slice, np.ndarray]]:
    """(rows, their values in float32) of `x`, which may be memory-mapped."""
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        yield rows, np.asarray(x[rows], np.float32)


def check(x: np.ndarray, block: int = BLOCK) -> None:
    """Refuse points that are not a matrix, hold NaN or infinity, or have length zero."""
    if x.ndim != 2 or not x.shape[1] or x.dtype not in (np.float16, np.float32):
        raise ValueError(f"Points are {x.dtype} of shape {x.shape}. Give float16 or float32 of shape [N, D].")
    for rows, values in blocks(x, block):
        length = np.linalg.norm(values, axis=1)
        bad = np.flatnonzero(~np.isfinite(length) | (length == 0))
        if len(bad):
            kind = "length zero" if length[bad[0]] == 0 else "NaN or infinity"
            raise ValueError(f"Point {rows.start + bad[0]} has {kind}. Remove its row with a reason before this step.")


def _search(x: np.ndarray, centres: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(numbers [N, n], squared distances [N, n]) of the `n` nearest centres of every point, nearest first."""
    faiss.omp_set_num_threads(torch.get_num_threads())
    labels, distance2 = np.empty((len(x), n), np.int32), np.empty((len(x), n), np.float32)
    for rows, values in blocks(x):
        distance2[rows], labels[rows] = faiss.knn(values, centres, n)
    return labels, distance2


def nearest(x: np.ndarray, centres: np.ndarray, n: int) -> np.ndarray:
    """[N, n] int32, the `n` nearest centres of every point, nearest first."""
    return _search(x, centres, n)[0]


def fit(
    x: np.ndarray, k: int, seed: int, iterations: int = 25, sample: int = 0, start: np.ndarray | None = None
) -> tuple[np.ndarray, list[float]]:
    """(centres [k, D] float32, inertia at each update) of Lloyd's k-means; the arguments are those of `kmeans`."""
    n = min(sample or len(x), len(x))
    if not 1 <= k <= n:
        raise ValueError(f"{k} centres cannot be fitted to {n} points. Ask for 1 to {n} centres, or give more points.")
    if n < len(x):
        x = x[np.sort(np.random.default_rng(seed).choice(len(x), n, replace=False))]
    faiss.omp_set_num_threads(torch.get_num_threads())
    bounds = {"min_points_per_centroid": 1, "max_points_per_centroid": n}  # of these faiss would warn or take fewer
    fitted = faiss.Kmeans(x.shape[1], k, niter=iterations, seed=seed, **bounds)
    fitted.train(x, init_centroids=start)
    return fitted.centroids, fitted.obj.tolist()


def kmeans(
    x: np.ndarray, k: int, seed: int, iterations: int = 25, sample: int = 0, start: np.ndarray | None = None
) -> Clusters:
    """Lloyd's k-means from `k` random points, until the centres rest or after `iterations` updates.

    All N points of `x` [N, D] are used unless `sample` > 0: then centres are fitted to that many rows, drawn with
    `seed` without replacement. In the end all points are assigned to their nearest centres. `start` [k, D] replaces
    the random points. An empty cluster gets half of another one's points; it stays empty where points are too few or
    too much alike. The same points in the same order and the same seed give the same result.
    """
    centres, history = fit(x, k, seed, iterations, sample, start)
    labels, distance2 = _search(x, centres, 1)
    return Clusters(centres, labels[:, 0], distance2[:, 0], (*history, float(distance2.sum(dtype=np.float64))))
