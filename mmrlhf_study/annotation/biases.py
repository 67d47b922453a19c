"""What changes scores besides quality: the annotator, the place of a response, its length, the time on the job.

Shapes: n ratings, R raters, Q clusters (queries).
"""

import numpy as np
import pandas as pd
from scipy import sparse

from mmrlhf_study.annotation.agreement import Ratings, cells, side_by_side


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
