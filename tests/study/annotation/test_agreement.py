"""Agreement statistics against published tables, scikit-learn and naive loops."""

from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from mmrlhf_study.annotation import agreement
from mmrlhf_study.annotation.agreement import Ratings
from mmrlhf_study.annotation.records import Judgement
from mmrlhf_study.chapters import intervals

# Krippendorff, "Computing Krippendorff's alpha-reliability": 4 observers, 12 units, 41 values (15 units x 3 missing)
OBSERVERS = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)


def from_grid(grid: np.ndarray, clusters: np.ndarray | None = None) -> Ratings:
    """Ratings from [raters, units] with -1 for missing ones."""
    raters, units = np.nonzero(grid >= 0)
    clusters = np.arange(grid.shape[1]) if clusters is None else clusters
    return Ratings(grid[raters, units], units, raters, clusters[units], tuple(map(str, range(len(grid)))))


def krippendorff() -> Ratings:
    return from_grid(np.array([[int(x) - 1 if x != "." else -1 for x in row.split()] for row in OBSERVERS]))


def simulated(n_units: int = 60, n_raters: int = 5, seed: int = 0, noise: float = 0.8) -> Ratings:
    rng = np.random.default_rng(seed)
    grid = np.clip(np.rint(rng.integers(0, 5, n_units) + rng.normal(0, noise, (n_raters, n_units))), 0, 4).astype(int)
    grid[rng.random(grid.shape) < 0.3] = -1
    return from_grid(grid, np.arange(n_units) // 4)


def total(counts) -> np.ndarray:
    return counts.sum(0)


def naive_alpha(rated: Ratings, metric: str) -> float:
    """Definition by loops over pairs of values."""
    units = [rated.values[rated.units == u] for u in np.unique(rated.units)]
    units = [values for values in units if len(values) > 1]
    everything = np.concatenate(units)
    n_g = np.bincount(everything, minlength=5)

    def delta2(c: int, k: int) -> float:
        if metric == "nominal":
            return float(c != k)
        if metric == "interval":
            return float((c - k) ** 2)
        low, high = sorted((c, k))
        return (sum(n_g[low : high + 1]) - (n_g[c] + n_g[k]) / 2) ** 2 if c != k else 0.0

    observed = sum(delta2(a, b) / (len(values) - 1) for values in units for a, b in permutations(values, 2))
    expected = sum(delta2(a, b) for a, b in permutations(everything, 2)) / (len(everything) - 1)
    return 1 - observed / expected


@pytest.mark.parametrize(("metric", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_krippendorffs_own_and_agrees_with_the_definition_by_loops(metric, value):
    assert agreement.alpha(total(agreement.coincidences(krippendorff())), metric) == pytest.approx(value, abs=5e-4)
    for seed in range(3):
        rated = simulated(25, 4, seed)
        assert agreement.alpha(total(agreement.coincidences(rated)), metric) == pytest.approx(
            naive_alpha(rated, metric)
        )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_alpha_does_not_care_who_rated_or_in_what_order(seed):
    rated = simulated(12, 4, seed % 50)
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(len(rated.values)), rng.permutation(4)
    other = Ratings(
        *(part[order] for part in (rated.values, rated.units, names[rated.raters], rated.clusters)), rated.names
    )
    one, two = (agreement.alpha(total(agreement.coincidences(one))) for one in (rated, other))
    assert one == pytest.approx(two)


def test_alpha_ends_are_one_and_nan():
    same = from_grid(np.array([[0, 1, 4], [0, 1, 4]]))
    assert agreement.alpha(total(agreement.coincidences(same))) == 1
    flat = from_grid(np.array([[2, 2, 2], [2, 2, 2]]))
    assert np.isnan(agreement.alpha(total(agreement.coincidences(flat))))
    with pytest.raises(ValueError, match="ratio"):
        agreement.alpha(total(agreement.coincidences(same)), "ratio")


def test_kappa_by_hand():
    # two raters, two values: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no; p_o = .7, p_e = .5 * .6 + .5 * .4 = .5
    assert agreement.kappa(np.array([20.0, 5, 10, 15]), "none", points=2) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="cubic"):
        agreement.kappa(np.ones(25), "cubic")


@pytest.mark.parametrize(("weights", "theirs"), [("none", None), ("linear", "linear"), ("quadratic", "quadratic")])
def test_pairwise_kappa_is_scikit_learns_pair_by_pair(weights, theirs):
    rated = simulated(80, 4, 1)
    each, numbers = [], []
    for i, j in combinations(range(4), 2):
        a, b = (dict(zip(rated.units[rated.raters == r], rated.values[rated.raters == r], strict=True)) for r in (i, j))
        shared = sorted(a.keys() & b.keys())
        values = ([a[u] for u in shared], [b[u] for u in shared])
        each.append(cohen_kappa_score(*values, weights=theirs, labels=range(5)))
        numbers.append(len(shared))
    sums = total(agreement.pairwise(rated, weights))
    assert agreement.mean_kappa(sums.reshape(-1, 12)) == pytest.approx(each)  # a row of sums for each two raters
    assert agreement.mean_kappa(sums) == pytest.approx(np.average(each, weights=numbers))


def test_mean_kappa_leaves_out_raters_who_never_met_or_never_differ():
    # raters 0 and 1 share four units, 2 and 3 two on which both give one value (κ is nan), the others none
    rated = from_grid(np.array([[0, 1, 4, 4, -1, -1], [0, 1, 4, 3, -1, -1], [-1] * 4 + [2, 2], [-1] * 4 + [2, 2]]))
    sums = total(agreement.pairwise(rated))
    assert sums.shape == (2 * 12,)
    assert agreement.mean_kappa(sums) == pytest.approx(
        cohen_kappa_score([0, 1, 4, 4], [0, 1, 4, 3], weights="quadratic", labels=range(5))
    )


def test_against_others_pools_every_double_of_a_rater():
    rated = from_grid(np.array([[0, 1, 2], [0, 1, 3], [0, 2, -1]]))
    first = total(agreement.against_others(rated)).reshape(3, 5, 5)[0]
    expected = np.zeros((5, 5))
    for mine, theirs in [(0, 0), (0, 0), (1, 1), (1, 2), (2, 3)]:
        expected[mine, theirs] += 1
    assert (first == expected).all()


def test_leave_one_out_by_hand():
    # unit 0: 4 4 4 2 -> raters 0-2 face a majority of 4 (hit), rater 3 too (miss)
    # unit 1: 1 1 3 3 -> rater 0 faces {1, 3, 3}: majority 3 (miss), so do all; unit 2: 0 1 - -: one other each, a miss
    grid = np.array([[4, 1, 0], [4, 1, 1], [4, 3, -1], [2, 3, -1]])
    counts = total(agreement.leave_one_out(from_grid(grid))).reshape(4, 2)
    assert counts.tolist() == [[1, 3], [1, 3], [1, 2], [0, 2]]
    tie = from_grid(np.array([[4], [4], [3]]))  # rater 2 faces {4, 4}; raters 0 and 1 face {4, 3}: no majority
    assert total(agreement.leave_one_out(tie)).reshape(3, 2).tolist() == [[0, 0], [0, 0], [0, 1]]
    assert agreement.share(np.array([1.0, 4, 3, 4])).tolist() == [0.25, 0.75]


def test_the_interval_is_the_naive_bootstrap_of_the_same_draws():
    rated = simulated(40, 4, 2)
    found = intervals.bootstrap(agreement.coincidences(rated), agreement.alpha, 50, seed=9)
    values = []
    for weights in intervals.times_drawn(rated.clusters.max() + 1, 50, seed=9):
        parts, unit = [], 0  # each drawn query again under new unit names
        for cluster, times in enumerate(weights.astype(int)):
            for _ in range(times):
                mine = rated.clusters == cluster
                parts.append((rated.values[mine], rated.units[mine] + unit))
                unit += 1000
        values_, units = (np.concatenate(part) for part in zip(*parts, strict=True))
        units = pd.factorize(units)[0]
        again = Ratings(values_, units, np.zeros_like(units), np.zeros_like(units), ("x",))
        values.append(agreement.alpha(total(agreement.coincidences(again))))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))))
    assert found.low < found.value < found.high


def test_judgements_become_ratings():
    rows = [
        Judgement("q1", "q1/1", "bea", 5, 1, 5),
        Judgement("q1", "q1/1", "al", 3, 2, 5),
        Judgement("q2", "q2/1", "bea", 1, 4, 2),
    ]
    table = agreement.frame(rows)
    assert table["overall"].tolist() == [6, 5, -4]
    rated = agreement.ratings(table, "helpfulness")
    assert rated.values.tolist() == [4, 2, 0]
    assert rated.names == ("al", "bea")
    assert (rated.raters.tolist(), rated.units.tolist(), rated.clusters.tolist()) == ([1, 0, 1], [0, 0, 1], [0, 0, 1])
