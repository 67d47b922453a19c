"""Planted biases are found again, and the arithmetic is that of statsmodels."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from mmrlhf_study.annotation import agreement
from mmrlhf_study.annotation.agreement import Ratings
from mmrlhf_study.chapters import intervals


def test_deviations_and_their_mean_and_spread_by_hand():
    # unit 0: 4 2 3 -> 4 - 2.5, 2 - 3.5, 3 - 3; unit 1: 1 1 (raters 0, 1) -> 0, 0; unit 2: alone -> nan
    rated = Ratings(
        np.array([4, 2, 3, 1, 1, 0]),
        np.array([0, 0, 0, 1, 1, 2]),
        np.array([0, 1, 2, 0, 1, 0]),
        np.array([0, 0, 0, 1, 1, 2]),
        ("a", "b", "c"),
    )
    assert agreement.deviations(rated)[:5].tolist() == [1.5, -1.5, 0, 0, 0]
    assert np.isnan(agreement.deviations(rated)[5])
    found = agreement.mean_and_sd(agreement.per_rater(rated).sum(0))
    assert found[:, 0].tolist() == [0.75, -0.75, 0]
    assert found[:, 1].tolist() == [0.75, 0.75, 0]


def test_a_strict_annotator_is_found():
    rng = np.random.default_rng(0)
    truth, shift = rng.integers(1, 4, 400), np.array([0, 0, -1, 0])
    units, raters = (part.ravel() for part in np.meshgrid(np.arange(400), np.arange(4), indexing="ij"))
    values = np.clip(truth[units] + shift[raters], 0, 4)
    rated = Ratings(values, units, raters, units, tuple("abcd"))
    found = intervals.bootstrap(agreement.per_rater(rated), agreement.mean_and_sd, 200)
    assert found.value[:, 0] == pytest.approx([1 / 3, 1 / 3, -1, 1 / 3])
    assert found.high[2, 0] < 0 < found.low[0, 0]


def test_the_slope_is_the_fixed_effects_regression_where_there_is_one():
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {"query": rng.integers(0, 40, 300), "annotator": rng.integers(0, 3, 300), "x": rng.normal(0, 1, 300)}
    )
    table["y"] = 0.7 * table["x"] + table["query"] * 0.1 + rng.normal(0, 0.3, 300)
    group = agreement.codes(table["query"], table["annotator"])
    found = agreement.slope(
        agreement.moments(table["y"].to_numpy(), table["x"].to_numpy(), group, table["query"].to_numpy()).sum(0)
    )
    theirs = smf.ols("y ~ x + C(group)", table.assign(group=group)).fit().params["x"]
    assert found == pytest.approx(theirs)
    assert len(set(group)) == len(table[["query", "annotator"]].drop_duplicates())
    group = np.array([0, 0, 1, 1])
    assert np.isnan(agreement.slope(agreement.moments(np.arange(4.0), np.array([1.0, 1, 2, 2]), group, group).sum(0)))
