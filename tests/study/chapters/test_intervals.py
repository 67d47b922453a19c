"""The bootstrap over clusters against naive loops and theory, and Wilson's interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from mmrlhf_study.chapters import intervals


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def ratios(sums: np.ndarray) -> np.ndarray:
    """Many ratios at once, [..., R * 2] to [..., R]."""
    return sums[..., ::2] / sums[..., 1::2]


def test_samples_draw_clusters_and_repeat_themselves():
    weights = intervals.times_drawn(7, 2000, seed=4)
    assert weights.shape == (2000, 7)
    assert (weights.sum(-1) == 7).all()
    assert weights.mean(0) == pytest.approx(np.ones(7), abs=0.1)
    assert weights.var(0) == pytest.approx(np.full(7, 6 / 7), abs=0.15)  # multinomial: n p (1 - p)
    assert (weights == intervals.times_drawn(7, 2000, seed=4)).all()
    assert (weights != intervals.times_drawn(7, 2000, seed=5)).any()


def test_the_bootstrap_is_the_naive_loop():
    sums = np.array([[3.0, 4], [0, 2], [5, 5], [1, 9]])
    found = intervals.bootstrap(sums, ratio, draws=40, seed=3)
    picked = np.random.default_rng(3).integers(0, 4, (40, 4))
    values = [sums[rows, 0].sum() / sums[rows, 1].sum() for rows in picked]
    assert found.value == 9 / 20
    assert found[1:] == pytest.approx(np.quantile(values, (0.025, 0.975)), abs=1e-12)
    narrow = intervals.bootstrap(sums, ratio, draws=40, seed=3, level=0.5)
    assert narrow[1:] == pytest.approx(np.quantile(values, (0.25, 0.75)), abs=1e-12)
    assert intervals.bootstrap(sparse.csr_array(sums), ratio, 40, 3) == pytest.approx(found)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(0, 99), st.floats(0.1, 50), st.floats(-5, 5))
def test_scale_and_shift_pass_through(clusters, seed, scale, shift):
    x = np.random.default_rng(seed).normal(size=clusters)
    plain, moved = (
        intervals.bootstrap(np.stack((values, np.ones(clusters)), -1), ratio, 50, seed)
        for values in (x, scale * x + shift)
    )
    assert moved == pytest.approx([scale * end + shift for end in plain], abs=1e-9)
    assert plain.low <= plain.high


def test_several_statistics_come_at_once_and_undefined_ones_are_nan():
    sums = np.array([[1.0, 2, 0, 0], [1, 1, 0, 0], [0, 3, 0, 0]])
    with np.errstate(invalid="ignore"):
        found = intervals.bootstrap(sums, ratios, 100)
    assert found.value[0] == 1 / 3
    assert found.low[0] < 1 / 3 < found.high[0]
    assert [bool(np.isnan(end[1])) for end in found] == [True] * 3
    some = np.array([[1.0, 1], [0, 0], [0, 0], [0, 0]])  # 0 / 0 in the samples without the first cluster: left out
    with np.errstate(invalid="ignore"):
        assert intervals.bootstrap(some, ratio, 100) == (1, 1, 1)


@pytest.mark.parametrize(("clusters", "low", "high"), [(46, 0.93, 0.97), (200, 0.93, 0.97), (10, 0.85, 0.93)])
def test_intervals_of_a_share_cover_it(clusters, low, high):
    # 1,500 benches at once, each two columns: right answers and answers of clusters that differ in size and ease
    rng = np.random.default_rng(0)
    answers = rng.integers(1, 8, (clusters, 1500))
    right = rng.binomial(answers, rng.beta(4, 2, answers.shape))  # mean 4 / 6
    sums = np.stack((right, answers), -1).reshape(clusters, -1)
    found = intervals.bootstrap(sums, ratios, 500, seed=1)
    assert low <= ((found.low <= 2 / 3) & (found.high >= 2 / 3)).mean() <= high


def test_wilson_worked_by_hand():
    # 8 of 10, z = 1.959964: centre (8 + z²/2) / (10 + z²) = 0.716740, half width 0.226578
    assert intervals.wilson(8, 10) == pytest.approx((0.8, 0.490162, 0.943318), abs=1e-6)
    # Newcombe 1998, Table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for hits, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        assert intervals.wilson(hits, n)[1:] == pytest.approx((low, high), abs=5e-5)
    assert intervals.wilson(1, 29)[1:] == pytest.approx((0.0061, 0.1718), abs=5e-5)


@pytest.mark.parametrize(
    ("function", "given_values", "named"),
    [
        (intervals.bootstrap, (np.ones((0, 2)), ratio, 10), "10 samples of 0 clusters"),
        (intervals.bootstrap, (np.ones((3, 2)), ratio, 0), "0 samples of 3 clusters"),
        (intervals.wilson, (0, 0), "0 of 0"),
        (intervals.wilson, (3, 2), "3 of 2"),
        (intervals.wilson, (-1, 2), "-1 of 2"),
    ],
)
def test_an_interval_of_nothing_is_refused(function, given_values, named):
    with pytest.raises(ValueError, match=named):
        function(*given_values)
