"""Variants of the ranked rows, and β of every pair against the formula."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmrlhf_core.data.records import Pair
from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_core.training.losses import Objective
from mmrlhf_study.chapters import ranked_rows

PAIRS = [
    Pair("q", "q/0", "q/1", steps=1, split="train"),
    Pair("q", "q/0", "q/2", steps=2, split="train"),
    Pair("q", "q/1", "q/2", steps=1, split="train"),
    Pair("p", "p/1", "p/0", split="test"),
]


def test_the_hardest_pairs_are_best_against_worst():
    assert ranked_rows.hardest(PAIRS) == [PAIRS[1], PAIRS[3]]


def test_published_pairs_do_not_say_how_far_apart_and_their_ranking_does():
    published = [replace(pair, steps=1) for pair in PAIRS]
    assert [(p.chosen, p.rejected) for p in ranked_rows.hardest(published)] == [("q/0", "q/2"), ("p/1", "p/0")]
    partial = [published[0], published[1]]  # a > b and a > c: two ranks, both pairs equally hard
    assert ranked_rows.hardest(partial) == partial


def rows_of(deltas):
    """One row for each list of margins, two answers and as many pairs of them."""
    return [
        RankedRow(f"r{n}", "?", "text", (), ("a", "b"), (0,) * len(some), (1,) * len(some), tuple(some))
        for n, some in enumerate(deltas)
    ]


DELTAS = st.lists(st.lists(st.floats(-50, 50), min_size=1, max_size=4), min_size=1, max_size=6)


@given(DELTAS, st.integers(0, 10), st.integers(0, 2**31))
def test_a_sample_keeps_rows_and_order(deltas, count, seed):
    rows = rows_of(deltas)
    some = ranked_rows.sample(rows, count, seed)
    assert len(some) == (min(count, len(rows)) if count else len(rows))
    assert [row for row in rows if row in some] == some
    assert ranked_rows.sample(rows, count, seed) == some


@given(DELTAS, st.integers(0, 2**31))
def test_shuffled_margins_are_the_same_numbers_on_the_same_rows(deltas, seed):
    rows = rows_of(deltas)
    dealt = ranked_rows.shuffled(rows, seed)
    assert sorted(d for row in dealt for d in row.margins) == sorted(d for row in rows for d in row.margins)
    assert [replace(row, margins=()) for row in dealt] == [replace(row, margins=()) for row in rows]


def test_shuffling_moves_margins_to_other_pairs():
    rows = rows_of([[float(n)] for n in range(40)])
    assert sum(a.margins == b.margins for a, b in zip(rows, ranked_rows.shuffled(rows, 1), strict=True)) < 10


@given(DELTAS, st.floats(0.01, 1), st.floats(0, 2), st.floats(0, 2), st.sampled_from(["clamp", "paper", "drop"]))
def test_beta_of_every_pair_is_the_formula_in_numpy(deltas, beta_ori, w, k, negative):
    delta = np.array([d for some in deltas for d in some])
    read = delta if negative == "paper" else np.maximum(delta, 0)
    formula = beta_ori * (1 + w * (1 - np.exp(-k * read)))
    formula = np.where((negative == "drop") & (delta < 0), 0, formula)
    made = ranked_rows.betas(rows_of(deltas), Objective("mm_dpo", beta_ori, w, k, negative))
    assert [one.delta for one in made] == delta.tolist()
    np.testing.assert_allclose([one.beta for one in made], formula, rtol=1e-9, atol=1e-12)
