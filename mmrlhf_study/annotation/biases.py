"""What moves scores besides quality: who judges, where a response stands, how long it is, how late it comes.

Shapes: n ratings, R raters, Q clusters (queries).
"""

import numpy as np
import pandas as pd
from scipy import sparse

from mmrlhf_study.annotation.agreement import Ratings, cells


def deviations(rated: Ratings) -> np.ndarray:
    """Each rating minus the mean of the other ratings of its unit, [n]; nan where there is no other."""
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
    columns = np.tile([0, 1], len(x))
    return cells(np.repeat(clusters, 2), columns, np.stack((x * y, x * x), -1).ravel(), 2)


def slope(sums: np.ndarray) -> np.ndarray:
    """Least-squares change of y per unit of x, from moments [..., 2]; nan where x never differs."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 0] / sums[..., 1]


def codes(*columns: pd.Series) -> np.ndarray:
    """A number for each different combination of values."""
    return pd.MultiIndex.from_arrays(columns).factorize()[0]


def longer_wins(lengths: np.ndarray, wins: np.ndarray, clusters: np.ndarray) -> sparse.csr_array:
    """Whether the better of each pair is the longer one, and pairs of different length, per cluster, [Q, 2].

    `lengths` [pairs, 2] and `wins` [pairs] in {0, 1}: which of the two is better.
    """
    differ = lengths[:, 0] != lengths[:, 1]
    hit = differ & (lengths.argmax(-1) == wins)
    columns = np.tile([0, 1], len(wins))
    return cells(np.repeat(clusters, 2), columns, np.stack((hit, differ), -1).ravel().astype(float), 2)
