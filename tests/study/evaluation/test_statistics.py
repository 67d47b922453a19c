"""Tests, effects, power and variance against textbooks, statsmodels and simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmrlhf_study.evaluation import compare, statistics

QUICK = settings(max_examples=25, deadline=None)
# Darwin's maize, crossed less self-fertilised, in eighths of an inch (Fisher, The Design of Experiments, table 3)
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
NOTHING = [0] * 15


def answers(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[int], list[int]]:
    """Right and wrong answers of two systems with these counts."""
    return [1] * both + [1] * only_a + [0] * (only_b + neither), [1] * both + [0] * only_a + [1] * only_b + [
        0
    ] * neither


# ---------------------------------------------------------------- mean


def test_the_mean_is_over_values_and_clusters_widen_its_interval():
    values = [0.0, 1] * 30
    alone = statistics.mean_interval(np.repeat(values, 4))
    clustered = statistics.mean_interval(np.repeat(values, 4), np.repeat(np.arange(60), 4))
    assert alone.value == clustered.value == 0.5
    # four equal values per cluster: sqrt(.25 / 240) and sqrt(.25 / 60)
    assert (alone.high - alone.low) / 2 == pytest.approx(1.96 * math.sqrt(0.25 / 240), rel=0.1)
    assert (clustered.high - clustered.low) / 2 == pytest.approx(1.96 * math.sqrt(0.25 / 60), rel=0.1)
    assert statistics.mean_interval([1, 1, 4], ["a", "a", "b"]).value == 2  # of values, not of cluster means


@QUICK
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 4)), min_size=2, max_size=20), st.randoms())
def test_order_and_types_of_clusters_do_not_matter(rows, dice):
    rows += [(0.0, 5), (1.0, 6)]
    found = statistics.mean_interval(*zip(*rows, strict=True), draws=60)
    mixed = [(value, ("query", name)) for value, name in rows]
    dice.shuffle(mixed)
    assert statistics.mean_interval(*zip(*mixed, strict=True), draws=60) == pytest.approx(found, abs=1e-9)


# ---------------------------------------------------------------- permutation


def test_the_permutation_test_by_fisher_and_by_hand():
    # the sum is 314; of 2^15 = 32768 sign flips 863 give a sum as large, so twice that: 1726 / 32768
    assert statistics.paired_permutation(DARWIN, NOTHING, draws=2**15) == 1726 / 2**15
    drawn = statistics.paired_permutation(DARWIN, NOTHING, draws=2**15 - 1)
    assert drawn == pytest.approx(1726 / 2**15, abs=0.005)
    assert drawn == statistics.paired_permutation(DARWIN, NOTHING, draws=2**15 - 1)
    # differences 1, 2, 3: only +++ and --- reach 6, so 2 of 8; of two clusters {1, 2} and {3} two of four reach 6
    assert statistics.paired_permutation([1, 2, 3], [0, 0, 0]) == 0.25
    assert statistics.paired_permutation([1, 2, 3], [0, 0, 0], ["x", "x", "y"]) == 0.5
    assert statistics.paired_permutation([0.1, 0.2, -0.3], [0, 0, 0]) == 1  # a sum of 0, but for rounding
    assert statistics.paired_permutation([1, 2], [1, 2]) == 1
    # none of 99 drawn flips of 40 reaches 40 (chance 2 in 2^40 each): 1 / 100 and never 0
    assert statistics.paired_permutation([1] * 40, [0] * 40, draws=99) == 0.01


@QUICK
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 6)), min_size=2, max_size=12))
def test_the_permutation_test_does_not_care_who_is_first_about_scale_or_order(rows):
    rows += [(1, 7), (-1, 8)]
    a, clusters = map(list, zip(*rows, strict=True))
    b = [0] * len(a)
    p = statistics.paired_permutation(a, b, clusters)
    assert 0 < p <= 1
    assert p == statistics.paired_permutation(b, a, clusters)
    assert p == statistics.paired_permutation([0.1 * x + 7 for x in a], [7.0] * len(a), clusters)
    assert p == statistics.paired_permutation(a[::-1], b, clusters[::-1])
    sums = [sum(x for x, name in rows if name == cluster) for cluster in sorted(set(clusters))]
    assert p == statistics.paired_permutation(sums, [0] * len(sums))


def test_p_is_uniform_where_nothing_differs_and_not_when_clusters_are_forgotten():
    rng, names = np.random.default_rng(0), np.repeat(np.arange(20), 3)
    honest, naive = [], []
    for seed in range(300):
        a = rng.normal(size=20)[names] + 0.3 * rng.normal(size=60)  # items of a cluster go the same way
        honest.append(statistics.paired_permutation(a, np.zeros(60), names, draws=199, seed=seed))
        naive.append(statistics.paired_permutation(a, np.zeros(60), draws=199, seed=seed))
    assert stats.kstest(honest, "uniform").pvalue > 0.01
    assert np.mean(np.array(honest) <= 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(np.array(naive) <= 0.05) > 0.15


# ---------------------------------------------------------------- McNemar


def test_mcnemar_worked_by_hand():
    # 1 and 7 of 8: 2 (1 + 8) / 256 = 0.0703125; none differ: 1
    assert statistics.mcnemar(*answers(1, 1, 7, 12)) == 0.0703125
    assert statistics.mcnemar(*answers(3, 0, 0, 4)) == 1
    # with no ties the sign flips of right minus wrong are the same fair coins
    a, b = answers(1, 1, 7, 3)
    assert statistics.paired_permutation(a, b) == 0.0703125


# ---------------------------------------------------------------- families


def test_families_worked_by_hand():
    p = [0.01, 0.04, 0.03, 0.005]
    # Holm: .005 * 4 = .02, .01 * 3 = .03, .03 * 2 = .06, then .04 * 1 raised to .06
    found = compare.judged(pd.DataFrame({"p": p, "difference": 1}))
    assert found.p_holm.tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # BH: .005 * 4 / 1 = .02, .01 * 4 / 2 = .02, .03 * 4 / 3 = .04, .04
    assert found.p_bh.tolist() == pytest.approx([0.02, 0.04, 0.04, 0.02])
    # Benjamini & Hochberg 1995, section 4: of these 15 at 0.05, Bonferroni and Holm reject three, theirs four
    p = [1e-4, 4e-4, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1]
    family = pd.DataFrame({"p": p, "difference": 1})
    for by, rejected in (("p_holm", 3), ("p_bh", 4)):
        found = compare.judged(family, by=by)
        assert (found.verdict == compare.BETTER).sum() == rejected
        again = compare.judged(family[::-1], by=by)[::-1]  # the order of the family does not matter
        assert again[by].tolist() == pytest.approx(found[by].tolist())


# ---------------------------------------------------------------- effects


def test_the_paired_effect_of_darwins_maize():
    # mean 314 / 15 = 20.9333, standard deviation 37.7440
    assert statistics.paired_effect(DARWIN, NOTHING) == pytest.approx(20.9333 / 37.7440, abs=1e-5)
    t = stats.ttest_rel(DARWIN, NOTHING).statistic
    assert statistics.paired_effect(NOTHING, DARWIN) == pytest.approx(-t / math.sqrt(15))


@pytest.mark.parametrize(
    ("counts", "value", "low", "high"),
    [
        ((1, 1, 7, 12), -0.286, -0.507, -0.026),  # Fagerland, Lydersen & Laake 2014: airways before and after
        ((14, 5, 0, 22), 0.122, 0.011, 0.226),  # Altman et al. 2000, Statistics with Confidence, table 6.2
        ((36, 12, 2, 0), 0.200, 0.0569, 0.3404),  # φ = (0 - 24) / sqrt(48 2 38 12) = -0.115, from Wilson's ends
    ],
)
def test_the_difference_of_rates_from_books(counts, value, low, high):
    found = statistics.rate_difference(*answers(*counts))
    assert found == pytest.approx((value, low, high), abs=6e-4)


@QUICK
@given(st.tuples(*[st.integers(0, 15)] * 4).filter(sum))
def test_the_difference_of_rates_turns_round_and_stays_in_range(counts):
    a, b = answers(*counts)
    there, back = statistics.rate_difference(a, b), statistics.rate_difference(b, a)
    assert there == pytest.approx((-back.value, -back.high, -back.low), abs=1e-12)
    assert -1 - 1e-9 <= there.low <= there.value <= there.high <= 1 + 1e-9


def test_intervals_of_a_difference_of_rates_cover_it():
    # 46 ids; right together, alone, alone, not at all: difference 0.3 - 0.1
    rng, covered = np.random.default_rng(2), 0
    for counts in rng.multinomial(46, (0.4, 0.3, 0.1, 0.2), 600):
        found = statistics.rate_difference(*answers(*counts))
        covered += found.low <= 0.2 <= found.high
    assert 0.93 <= covered / 600 <= 0.97


# ---------------------------------------------------------------- power


def test_power_worked_by_hand_and_a_bench_too_small():
    # all 6 discordant: only 6 : 0 and 0 : 6 have p = 2 / 64 below 0.05; all 5: 2 / 32 is above it
    assert statistics.power_of(6, 1, share=0, discordant=1) == pytest.approx(1)
    assert statistics.power_of(5, 1, share=0, discordant=1) == 0
    assert statistics.power_of(6, 0, discordant=1) == pytest.approx(2 / 64)
    assert statistics.power_of(6, 0.5, share=0.25, discordant=1) == pytest.approx(0.75**6 + 0.25**6)
    # half of the ids discordant, all one way: at least 6 of 8 discordant
    expected = (math.comb(8, 6) + math.comb(8, 7) + 1) / 2**8
    assert statistics.power_of(8, 0.5, discordant=0.5) == pytest.approx(expected)
    # independent answers at a half are discordant half of the time
    assert statistics.power_of(40, 0.2) == pytest.approx(statistics.power_of(40, 0.2, discordant=0.5))
    assert statistics.power_of(9, 0, share=1) == 0
    assert math.isnan(statistics.detectable_difference(5))
    # the other system alone is right about at most 0.05, so 0.2 discordant are a difference of 0.1 or more
    assert statistics.detectable_difference(10**4, 0.05, 0.2) == pytest.approx(0.1)


@pytest.mark.parametrize(("share", "discordant"), [(0.5, None), (0.6, 0.3)])
def test_what_46_ids_can_show_is_what_simulation_finds(share, discordant):
    difference = statistics.detectable_difference(46, share, discordant)
    assert 0.2 < difference < 0.31
    other = share + difference  # the shares that one system alone gets right, of independent answers or of `discordant`
    better, worse = other * (1 - share), share * (1 - other)
    if discordant:
        better, worse = (discordant + difference) / 2, (discordant - difference) / 2
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(46, (better, worse, 1 - better - worse), 2000)
    p = {(a, b): statistics.mcnemar(*answers(0, a, b, 46 - a - b)) for a, b, _ in np.unique(drawn, axis=0).tolist()}
    assert np.mean([p[a, b] <= 0.05 for a, b, _ in drawn.tolist()]) == pytest.approx(0.8, abs=0.03)


@QUICK
@given(st.integers(12, 300), st.floats(0.1, 0.8), st.floats(0.05, 0.2))
def test_the_detectable_difference_has_its_power_and_shrinks_with_n(n, share, discordant):
    found = statistics.detectable_difference(n, share, discordant)
    if math.isnan(found):
        most = min(discordant, 2 * (1 - share) - discordant)
        assert statistics.power_of(n, most, share, discordant) < 0.8
    else:
        assert statistics.power_of(n, found, share, discordant) == pytest.approx(0.8, abs=1e-3)
        assert statistics.power_of(n, 0.9 * found, share, discordant) < 0.8
        assert statistics.detectable_difference(4 * n, share, discordant) < found


# ---------------------------------------------------------------- seeds and items


def test_variance_parts_of_a_printed_table_and_of_a_simulation():
    # Shrout & Fleiss 1979, table 2: six targets (items), four judges (seeds); mean squares 11.24, 32.49 and 1.02, so
    # between items (11.24 - 1.02) / 4 = 2.556, between judges (32.49 - 1.02) / 6 = 5.244
    rows = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = statistics.variance_parts(np.array(rows).T)
    assert found == pytest.approx((5.2444, 2.5556, 1.0194), abs=1e-4)
    assert found.between_items == pytest.approx(statistics.variance_parts(rows).between_seeds)
    rng = np.random.default_rng(0)
    tables = [rng.normal(0, 1, (8, 1)) + rng.normal(0, 2, 40) + rng.normal(0, 0.5, (8, 40)) for _ in range(200)]
    means = np.mean([statistics.variance_parts(table) for table in tables], axis=0)
    assert means == pytest.approx([1, 4, 0.25], rel=0.1)


@QUICK
@given(st.integers(2, 5), st.integers(2, 6), st.integers(0, 999), st.floats(-9, 9))
def test_variance_parts_do_not_care_about_order_or_level(seeds, items, seed, shift):
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(seeds, items))
    found = statistics.variance_parts(table)
    moved = rng.permutation(rng.permutation(table, axis=0), axis=1) + shift
    assert statistics.variance_parts(moved) == pytest.approx(found, abs=1e-9)
    assert statistics.variance_parts(3 * table) == pytest.approx([9 * part for part in found], abs=1e-9)
    assert min(found) >= 0


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: s.mean_interval([]), "values"),
        (lambda s: s.mean_interval([1, math.nan]), "NaN"),
        (lambda s: s.mean_interval([1, 2, 3], ["q", "q", "q"]), "one cluster"),
        (lambda s: s.mean_interval([1, 2, 3], ["q", "r"]), "2 clusters"),
        (lambda s: s.mean_interval([[1, 2]]), "shape"),
        (lambda s: s.mean_interval([1, 2], draws=0), "0 samples"),
        (lambda s: s.paired_permutation([1, 2], [1]), "b 1"),
        (lambda s: s.paired_permutation([1, 2], [1, None]), "NaN"),
        (lambda s: s.paired_permutation([1, 2], [2, 2], ["q", "q"]), "one cluster"),
        (lambda s: s.mcnemar([1, 0.5], [1, 0]), "must be 1"),
        (lambda s: s.rate_difference([], []), "shape"),
        (lambda s: s.paired_effect([1.1, 2.1], [1, 2]), "same"),
        (lambda s: s.paired_effect([1], [0]), "at least 2"),
        (lambda s: s.power_of(0, 0.1), "n 0"),
        (lambda s: s.power_of(46, 0.6), "difference 0.6"),
        (lambda s: s.power_of(46, -0.1), "difference -0.1"),
        (lambda s: s.power_of(46, 0.1, math.nan), "nan"),
        (lambda s: s.power_of(46, 0.1, level=0), "level 0"),
        (lambda s: s.detectable_difference(46, 0.9, 0.5), "share 0.9"),
        (lambda s: s.variance_parts([[1, 2, 3]]), "shape"),
        (lambda s: s.variance_parts([[1, 2], [3, math.nan]]), "NaN"),
    ],
)
def test_bad_input_is_answered_with_a_sentence(call, said):
    with pytest.raises(ValueError, match=said):
        call(statistics)
