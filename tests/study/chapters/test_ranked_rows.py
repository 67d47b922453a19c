"""From pairs and margins to ranked rows: what they hold, what is refused, and β of every pair against the formula."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrlhf_core.data import records
from mmrlhf_core.data.records import Pair, Query, RecordError, Response
from mmrlhf_core.rollout.score import Margin
from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_core.training.losses import Objective
from mmrlhf_study.chapters import ranked_rows

QUERIES = [Query("q", "is it red ?", "image", ("q.png",)), Query("p", "what ?", "text", ())]
RESPONSES = [Response(f"q/{n}", "q", "m", text) for n, text in enumerate(("yes", "no", "maybe", "unranked"))]
RESPONSES += [Response(f"p/{n}", "p", "m", text) for n, text in enumerate(("this", "that"))]
PAIRS = [
    Pair("q", "q/0", "q/1", steps=1, split="train"),
    Pair("q", "q/0", "q/2", steps=2, split="train"),
    Pair("q", "q/1", "q/2", steps=1, split="train"),
    Pair("p", "p/1", "p/0", split="test"),
]


def margins(model="m", **changed):
    scores = {"q/0": 2.0, "q/1": 0.5, "q/2": 1.0, "p/0": 0.0, "p/1": 0.25, **changed}
    return [Margin(p.query, p.chosen, p.rejected, scores[p.chosen], scores[p.rejected], model) for p in PAIRS]


def build(pairs=PAIRS, scored=None):
    return ranked_rows.build(QUERIES, RESPONSES, pairs, margins() if scored is None else scored)


def test_rows_hold_the_ranked_responses_their_pairs_and_margins():
    made = build()
    assert {part: len(rows) for part, rows in made.items()} == {"train": 1, "dev": 0, "test": 1}
    row = made["train"][0]
    assert row.responses == ("yes", "no", "maybe")
    assert list(zip(row.winners, row.losers, row.margins, strict=True)) == [(0, 1, 1.5), (0, 2, 1.0), (1, 2, -0.5)]
    assert (row.prompt, row.modality, row.media) == ("is it red ?", "image", ("q.png",))
    assert made["test"][0].margins == (0.25,)


def test_a_pair_without_a_margin_is_refused_and_named():
    with pytest.raises(
        ValueError, match=r"1 of 4 pairs have no margin, the first 'q/1' over 'q/2' of query 'q'\. Score"
    ):
        build(scored=[m for m in margins() if (m.chosen, m.rejected) != ("q/1", "q/2")])


def test_margins_of_two_models_are_refused():
    with pytest.raises(ValueError, match=r"come from 2 reward models \(a, b\)"):
        build(scored=[*margins("a")[:2], *margins("b")[2:]])


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_margin_that_is_no_finite_number_is_refused_when_made_and_when_read(tmp_path, value):
    with pytest.raises(RecordError, match=r"Margin\.r_w is (-?inf|nan); only finite numbers"):
        Margin("q", "q/0", "q/1", value, 0.0)
    records.write(tmp_path / "margins.parquet", margins())
    table = pq.read_table(tmp_path / "margins.parquet")
    wrong = pa.array([value, *table["r_w"].to_pylist()[1:]])
    place = table.schema.get_field_index("r_w")
    pq.write_table(table.set_column(place, table.schema.field(place), wrong), tmp_path / "margins.parquet")
    with pytest.raises(RecordError, match=r"margins\.parquet, row 1: Margin\.r_w is"):
        records.read(tmp_path / "margins.parquet", Margin)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (Pair("q", "q/0", "q/9", split="train"), "names 'q/9', which is not among the responses"),
        (Pair("q", "p/0", "q/1", split="train"), "names 'p/0', which is a response to 'p'"),
        (Pair("x", "q/0", "q/1", split="train"), "names query 'x', which is not among the queries"),
        (Pair("q", "q/0", "q/1"), "is in no part; give each one of train, dev, test"),
        (Pair("q", "q/2", "q/1", split="dev"), "are in dev, train; put them in one part"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(pair, message):
    scored = [*margins(), Margin(pair.query, pair.chosen, pair.rejected, 1.0, 0.0, "m")]
    with pytest.raises(RecordError, match=message):
        build([*PAIRS, pair], scored)


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
