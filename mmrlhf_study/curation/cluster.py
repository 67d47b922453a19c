"""k-means on all points, block by block, so that the points may stay on disk (arXiv 2502.10391, §2.2: 100 centres).

One pass finds the nearest centre of every point and moves the points that changed theirs from sum to sum. faiss
compares points and centres, in float32. For many points a matrix product in torch does it faster while the centres
move: in bfloat16 where the device has matrix units for it, and after the first pass in whole numbers of 8 bits where
the processor multiplies those. Sums are of the points as they are, labels and distances of the result in float32.
`benchmarks/curation.py` measures it against others. Shapes: N points, D features, k centres.
"""

from collections.abc import Iterator
from typing import NamedTuple

import faiss
import numpy as np
import torch

from mmrlhf_core.models.policy import device

BLOCK = 4_096  # points in work at a time: their values stay in the cache
LARGE = 16_384  # the same for faiss, whose threads and torch's are in each other's way when they take turns too often
MANY = 100_000  # points from which fewer bits pay; smaller sets give the same result on every device
MOST = 127  # largest whole number of 8 bits


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


def _units(*names: str) -> bool:
    return any(torch.cpu.get_capabilities().get(name) for name in names)


def precision(n: int) -> torch.dtype:
    """What `n` points are compared in: bfloat16 for MANY where the device has matrix units for it, else float32."""
    units = device().type != "cpu" or _units("avx512_bf16", "amx_bf16")
    return torch.bfloat16 if units and n >= MANY else torch.float32


def fastest(n: int) -> torch.dtype:
    """The same for many passes: whole numbers of 8 bits for MANY where the processor multiplies them at once."""
    whole = device().type == "cpu" and n >= MANY and _units("avx512_vnni", "amx_int8")
    return torch.int8 if whole else precision(n)


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


class _Whole(NamedTuple):
    """Points in whole numbers, nearly `mean` + `step` * `values`, once a pass has taken them all."""

    values: torch.Tensor  # [N, D] int8
    mean: torch.Tensor  # [D]
    step: float
    length2: np.ndarray  # [N], squared distances to the mean

    def take(self, rows: slice, points: torch.Tensor) -> None:
        """Keep these points, which are used up."""
        points.sub_(self.mean)
        self.length2[rows] = torch.linalg.vector_norm(points, dim=1).square().numpy()
        self.values[rows] = points.mul_(1 / self.step).round_().clamp_(-MOST, MOST)


def _whole(x: np.ndarray) -> _Whole:
    """Room for the points; mean and step are those of LARGE points, evenly spread."""
    part = torch.from_numpy(np.array(x[:: -(-len(x) // LARGE)])).float()
    mean = part.mean(0)
    step = float(part.sub_(mean).abs().max()) / MOST or 1.0
    return _Whole(torch.zeros(x.shape, dtype=torch.int8), mean, step, np.empty(len(x), np.float32))


Found = Iterator[tuple[slice, np.ndarray, np.ndarray]]  # rows, squared distance to the nearest centre, its number


def _exactly(x: np.ndarray, centres: torch.Tensor, whole: _Whole | None = None) -> Found:
    """The nearest centre of every point in float32; `whole` takes the points in passing."""
    for rows, block in blocks(x, LARGE):
        yield rows, *(found[:, 0] for found in _exact(block, centres, 1))
        if whole:
            whole.take(rows, block)


def _roughly(x: np.ndarray, centres: torch.Tensor, whole: _Whole | None = None) -> Found:
    """To bfloat16: |p - c|^2 = |p|^2 - 2 (p.c - |c|^2 / 2), so the nearest centre has the largest score in brackets."""
    buffer = _buffer(x)
    for rows, block in blocks(x):
        length2 = torch.linalg.vector_norm(block, dim=1).square().cpu().numpy()
        score, label = _best(_scores(block, centres, buffer))
        yield rows, np.maximum(length2 - 2 * score, 0), label
        if whole:
            whole.take(rows, block)


def _wholly(points: _Whole, centres: torch.Tensor) -> Found:
    """The same scores in whole numbers."""
    centres = centres - points.mean
    step = float(centres.abs().max()) / MOST or 1.0
    unit = points.step * step  # what a score of 1 stands for
    numbers = (centres / step).round().to(torch.int8).T
    half = (centres.square().sum(1) / 2 / unit).clamp(max=2**30).int()
    for start in range(0, len(points.values), BLOCK):
        rows = slice(start, min(start + BLOCK, len(points.values)))
        score, label = torch._int_mm(points.values[rows], numbers).sub_(half).max(1)
        yield rows, np.maximum(points.length2[rows] - 2 * unit * score.numpy(), 0), label.numpy()


class _State(NamedTuple):
    """What a pass changes."""

    labels: np.ndarray  # [N], -1 before the first pass
    distance2: np.ndarray  # [N]
    sums: torch.Tensor  # [k, D]
    counts: np.ndarray  # [k]


def _start(n: int, d: int, k: int) -> _State:
    sums = torch.zeros(k, d, device=device())
    return _State(np.full(n, -1, np.int32), np.zeros(n, np.float32), sums, np.zeros(k, np.int64))


def _pass(x: np.ndarray, found: Found, state: _State) -> int:
    """Take what was found for every point and move those that changed their centre from sum to sum; how many did."""
    total, first, sums = 0, not state.counts.any(), state.sums
    gathered = torch.empty(min(LARGE, len(x)), x.shape[1], device=sums.device)  # one for all: new memory is slow
    for rows, state.distance2[rows], label in found:
        moved = np.flatnonzero(label != state.labels[rows])
        if len(moved):
            points = gathered[: len(moved)].copy_(torch.from_numpy(x[rows][moved]))
            sums.index_add_(0, torch.from_numpy(label[moved]).to(sums.device), points)
            if not first:
                sums.index_add_(0, torch.from_numpy(state.labels[rows][moved]).to(sums.device), points, alpha=-1)
            state.labels[rows], total = label, total + len(moved)
    state.counts[:] = np.bincount(state.labels, minlength=len(state.counts))
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
    whole = _whole(x) if dtype == torch.int8 else None
    way = _exactly if (precision(n) if whole else dtype) == torch.float32 else _roughly
    for turn in range(iterations):
        found = _wholly(whole, centres) if whole and turn else way(x, centres, whole)
        moved = _pass(x, found, state)
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
    dtype = dtype or fastest(min(sample or len(x), len(x)))
    centres, history = fit(x, k, seed, iterations, sample, dtype, start)
    labels, distance2 = np.empty(len(x), np.int32), np.empty(len(x), np.float32)
    on_device = torch.from_numpy(centres).to(device())
    for rows, nearest2, label in _exactly(x, on_device):
        distance2[rows], labels[rows] = nearest2, label
    return Clusters(centres, labels, distance2, (*history, float(distance2.sum(dtype=np.float64))))
