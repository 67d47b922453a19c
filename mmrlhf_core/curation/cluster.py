"""k-means on all points, block by block, so that the points may stay on disk (arXiv 2502.10391, §2.2: 100 centres).

One pass reads each block once, finds the nearest centre of its points and adds them up. faiss compares points and
centres, in float32. For many points, where the device has matrix units for bfloat16, a matrix product in torch does it
faster while the centres move; the labels and distances of the result are always in float32. `benchmarks/curation.py`
measures both ways. Shapes: N points, D features, k centres.
"""

from collections.abc import Iterator
from typing import NamedTuple

import faiss
import numpy as np
import torch

from mmrlhf_core.models.policy import device

BLOCK = 2_048  # points in work at a time: their values stay in the cache
LARGE = 16_384  # the same for faiss, whose threads and torch's are in each other's way when they take turns too often
MANY = 100_000  # points from which bfloat16 pays; smaller sets give the same result on every device


class Clusters(NamedTuple):
    """Where the points belong."""

    centres: np.ndarray  # [k, D] float32
    labels: np.ndarray  # [N] int32, the nearest centre
    distance2: np.ndarray  # [N] float32, squared distance to it
    inertia: tuple[float, ...]  # sum of squared distances at each pass; the last one is of the result

    def sizes(self) -> np.ndarray:
        """[k] points per centre; a centre without points counts 0."""
        return np.bincount(self.labels, minlength=len(self.centres))


def check(x: np.ndarray, block: int = BLOCK) -> None:
    """Refuse points that are no matrix, hold NaN or infinity, or have length zero."""
    if x.ndim != 2 or not x.shape[1] or x.dtype not in (np.float16, np.float32):
        raise ValueError(f"Points are {x.dtype} of shape {x.shape}. Give float16 or float32 of shape [N, D].")
    for rows, values in blocks(x, block):
        length = torch.linalg.vector_norm(values, dim=1).cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(length) | (length == 0))
        if len(bad):
            kind = "length zero" if length[bad[0]] == 0 else "NaN or infinity"
            raise ValueError(
                f"Point {rows.start + bad[0]} has {kind}. Set its row aside with a reason before this step."
            )


def blocks(x: np.ndarray, size: int = BLOCK) -> Iterator[tuple[slice, torch.Tensor]]:
    """(rows, their values on the device in float32) of `x`, which may be memory-mapped.

    The values hold until the next block: all share one buffer, as new memory for each would cost more than the copy.
    """
    values = torch.empty(min(size, len(x)), x.shape[1], dtype=torch.float32, device=device())
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        raw = x[rows] if x.flags.writeable else np.array(x[rows])  # torch does not share what it must not write
        yield rows, values[: len(raw)].copy_(torch.from_numpy(raw))


def precision(n: int) -> torch.dtype:
    """What `n` points are compared in: bfloat16 for MANY where the device has matrix units for it, else float32."""
    cpu = torch.cpu.get_capabilities()
    units = device().type != "cpu" or cpu.get("avx512_bf16") or cpu.get("amx_bf16")
    return torch.bfloat16 if units and n >= MANY else torch.float32


def _exact(points: torch.Tensor, centres: torch.Tensor, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(squared distance, number) [B, n] of the nearest centres [k, D] of `points` [B, D], nearest first, in float32."""
    if points.device.type == "cpu":
        return faiss.knn(points.numpy(), centres.numpy(), n)
    distance, number = torch.cdist(points, centres).topk(n, 1, largest=False)
    return distance.square().cpu().numpy(), number.cpu().numpy()


def _scores(points: torch.Tensor, centres: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
    """[B, k] p.c - |c|^2 / 2, largest for the nearest centre, to bfloat16; `buffer` takes the points in it."""
    product = torch.mm(buffer[: len(points)].copy_(points), centres.bfloat16().T)
    return product.float().sub_(centres.square().sum(1) / 2)


def _buffer(x: np.ndarray) -> torch.Tensor:
    return torch.empty(min(BLOCK, len(x)), x.shape[1], dtype=torch.bfloat16, device=device())


def nearest(x: np.ndarray, centres: np.ndarray, n: int, dtype: torch.dtype | None = None) -> np.ndarray:
    """[N, n] int32, the `n` nearest centres of every point, nearest first."""
    c, found = torch.from_numpy(centres).to(device()), np.empty((len(x), n), np.int32)
    if (dtype or precision(len(x))) == torch.float32:
        for rows, block in blocks(x, LARGE):
            found[rows] = _exact(block, c, n)[1]
        return found
    buffer = _buffer(x)
    for rows, block in blocks(x):
        found[rows] = _scores(block, c, buffer).topk(n, 1).indices.cpu().numpy()
    return found


def _best(scores: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(largest score, its place) of each row of `scores` [B, k], which is used up.

    Looking for places as well makes `max` several times slower, so each place is written into the last bits of its
    score, far below what bfloat16 tells apart, and read off the largest one.
    """
    bits = (1 << (scores.shape[1] - 1).bit_length()) - 1
    places = torch.arange(scores.shape[1], dtype=torch.int32, device=scores.device)
    scores.view(torch.int32).bitwise_and_(~bits).bitwise_or_(places)
    largest = scores.amax(1)
    return largest.cpu().numpy(), (largest.view(torch.int32) & bits).cpu().numpy()


class _State(NamedTuple):
    """What a pass changes."""

    labels: np.ndarray  # [N], -1 before the first pass
    distance2: np.ndarray  # [N]
    length2: np.ndarray  # [N], squared lengths; NaN until known
    sums: torch.Tensor  # [k, D]
    counts: np.ndarray  # [k]


def _start(n: int, d: int, k: int) -> _State:
    zeros, sums = np.zeros(n, np.float32), torch.zeros(k, d, device=device())
    return _State(np.full(n, -1, np.int32), zeros, np.full(n, np.nan, np.float32), sums, np.zeros(k, np.int64))


def _pass(x: np.ndarray, centres: torch.Tensor, state: _State, dtype: torch.dtype) -> int:
    """Assign every point to its nearest centre and move those that changed it from sum to sum; how many did.

    |x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2), so the nearest centre has the largest score in brackets.
    """
    total, buffer, first = 0, _buffer(x), not state.counts.any()
    gathered = torch.empty(
        min(LARGE, len(x)), x.shape[1], device=centres.device
    )  # new memory would cost more than the sums
    for rows, block in blocks(x, LARGE if dtype == torch.float32 else BLOCK):
        if dtype == torch.float32:
            state.distance2[rows], label = (found[:, 0] for found in _exact(block, centres, 1))
        else:
            if np.isnan(state.length2[rows.start]):
                state.length2[rows] = torch.linalg.vector_norm(block, dim=1).square().cpu().numpy()
            score, label = _best(_scores(block, centres, buffer))
            state.distance2[rows] = np.maximum(state.length2[rows] - 2 * score, 0)
        moved = np.flatnonzero(label != state.labels[rows])
        if len(moved):
            where = torch.from_numpy(moved).to(block.device)
            points = torch.index_select(block, 0, where, out=gathered[: len(moved)])
            state.sums.index_add_(0, torch.from_numpy(label[moved]).to(block.device), points)
            if not first:
                old = torch.from_numpy(state.labels[rows][moved]).to(block.device)
                state.sums.index_add_(0, old, points, alpha=-1)
            state.labels[rows], total = label, total + len(moved)
    state.counts[:] = np.bincount(state.labels, minlength=len(centres))
    return total


def _refill(x: np.ndarray, state: _State) -> None:
    """Give every empty cluster the point that is farthest from its own centre; none when all points sit on theirs."""
    for empty in np.flatnonzero(state.counts == 0):
        far = int(np.argmax(state.distance2))
        if state.distance2[far] == 0:
            return
        value = torch.from_numpy(x[far].astype(np.float32)).to(state.sums.device)
        state.sums[state.labels[far]] -= value
        state.sums[empty] += value
        state.counts[[state.labels[far], empty]] += (-1, 1)
        state.labels[far], state.distance2[far] = empty, 0


def fit(
    x: np.ndarray,
    k: int,
    seed: int,
    iterations: int = 25,
    sample: int = 0,
    dtype: torch.dtype | None = None,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, list[float]]:
    """(centres [k, D] float32, inertia at each pass) of Lloyd's k-means; the arguments are those of `kmeans`."""
    n = min(sample or len(x), len(x))
    if not 1 <= k <= n:
        raise ValueError(f"{k} centres were asked of {n} points. Give 1 to {n} centres, or more points.")
    rng, dtype = np.random.default_rng(seed), dtype or precision(n)
    x = x if n == len(x) else np.array(x[np.sort(rng.choice(len(x), n, replace=False))])
    if start is None:
        start = x[np.sort(rng.choice(n, k, replace=False))]
    centres = torch.from_numpy(np.array(start, np.float32)).to(device())
    state, history = _start(n, x.shape[1], k), []
    for _ in range(iterations):
        moved = _pass(x, centres, state, dtype)
        history.append(float(state.distance2.sum(dtype=np.float64)))
        if not moved:
            break
        _refill(x, state)
        counts = torch.from_numpy(state.counts).to(centres.device)[:, None]
        centres = torch.where(counts > 0, state.sums / counts.clamp(min=1), centres)
    return centres.cpu().numpy(), history


def kmeans(
    x: np.ndarray,
    k: int,
    seed: int,
    iterations: int = 25,
    sample: int = 0,
    dtype: torch.dtype | None = None,
    start: np.ndarray | None = None,
) -> Clusters:
    """Lloyd's k-means from `k` random points, until no point moves or after `iterations` updates.

    All N points of `x` [N, D] are used unless `sample` > 0: then centres are fitted to that many rows, drawn with
    `seed` without replacement. All points are assigned to the centres in the end. `start` [k, D] replaces the random
    points. The same points in the same order, seed and thread count give the same result.
    """
    centres, history = fit(x, k, seed, iterations, sample, dtype, start)
    labels, distance2 = np.empty(len(x), np.int32), np.empty(len(x), np.float32)
    on_device = torch.from_numpy(centres).to(device())
    for rows, block in blocks(x, LARGE):
        distance2[rows], labels[rows] = (found[:, 0] for found in _exact(block, on_device, 1))
    return Clusters(centres, labels, distance2, (*history, float(distance2.sum(dtype=np.float64))))
