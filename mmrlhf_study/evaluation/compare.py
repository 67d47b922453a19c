"""A against B on the same items: difference, interval, p-value, effect size, and one vocabulary of verdicts.

Every chapter that compares policies, reward models or rankings does it here. Items of one cluster (a scene, a query, a
picture group) are drawn together and change signs together.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from statsmodels.stats.multitest import multipletests

from mmrlhf_study.evaluation import statistics

LEVEL = 0.05  # of the corrected p-value below which a difference is shown
BETTER, WORSE, OPEN = "better", "worse", "not distinguished"  # verdicts; OPEN: at this sample size


class Paired(NamedTuple):
    """The mean of a − b with its 95 % interval, the p-value, and Cohen's d_z (0 where all differences are equal)."""

    difference: float
    low: float
    high: float
    p: float
    d_z: float


def paired(
    a: ArrayLike, b: ArrayLike, clusters: Sequence[Hashable] | None = None, draws: int = 1000, seed: int = 0,
    flips: int = 10000,
) -> Paired:  # fmt: skip
    """a against b on the same items: bootstrap interval and permutation test over clusters (items without them)."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    gap = statistics.mean_interval(a - b, clusters, draws, seed)
    p = statistics.paired_permutation(a, b, clusters, flips, seed)
    effect = statistics.paired_effect(a, b) if np.ptp(a - b) > 1e-12 else 0.0
    return Paired(*map(float, gap), p, effect)


def judged(table: pd.DataFrame, difference: str = "difference", by: str = "p_holm") -> pd.DataFrame:
    """The table of one family of tests with `p_holm`, `p_bh` and a verdict by the column `by`.

    Rows without a p-value are not tested and get a blank verdict.
    """
    tested, table = table["p"].notna(), table.assign(p_holm=np.nan, p_bh=np.nan)
    if tested.any():
        for column, method in (("p_holm", "holm"), ("p_bh", "fdr_bh")):  # Benjamini and Hochberg
            table.loc[tested, column] = multipletests(table.loc[tested, "p"].to_numpy(float), method=method)[1]
    verdict = np.where(table[by] < LEVEL, np.where(table[difference] > 0, BETTER, WORSE), OPEN)
    return table.assign(verdict=np.where(tested, verdict, ""))


def side(low: float, high: float, of: float = 0.0) -> str:
    """The verdict of an interval alone: on which side of `of` it lies."""
    return BETTER if low > of else WORSE if high < of else OPEN
