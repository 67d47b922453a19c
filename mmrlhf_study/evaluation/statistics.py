"""Tests, effect sizes, power and paired intervals. Other intervals: `chapters.intervals`.

Items of one query are dependent: with `clusters`, whole clusters are resampled, or flip signs in a permutation test.
A p-value is two-sided. Shapes: n items, Q clusters.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from mmrlhf_study.chapters.intervals import Estimate, bootstrap, wilson

# ---------------------------------------------------------------- input


def _numbers(values: ArrayLike, name: str, least: int = 1) -> np.ndarray:
    """Finite numbers, [n], at least `least` of them."""
    found = np.asarray(values, float)
    if found.ndim != 1 or len(found) < least:
        raise ValueError(f"{name} has shape {found.shape}; give a list of at least {least} numbers.")
    if not np.isfinite(found).all():
        raise ValueError(f"{name} has {(~np.isfinite(found)).sum()} NaN or infinite values; replace or drop them.")
    return found


def _paired(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two lists of numbers about the same items."""
    first, second = _numbers(a, "a"), _numbers(b, "b")
    if len(first) != len(second):
        raise ValueError(f"a has {len(first)} values and b {len(second)}; give both for the same items, same order.")
    return first, second


def _right(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two lists of right (1) or wrong (0) answers to the same items."""
    first, second = _paired(a, b)
    if not np.isin((first, second), (0, 1)).all():
        raise ValueError("Values must be 1 (right) or 0 (wrong). Use `paired_permutation` for scores.")
    return first == 1, second == 1


def _by_cluster(values: np.ndarray, clusters: Sequence[Hashable] | None) -> np.ndarray:
    """(sum, number) of the values of each cluster, [Q, 2], in the order of the clusters' names."""
    if clusters is None:
        return np.stack((values, np.ones(len(values))), -1)
    if len(clusters) != len(values):
        raise ValueError(f"{len(values)} values and {len(clusters)} clusters; give the cluster of each value.")
    place = {name: i for i, name in enumerate(sorted(set(clusters), key=str))}
    code = [place[name] for name in clusters]
    return np.stack((np.bincount(code, values), np.bincount(code)), -1)


def _several(sums: np.ndarray) -> np.ndarray:
    """Sums of two clusters or more."""
    if len(sums) < 2:
        raise ValueError("All values are in one cluster; give at least two clusters.")
    return sums


# ---------------------------------------------------------------- intervals and tests


def mean_interval(
    values: ArrayLike, clusters: Sequence[Hashable] | None = None, draws: int = 1000, seed: int = 0
) -> Estimate:
    """Mean with a 95 % bootstrap interval over clusters (over values if none are given)."""
    sums = _several(_by_cluster(_numbers(values, "values"), clusters))
    return Estimate(*map(float, bootstrap(sums, lambda s: s[..., 0] / s[..., 1], draws, seed)))


def paired_permutation(
    a: ArrayLike, b: ArrayLike, clusters: Sequence[Hashable] | None = None, draws: int = 10000, seed: int = 0
) -> float:
    """Sign-flip permutation p of the mean difference a − b, flipping whole clusters.

    Exact if there are at most `draws` sign flips; else (1 + extreme flips) / (1 + draws).
    """
    first, second = _paired(a, b)
    sums = _several(_by_cluster(first - second, clusters))[:, 0]
    sums = sums[sums != 0]  # a flip of 0 changes nothing
    extreme = abs(sums.sum()) - 1e-9 * np.abs(sums).sum()  # sums in another order differ in the last digits
    if 2.0 ** len(sums) <= draws:
        flips = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        return float((np.abs((1 - 2 * flips) @ sums) >= extreme).mean())
    rng, count = np.random.default_rng(seed), 0
    for start in range(0, draws, 1000):
        flips = rng.integers(0, 2, (min(1000, draws - start), len(sums)))
        count += int((np.abs((1 - 2 * flips) @ sums) >= extreme).sum())
    return (1 + count) / (1 + draws)


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Exact McNemar p: a binomial test on items that only one system got right.

    One item per cluster only; else use `paired_permutation`.
    """
    first, second = _right(a, b)
    only = int((first & ~second).sum())
    differ = int((first != second).sum())
    return float(stats.binomtest(only, differ).pvalue) if differ else 1.0


# ---------------------------------------------------------------- effect sizes


def paired_effect(a: ArrayLike, b: ArrayLike) -> float:
    """Cohen's d_z: the mean difference a − b over the standard deviation of the differences."""
    first, second = _paired(a, b)
    mean, spread = (first - second).mean(), np.std(_numbers(first - second, "a - b", 2), ddof=1)
    if spread <= 1e-12 * abs(mean):
        raise ValueError("All differences are the same, so d_z is undefined; report the difference.")
    return float(mean / spread)


def rate_difference(a: ArrayLike, b: ArrayLike) -> Estimate:
    """Accuracy of a minus b on the same items, with Newcombe's paired 95 % interval (1998, method 10).

    One item per cluster only; else use `mean_interval` of the differences.
    """
    first, second = _right(a, b)
    n = len(first)
    (p, low_p, high_p), (q, low_q, high_q) = wilson(int(first.sum()), n), wilson(int(second.sum()), n)
    cross = n * int((first & second).sum()) - int(first.sum()) * int(second.sum())
    scale = n**2 * (p * (1 - p) * q * (1 - q)) ** 0.5
    phi = (max(cross - n / 2, 0) if cross > 0 else cross) / scale if scale else 0.0
    down, up = (x**2 - 2 * phi * x * y + y**2 for x, y in ((p - low_p, high_q - q), (high_p - p, q - low_q)))
    return Estimate(p - q, p - q - max(down, 0) ** 0.5, p - q + max(up, 0) ** 0.5)


# ---------------------------------------------------------------- power


def _only(share: float, difference: float, discordant: float | None) -> tuple[float, float]:
    """P(only the better system is right), P(only the other is)."""
    if discordant is None:
        return (share + difference) * (1 - share), share * (1 - share - difference)
    return (discordant + difference) / 2, (discordant - difference) / 2


def power_of(
    n: int, difference: float, share: float = 0.5, discordant: float | None = None, level: float = 0.05
) -> float:
    """Power of exact McNemar on n items at `level`.

    One system is right on `share` of all items, the other on `share + difference`. `discordant`: share of items that
    only one system gets right (default: independent systems).
    """
    better, worse = _only(share, difference, discordant)
    room = (1 - share - better, share - worse, better, worse, difference)
    if not (n >= 1 and 0 < level < 1 and all(one >= -1e-12 for one in room)):
        raise ValueError(
            f"Invalid combination: n {n}, difference {difference:g}, share {share:g}, discordant {discordant}, level "
            f"{level:g}. Need n >= 1, difference >= 0, 0 < level < 1, and items that only the better (only the other) "
            "system gets right of at most 1 - share (at most share)."
        )
    better, differ = max(better, 0.0), max(better, 0.0) + max(worse, 0.0)
    if not differ:
        return 0.0
    m = np.arange(n + 1)
    few = stats.binom.ppf(level / 2, m, 0.5)  # the smallest count with a tail of at least level / 2
    few = few - (stats.binom.cdf(few, m, 0.5) > level / 2)  # the largest with a tail of at most that
    found = stats.binom.cdf(few, m, better / differ) + stats.binom.sf(m - few - 1, m, better / differ)
    return float(stats.binom.pmf(m, n, differ) @ found)


def detectable_difference(
    n: int, share: float = 0.5, discordant: float | None = None, power: float = 0.8, level: float = 0.05
) -> float:
    """Smallest difference detected on n items with this power (see `power_of`).

    NaN if no difference is detectable: too few items.
    """
    least, most = 0.0, 1 - share
    if discordant is not None:  # discordant items bound the difference
        least, most = max(discordant - 2 * share, 0.0), min(discordant, 2 * (1 - share) - discordant)

    def beyond(difference: float) -> float:
        return power_of(n, difference, share, discordant, level) - power

    if beyond(most) < 0:
        return float("nan")
    return least if beyond(least) >= 0 else float(optimize.brentq(beyond, least, most, xtol=1e-6))


# ---------------------------------------------------------------- seeds and items


class VarianceParts(NamedTuple):
    """Variance of one value: between seeds, between items, and the rest (the two together, and noise)."""

    between_seeds: float
    between_items: float
    rest: float


def variance_parts(values: ArrayLike) -> VarianceParts:
    """Variance components of [seeds, items] by two-way random-effects ANOVA, clipped at 0."""
    table = np.asarray(values, float)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError(f"The table has shape {table.shape}; give [seeds, items], at least two of each.")
    if not np.isfinite(table).all():
        raise ValueError(
            f"The table has {(~np.isfinite(table)).sum()} NaN or infinite values; give every item for every seed."
        )
    seeds, items = table.shape
    by_seed, by_item = table.mean(1), table.mean(0)
    left = table - by_seed[:, None] - by_item + table.mean()
    rest = (left**2).sum() / ((seeds - 1) * (items - 1))
    parts = by_seed.var(ddof=1) - rest / items, by_item.var(ddof=1) - rest / seeds
    return VarianceParts(*(max(float(part), 0.0) for part in parts), float(rest))
