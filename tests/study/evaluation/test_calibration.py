"""Reliability by hand, calibration error at its known values, and shares by groups of a value."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrlhf_study.evaluation import calibration

LN3 = math.log(3)  # σ(ln 3) = ¾
SCORES = [(LN3, 0.0), (LN3, 0.0), (LN3, 0.0), (0.0, LN3), (1.0, 1.0), (0.0, 0.0)]
CLUSTERS = ["a", "a", "b", "b", "c", "c"]


def test_confidence_is_the_models_own_and_a_tie_is_a_coin():
    sure, right = calibration.confidence(SCORES)
    assert sure == pytest.approx([0.75, 0.75, 0.75, 0.75, 0.5, 0.5])
    assert right.tolist() == [1, 1, 1, 0, 0.5, 0.5]
    for bad in ([(math.nan, 1.0)], [(math.inf, 1.0)]):
        with pytest.raises(ValueError, match="1 of 1"):
            calibration.confidence(bad)
    with pytest.raises(ValueError, match="0 of 0"):
        calibration.confidence([])


def test_calibration_error_by_hand():
    made = calibration.reliability(SCORES, CLUSTERS, bins=4, draws=50)
    assert made[["from", "to", "pairs"]].values.tolist() == [[0.5, 0.625, 2], [0.75, 0.875, 4]]
    assert made.confidence.tolist() == pytest.approx(made.accuracy.tolist())
    assert (made.low <= made.accuracy).all()
    assert (made.accuracy <= made.high).all()
    assert calibration.calibration_error(SCORES, CLUSTERS, 4, 50).value == pytest.approx(0)
    # all four sure ones wrong: |0 − ¾| · 4/6; the two ties stay
    turned = [(0.0, LN3)] * 4 + SCORES[4:]
    assert calibration.calibration_error(turned, CLUSTERS, 4, 50).value == pytest.approx(0.5)
    # sure of everything and always right: 1 − σ(20) ≈ 0, in the last bin
    found = calibration.reliability([(20.0, 0.0)] * 3, CLUSTERS[:3], 10, 50)
    assert found[["from", "to", "accuracy"]].values.tolist() == [[0.95, 1.0, 1.0]]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=40), st.integers(1, 12))
def test_bins_hold_every_pair_once_and_swapping_turns_right_around(scores, bins):
    clusters = [str(n % 5) for n in range(len(scores))]
    made = calibration.reliability(scores, clusters, bins, 20)
    assert made.pairs.sum() == len(scores)
    assert ((made["from"] - 1e-9 <= made.confidence) & (made.confidence <= made["to"] + 1e-9)).all()
    turned = calibration.reliability([(b, a) for a, b in scores], clusters, bins, 20)
    assert turned.accuracy.tolist() == pytest.approx((1 - made.accuracy).tolist())
    error = calibration.calibration_error(scores, clusters, bins, 20).value
    assert error == pytest.approx((made.pairs * (made.accuracy - made.confidence).abs()).sum() / len(scores))


def test_groups_of_a_value_are_equal_and_keep_equal_values_together():
    right = [0, 0, 1, 0, 1, 1, 1, 1]
    made = calibration.by_quantile(range(8), right, list("aabbccdd"), 4, 50)
    assert made[["from", "to", "pairs", "accuracy"]].values.tolist() == [
        [0, 1, 2, 0], [2, 3, 2, 0.5], [4, 5, 2, 1], [6, 7, 2, 1]
    ]  # fmt: skip
    same = calibration.by_quantile([1.0] * 6 + [2.0, 3.0], right, list("aabbccdd"), 4, 50)
    assert same.pairs.sum() == 8
    assert len(same) == len(set(same["from"]))
    assert calibration.by_quantile([5.0] * 4, right[:4], list("aabb"), 4, 50)[
        ["pairs", "accuracy"]
    ].values.tolist() == [[4, 0.25]]
    with pytest.raises(ValueError, match="2 pairs and 1 clusters"):
        calibration.by_quantile([1, 2], [0, 1], ["a"], 2, 50)


def test_whole_queries_are_drawn():
    """Pairs of one query that go together widen the interval; the same pairs as queries of their own do not."""
    rng = np.random.default_rng(0)
    answers = np.repeat(rng.integers(0, 2, 20), 10).astype(float)
    together = calibration.by_quantile([1.0] * 200, answers, [n // 10 for n in range(200)], 1, 500)
    apart = calibration.by_quantile([1.0] * 200, answers, range(200), 1, 500)
    assert together.accuracy[0] == apart.accuracy[0]
    assert together.high[0] - together.low[0] > 2 * (apart.high[0] - apart.low[0])


def test_the_most_confident_mistakes_come_first():
    scores = [(1, 0), (0, 3), (2, 2.5), (0, 0), (-1, 9)]
    assert calibration.confident_mistakes(scores, 2) == [4, 1]
    assert calibration.confident_mistakes(scores, 9) == [4, 1, 2]
