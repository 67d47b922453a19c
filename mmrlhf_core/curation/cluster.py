"""k-means on all points, block by block, so that the points may stay on disk (arXiv 2502.10391, §2.2: 100 centres).

One pass reads each block once: scores against all centres are one matrix product, and only points that changed their
cluster touch the sums. Shapes: N points, D features, k centres.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from mmrlhf_core.models.policy import device

BLOCK = 4_096  # points in work at a time: their values stay in the cache


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
    for start in range(0, len(x), block):
        length = np.linalg.norm(x[start : start + block].astype(np.float32), axis=1)
        bad = np.flatnonzero(~np.isfinite(length) | (length == 0))
        if len(bad):
            kind = "length zero" if length[bad[0]] == 0 else "NaN or infinity"
            raise ValueError(f"Point {start + bad[0]} has {kind}. Set its row aside with a reason before this step.")


def blocks(x: np.ndarray, size: int = BLOCK) -> Iterator[tuple[slice, torch.Tensor]]:
    """(rows, their values on the device) of `x`, which may be memory-mapped."""
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        yield rows, torch.from_numpy(np.array(x[rows])).to(device())


def precision() -> torch.dtype:
    """bfloat16 on an accelerator, where matrix units make it several times faster; float32 on the CPU."""
    return torch.float32 if device().type == "cpu" else torch.bfloat16


def nearest(x: np.ndarray, centres: np.ndarray, n: int, dtype: torch.dtype | None = None) -> np.ndarray:
    """[N, n] int32, the `n` nearest centres of every point, nearest first."""
    dtype = dtype or precision()
    c = torch.from_numpy(centres).to(device())
    half, c = (c * c).sum(1) / 2, c.to(dtype).T.contiguous()
    found = np.empty((len(x), n), np.int32)
    for rows, block in blocks(x):
        found[rows] = (block.to(dtype) @ c).float().sub_(half).topk(n, 1).indices.int().cpu().numpy()
    return found


class _State(NamedTuple):
    """What one pass changes: labels [N] (-1 at first), distance2 [N], squared lengths [N], sums [k, D], counts [k]."""

    labels: np.ndarray
    distance2: np.ndarray
    length2: np.ndarray
    sums: torch.Tensor
    counts: np.ndarray


def _start(n: int, d: int, k: int) -> _State:
    zeros = np.zeros(n, np.float32)
    sums = torch.zeros(k, d, dtype=torch.float64, device=device())
    return _State(np.full(n, -1, np.int32), zeros, np.full(n, np.nan, np.float32), sums, np.zeros(k, np.int64))


def _pass(x: np.ndarray, centres: torch.Tensor, state: _State, dtype: torch.dtype) -> tuple[float, int]:
    """Assign every point to its nearest centre and keep the sums up to date; (inertia, points that moved).

    |x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2), so the nearest centre has the largest score in brackets.
    """
    c, moved_in_all = centres.to(dtype).T.contiguous(), 0
    minus = (-(centres * centres).sum(1) / 2).to(dtype)
    wide = torch.empty(BLOCK, x.shape[1], dtype=dtype, device=c.device)
    scores = torch.empty(BLOCK, len(centres), dtype=dtype, device=c.device)
    for rows, block in blocks(x):
        n = len(block)
        if np.isnan(state.length2[rows.start]):
            state.length2[rows] = torch.linalg.vector_norm(block.float(), dim=1).square().cpu().numpy()
        score, label = torch.addmm(minus, wide[:n].copy_(block), c, out=scores[:n]).float().max(1)
        label = label.int().cpu().numpy()
        state.distance2[rows] = np.maximum(state.length2[rows] - 2 * score.cpu().numpy(), 0)
        moved = np.flatnonzero(label != state.labels[rows])
        if len(moved):
            _move(state, rows.start + moved, label[moved], block[torch.from_numpy(moved).to(block.device)])
        moved_in_all += len(moved)
    return float(state.distance2.sum(dtype=np.float64)), moved_in_all


def _move(state: _State, points: np.ndarray, label: np.ndarray, values: torch.Tensor) -> None:
    """Take `points` with these values [M, D] out of their old clusters, if they had one, and into the new ones."""
    old, k, change = state.labels[points], len(state.counts), torch.zeros_like(state.sums, dtype=torch.float32)
    had, values = old >= 0, values.float()
    change.index_add_(0, torch.from_numpy(label).to(values.device), values)
    if had.any():
        left = values if had.all() else values[torch.from_numpy(had).to(values.device)]
        change.index_add_(0, torch.from_numpy(old[had]).to(values.device), left, alpha=-1)
    state.sums.add_(change)
    state.counts[:] += np.bincount(label, minlength=k) - np.bincount(old[had], minlength=k)
    state.labels[points] = label


def _refill(x: np.ndarray, state: _State) -> None:
    """Give every empty cluster the point that is farthest from its own centre; none when all points sit on theirs."""
    for empty in np.flatnonzero(state.counts == 0):
        far = int(np.argmax(state.distance2))
        if state.distance2[far] == 0:
            return
        value = torch.from_numpy(np.array(x[far : far + 1])).to(state.sums.device)
        _move(state, np.array([far]), np.array([empty], np.int32), value)
        state.distance2[far] = 0


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
    `seed` without replacement, and all points are assigned to them in the end. `start` [k, D] replaces the random
    points. The same points in the same order, seed and thread count give the same result.
    """
    n, dtype = len(x), dtype or precision()
    fitted = min(sample or n, n)
    if not 1 <= k <= fitted:
        raise ValueError(f"{k} centres were asked of {fitted} points. Give 1 to {fitted} centres, or more points.")
    rng = np.random.default_rng(seed)
    part = x if fitted == n else np.array(x[np.sort(rng.choice(n, fitted, replace=False))])
    if start is None:
        start = part[np.sort(rng.choice(fitted, k, replace=False))]
    centres = torch.from_numpy(np.array(start, np.float32)).to(device())
    state, history = _start(fitted, x.shape[1], k), []
    for _ in range(iterations):
        inertia, moved = _pass(part, centres, state, dtype)
        history.append(inertia)
        if not moved:
            return _result(x, part, centres, state, history, dtype)
        _refill(part, state)
        filled = torch.from_numpy(state.counts > 0).to(centres.device)
        counts = torch.from_numpy(np.maximum(state.counts, 1)).to(centres.device)
        centres = torch.where(filled[:, None], state.sums / counts[:, None], centres.double()).float()
    if part is x:
        history.append(_pass(x, centres, state, dtype)[0])
    return _result(x, part, centres, state, history, dtype)


def _result(
    x: np.ndarray, part: np.ndarray, centres: torch.Tensor, state: _State, history: list[float], dtype: torch.dtype
) -> Clusters:
    """The clusters of all points; one more pass over all of them when the centres come from a part."""
    if part is not x:
        state = _start(len(x), x.shape[1], len(centres))
        history.append(_pass(x, centres, state, dtype)[0])
    return Clusters(centres.cpu().numpy(), state.labels, state.distance2, tuple(history))
