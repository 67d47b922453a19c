"""A against B on the same items: difference, interval, p-value, effect size, and one vocabulary of verdicts.

All comparisons of policies, reward models and rankings use this module. Items of one cluster (a scene, a query, a
picture group) are resampled together and flip signs together.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from statsmodels.stats.multitest import multipletests

from mmrlhf_study.evaluation import statistics

LEVEL = 0.05  # significance level of corrected p-values
BETTER, WORSE, OPEN = "better", "worse", "not distinguished"  # verdicts; OPEN: no significant difference


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
    """a minus b on the same items: bootstrap interval and permutation test over clusters, or over items if none."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    gap = statistics.mean_interval(a - b, clusters, draws, seed)
    p = statistics.paired_permutation(a, b, clusters, flips, seed)
    effect = statistics.paired_effect(a, b) if np.ptp(a - b) > 1e-12 else 0.0
    return Paired(*map(float, gap), p, effect)


def judged(table: pd.DataFrame, difference: str = "difference", by: str = "p_holm") -> pd.DataFrame:
    """The tests of one family with `p_holm`, `p_bh` and a verdict from the column `by`.

    Rows without a p-value are not tested and get a blank verdict.
    """
    tested, table = table["p"].notna(), table.assign(p_holm=np.nan, p_bh=np.nan)
    if tested.any():
        for column, method in (("p_holm", "holm"), ("p_bh", "fdr_bh")):  # Benjamini and Hochberg
            table.loc[tested, column] = multipletests(table.loc[tested, "p"].to_numpy(float), method=method)[1]
    verdict = np.where(table[by] < LEVEL, np.where(table[difference] > 0, BETTER, WORSE), OPEN)
    return table.assign(verdict=np.where(tested, verdict, ""))


def side(low: float, high: float, of: float = 0.0) -> str:
    """Verdict from an interval only, without correction: the side of `of` on which the interval lies."""
    return BETTER if low > of else WORSE if high < of else OPEN
