"""How well annotators agree (kappa, Krippendorff's alpha, leave-one-out) and what else moves their scores.

Every statistic here is a function of counts that add up over queries. A bootstrap sample is then a weight per query,
and 1,000 samples are one sparse product.

Shapes: n ratings, U units (responses), R raters, Q clusters (queries), V scale points, C cells.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from mmrlhf_study.annotation.records import SCALES, Judgement

SCALE_POINTS = 5


class Ratings(NamedTuple):
    """Ratings on one scale: value 0 .. V-1, codes of unit, rater and cluster, all [n]; names of the raters."""

    values: np.ndarray
    units: np.ndarray
    raters: np.ndarray
    clusters: np.ndarray
    names: tuple[str, ...]


def frame(judgements: Iterable[Judgement]) -> pd.DataFrame:
    """Judgements as a table, one row each, with `overall`."""
    names = ("query", "response", "annotator", *SCALES, "overall", "reason", "seconds", "place", "item", "round")
    return pd.DataFrame([[getattr(row, name) for name in names] for row in judgements], columns=list(names))


def ratings(table: pd.DataFrame, scale: str) -> Ratings:
    """The ratings on one scale (1 .. V in the table, 0 .. V-1 here)."""
    units, clusters = (pd.factorize(table[name])[0] for name in ("response", "query"))
    raters, names = pd.factorize(table["annotator"], sort=True)
    return Ratings(table[scale].to_numpy() - 1, units, raters, clusters, tuple(names))


def cells(clusters: np.ndarray, columns: np.ndarray, weights: np.ndarray, n_columns: int) -> sparse.csr_array:
    """Sums of `weights` per cluster and column, [Q, C]."""
    shape = (int(clusters.max()) + 1, n_columns)
    return sparse.csr_array((np.asarray(weights, float), (clusters, columns)), shape=shape)


def side_by_side(clusters: np.ndarray, *values: np.ndarray) -> sparse.csr_array:
    """Sums of each of these values per cluster, one column each, [Q, C]; all values are [n]."""
    n = len(values)
    columns = np.tile(np.arange(n), len(clusters))
    return cells(np.repeat(clusters, n), columns, np.stack(values, -1).ravel(), n)


def _value_counts(rated: Ratings, points: int) -> np.ndarray:
    """How often each value was given to each unit, [U, V]."""
    counts = np.zeros((rated.units.max() + 1, points))
    np.add.at(counts, (rated.units, rated.values), 1)
    return counts


# ---------------------------------------------------------------- Krippendorff's alpha


def coincidences(rated: Ratings, points: int = SCALE_POINTS) -> sparse.csr_array:
    """Coincidences of values per cluster, [Q, V * V].

    Each ordered pair of ratings of a unit counts 1 / (m − 1), where m is the number of ratings of that unit.
    """
    counts = _value_counts(rated, points)
    cluster = np.zeros(len(counts), int)
    cluster[rated.units] = rated.clusters
    m = counts.sum(-1)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(points)
    pairs = (pairs / np.maximum(m - 1, 1)[:, None, None]).reshape(len(counts), -1)
    unit, column = np.nonzero(pairs)
    return cells(cluster[unit], column, pairs[unit, column], points**2)


def alpha(coincidence: np.ndarray, metric: str = "ordinal", points: int = SCALE_POINTS) -> np.ndarray:
    """Krippendorff's α = 1 − D_o / D_e from coincidences [..., V * V]; NaN where all values are the same.

    `metric` is "ordinal" (distance of mid-ranks), "interval" (distance of values) or "nominal" (same or not).
    """
    o = coincidence.reshape(*coincidence.shape[:-1], points, points)
    n_c = o.sum(-1)
    if metric == "ordinal":
        place = n_c.cumsum(-1) - n_c / 2
    elif metric in ("interval", "nominal"):
        place = np.broadcast_to(np.arange(float(points)), n_c.shape)
    else:
        raise ValueError(f"No metric {metric!r}. Give ordinal, interval or nominal.")
    delta = (place[..., :, None] - place[..., None, :]) ** 2
    delta = (delta > 0).astype(float) if metric == "nominal" else delta
    observed = (o * delta).sum((-1, -2))
    expected = (n_c[..., :, None] * n_c[..., None, :] * delta).sum((-1, -2)) / np.maximum(n_c.sum(-1) - 1, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)


# ---------------------------------------------------------------- Cohen's kappa


class Doubles(NamedTuple):
    """All pairs of ratings of the same unit by two raters: raters, values and cluster of each, [pairs]."""

    raters: np.ndarray  # [pairs, 2], the smaller code first
    values: np.ndarray  # [pairs, 2]
    clusters: np.ndarray


def doubles(rated: Ratings) -> Doubles:
    """Every two ratings of a unit."""
    order = np.lexsort((rated.raters, rated.units))
    unit, most = rated.units[order], np.bincount(rated.units).max()
    both = [np.flatnonzero(unit[:-step] == unit[step:])[:, None] + [0, step] for step in range(1, most)]
    pairs = order[np.concatenate(both)] if both else np.zeros((0, 2), int)
    return Doubles(rated.raters[pairs], rated.values[pairs], rated.clusters[pairs[:, 0]])


def kappa(confusion: np.ndarray, weights: str = "quadratic", points: int = SCALE_POINTS) -> np.ndarray:
    """Cohen's κ = 1 − Σ w o / Σ w e from confusion counts [..., V * V]; NaN where no disagreement is possible.

    `weights`: "none" (every disagreement counts 1), "linear" (|i − j|), "quadratic" ((i − j)²).
    """
    return _kappa(confusion @ _sums(weights, points))


def _sums(weights: str, points: int) -> np.ndarray:
    """The linear map from confusion counts to the sums that κ needs, [V * V, 2 V + 2].

    The sums are: w times the counts of the first rater's values, the counts of the second rater's values, the weighted
    disagreements, and the number of ratings.
    """
    if weights not in ("none", "linear", "quadratic"):
        raise ValueError(f"No weights {weights!r}. Give none, linear or quadratic.")
    gap = np.abs(np.subtract.outer(np.arange(points), np.arange(points))).astype(float)
    w = {"none": (gap > 0).astype(float), "linear": gap, "quadratic": gap**2}[weights]
    first, second = np.indices((points, points)).reshape(2, -1)
    return np.column_stack((w[first], np.eye(points)[second], w.ravel(), np.ones(points**2)))


def _kappa(sums: np.ndarray) -> np.ndarray:
    """κ from the sums of `_sums`, [..., 2 V + 2] to [...]."""
    points = sums.shape[-1] // 2 - 1
    expected = sum(sums[..., value] * sums[..., points + value] for value in range(points))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - sums[..., -1] * sums[..., -2] / expected, np.nan)


def pairwise(rated: Ratings, weights: str = "quadratic", points: int = SCALE_POINTS) -> sparse.csr_array:
    """The sums that κ needs for each of the P pairs of raters with units in common, per cluster, [Q, P * (2 V + 2)].

    Twelve sums instead of 25 counts, for these pairs only: 25 counts for every pair of 50 raters would take 500 MB.
    """
    both, n = doubles(rated), len(rated.names)
    pairs, pair = np.unique(both.raters[:, 0] * n + both.raters[:, 1], return_inverse=True)
    column = (pair * points + both.values[:, 0]) * points + both.values[:, 1]
    counts = cells(both.clusters, column, np.ones(len(column)), len(pairs) * points**2)
    return counts @ sparse.kron(sparse.eye_array(len(pairs)), _sums(weights, points), "csr")


def mean_kappa(sums: np.ndarray, points: int = SCALE_POINTS) -> np.ndarray:
    """Mean κ over the pairs of raters (Light), weighted by their common units; [..., P * (2 V + 2)] to [...]."""
    sums = sums.reshape(*sums.shape[:-1], -1, 2 * points + 2)
    each = _kappa(sums)
    n = np.where(np.isnan(each), 0, sums[..., -1])
    with np.errstate(invalid="ignore"):
        return (np.nan_to_num(each) * n).sum(-1) / n.sum(-1)


def against_others(rated: Ratings, points: int = SCALE_POINTS) -> sparse.csr_array:
    """Confusion counts of each rater (rows of κ) with all others together, per cluster, [Q, R * V * V]."""
    both, n = doubles(rated), len(rated.names)
    first = (both.raters[:, 0] * points + both.values[:, 0]) * points + both.values[:, 1]
    second = (both.raters[:, 1] * points + both.values[:, 1]) * points + both.values[:, 0]
    clusters = np.concatenate((both.clusters, both.clusters))
    return cells(clusters, np.concatenate((first, second)), np.ones(len(clusters)), n * points**2)


# ---------------------------------------------------------------- leave one out


def leave_one_out(rated: Ratings, points: int = SCALE_POINTS) -> sparse.csr_array:
    """Per rater: ratings equal to the majority of the others, and ratings where there is one; [Q, R * 2].

    The majority is the single most frequent value among the others; ratings of units without one are not counted.
    """
    others = _value_counts(rated, points)[rated.units]
    others[np.arange(len(others)), rated.values] -= 1
    top = others.max(-1)
    counted = (top > 0) & ((others == top[:, None]).sum(-1) == 1)
    hit = counted & (others.argmax(-1) == rated.values)
    columns = np.concatenate((rated.raters * 2, rated.raters * 2 + 1))
    weights = np.concatenate((hit, counted)).astype(float)
    return cells(np.concatenate((rated.clusters, rated.clusters)), columns, weights, len(rated.names) * 2)


def share(counts: np.ndarray) -> np.ndarray:
    """Hits divided by tries; the two alternate in the columns, [..., C * 2] to [..., C]."""
    pairs = counts.reshape(*counts.shape[:-1], -1, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return pairs[..., 0] / pairs[..., 1]


# ---------------------------------------------------------------- what changes scores besides quality


def deviations(rated: Ratings) -> np.ndarray:
    """Each rating minus the mean of the other ratings of its unit, [n]; NaN where there is no other."""
    total = np.bincount(rated.units, rated.values)[rated.units]
    number = np.bincount(rated.units)[rated.units]
    with np.errstate(invalid="ignore", divide="ignore"):
        return rated.values - (total - rated.values) / (number - 1)


def per_rater(rated: Ratings) -> sparse.csr_array:
    """Number, sum and sum of squares of each rater's deviations per cluster, [Q, R * 3]."""
    off = deviations(rated)
    known = ~np.isnan(off)
    off, raters, clusters = off[known], rated.raters[known], rated.clusters[known]
    columns = (raters[:, None] * 3 + [0, 1, 2]).ravel()
    weights = np.stack((np.ones(len(off)), off, off**2), -1).ravel()
    return cells(np.repeat(clusters, 3), columns, weights, len(rated.names) * 3)


def mean_and_sd(sums: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of each rater from cells [..., R * 3], as [..., R, 2]."""
    n, first, second = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = first / n
        return np.stack((mean, np.sqrt(np.maximum(second / n - mean**2, 0))), -1)


def moments(y: np.ndarray, x: np.ndarray, within: np.ndarray, clusters: np.ndarray) -> sparse.csr_array:
    """Σ xy and Σ x² per cluster after taking the mean of each `within` group from both, [Q, 2]."""
    number = np.bincount(within)[within]
    x, y = (value - np.bincount(within, value)[within] / number for value in (x, y))
    return side_by_side(clusters, x * y, x * x)


def slope(sums: np.ndarray) -> np.ndarray:
    """Least-squares change of y per unit of x, from moments [..., 2]; NaN where x never differs."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 0] / sums[..., 1]


def codes(*columns: pd.Series) -> np.ndarray:
    """A number for each different combination of values."""
    return pd.MultiIndex.from_arrays(columns).factorize()[0]
