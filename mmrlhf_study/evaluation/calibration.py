"""Calibration of a reward model: reliability, calibration error, accuracy by size of the margin.

The confidence of a pair is σ(|r_w − r_l|), the model's probability that its higher-scored response is the better one
(eq. 3). A tie has confidence ½ and counts half right in the calibration, but wrong in ACC. Intervals are 95 %, from a
bootstrap over queries. Shapes: n pairs, Q queries.
"""

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd

from mmrlhf_study.chapters.intervals import Estimate, bootstrap
from mmrlhf_study.evaluation.reward_bench import Scores


def confidence(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Confidence [n] from ½ to 1, and correctness [n]: 1, 0, or ½ for a tie."""
    values = np.asarray(scores, float).reshape(-1, 2)
    if not len(values) or not np.isfinite(values).all():
        bad = (~np.isfinite(values)).any(1).sum()
        raise ValueError(f"{bad} of {len(values)} pairs have a score that is not finite; score them again.")
    gap = values[:, 0] - values[:, 1]
    return 1 / (1 + np.exp(-np.abs(gap))), (np.sign(gap) + 1) / 2


def _sums(groups: np.ndarray, count: int, columns: Sequence[np.ndarray], clusters: Sequence[Hashable]) -> np.ndarray:
    """Sums of each column (and the number of pairs) of each group and cluster, [Q, count, 1 + columns]."""
    if len(clusters) != len(groups):
        raise ValueError(f"{len(groups)} pairs and {len(clusters)} clusters; give the query of each pair.")
    code = pd.factorize(np.asarray(clusters))[0]
    sums = np.zeros((code.max() + 1, count, 1 + len(columns)))
    for place, column in enumerate((np.ones(len(groups)), *columns)):
        np.add.at(sums[:, :, place], (code, groups), column)
    return sums


def _rate(sums: np.ndarray, column: int) -> np.ndarray:
    """Mean of a column per group; NaN where a group is empty."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., column] / sums[..., 0]


def _rates(sums: np.ndarray, column: int, draws: int, seed: int) -> Estimate:
    """The mean of a column per group with its interval, each [groups]."""
    count, width = sums.shape[1:]

    def statistic(flat: np.ndarray) -> np.ndarray:
        return _rate(flat.reshape(*flat.shape[:-1], count, width), column)

    return bootstrap(sums.reshape(len(sums), -1), statistic, draws, seed)


def _bins(scores: Scores, clusters: Sequence[Hashable], bins: int) -> np.ndarray:
    """Per query and bin: pairs, summed confidence, summed correctness. [Q, bins, 3]."""
    sure, right = confidence(scores)
    place = np.minimum(((sure - 0.5) * 2 * bins).astype(int), bins - 1)
    return _sums(place, bins, (sure, right), clusters)


def _groups(columns: dict[str, object], sums: np.ndarray, column: int, draws: int, seed: int) -> pd.DataFrame:
    """One row per non-empty group: `columns`, the number of pairs, and the mean of a column of `sums`."""
    share = _rates(sums, column, draws, seed)
    columns = columns | {"pairs": sums.sum(0)[:, 0].astype(int)}
    rows = pd.DataFrame(columns | {"accuracy": share.value, "low": share.low, "high": share.high})
    return rows[rows.pairs > 0].reset_index(drop=True)


def reliability(
    scores: Scores, clusters: Sequence[Hashable], bins: int = 10, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """One row per non-empty bin of confidence: range, pairs, mean confidence, accuracy with interval."""
    sums = _bins(scores, clusters, bins)
    ends = 0.5 + np.arange(bins + 1) / (2 * bins)
    columns = {"from": ends[:-1], "to": ends[1:], "pairs": None, "confidence": _rate(sums.sum(0), 1)}
    return _groups(columns, sums, 2, draws, seed)


def calibration_error(
    scores: Scores, clusters: Sequence[Hashable], bins: int = 10, draws: int = 1000, seed: int = 0
) -> Estimate:
    """Expected calibration error: Σ over bins of (share of the pairs) · |accuracy − mean confidence|.

    Noise alone makes the error positive, most with few pairs per bin; the interval does not remove this bias.
    """
    sums = _bins(scores, clusters, bins)

    def error(flat: np.ndarray) -> np.ndarray:
        n, sure, right = np.moveaxis(flat.reshape(*flat.shape[:-1], bins, 3), -1, 0)
        return np.abs(right - sure).sum(-1) / n.sum(-1)

    return bootstrap(sums.reshape(len(sums), -1), error, draws, seed)


def by_quantile(
    values: Sequence[float], right: Sequence[float], clusters: Sequence[Hashable], groups: int = 10,
    draws: int = 1000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Accuracy in equal groups, sorted by a value; pairs with equal values stay together."""
    given = np.asarray(values, float)
    edges = np.unique(np.quantile(given, np.linspace(0, 1, groups + 1)[1:-1]))
    place = np.searchsorted(edges, given, side="right")
    count = place.max() + 1
    sums = _sums(place, count, (np.asarray(right, float),), clusters)
    ends = pd.Series(given).groupby(place).agg(["min", "max"]).reindex(range(count))
    return _groups({"from": ends["min"], "to": ends["max"]}, sums, 1, draws, seed)


def confident_mistakes(scores: Scores, n: int) -> list[int]:
    """Positions of the `n` pairs with the largest margins in favour of the worse response, largest first."""
    gaps = [r_w - r_l for r_w, r_l in scores]
    return [i for i in sorted(range(len(gaps)), key=lambda i: (gaps[i], i)) if gaps[i] < 0][:n]
