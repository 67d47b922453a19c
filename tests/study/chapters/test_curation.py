"""The sentences of chapter 01 say what the numbers show, and no more."""

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrlhf_study.chapters import curation_summary

PLANTS = pd.DataFrame(
    [("crop", 0.6, 0.5, 0.7), ("noise", 0.99, 0.9, 1.0), ("tint", 0.8, 0.7, 0.9)],
    columns=["planted", "recall", "low", "high"],
)


def effect(even, random, sizes=(10, 100, 200)):
    """Every measure is `even` or `random` (mean, low, high) at every size."""
    ways = {"even over clusters": even, "at random": random}
    rows = [(m, how, n, *values) for m in curation_summary.MEASURES for how, values in ways.items() for n in sizes]
    return pd.DataFrame(rows, columns=["measure", "drawn", "queries", "mean", "low", "high"])


def test_best_and_worst_plant_and_where_drops_are_wrong():
    first, second = curation_summary.duplicates(PLANTS, {"sign": 2, "chart": 3}, 50)
    assert "most of noise 0.99 [0.90, 1.00], least of crop 0.60 [0.50, 0.70]" in first
    assert second == "5 of 50 drops join two different scenes (chart 3, sign 2)."
    assert curation_summary.duplicates(PLANTS, {}, 50)[1] == "0 of 50 drops join two different scenes."


def test_without_plants_nothing_is_claimed_of_them():
    (said,) = curation_summary.duplicates(PLANTS[:0], {}, 7)
    assert "not known" in said


def test_the_gate_names_byte_equal_pictures_only_where_there_are_some():
    assert curation_summary.gate({"hash": 2, "exact": 7}, 49, 50) == [
        "Queries that leave at the gate: 9 (exact 7, hash 2).",
        "Of these, with a picture that is in an evaluation set byte for byte: 7.",
        "49 of 50 canaries are noticed: 0.98 [0.90, 1.00].",
    ]
    assert curation_summary.gate({}, 0, 0) == ["Queries that leave at the gate: 0."]


def test_a_verdict_needs_intervals_that_do_not_meet():
    for even, random, word in (
        ((0.9, 0.8, 1.0), (0.5, 0.4, 0.6), "higher"),
        ((0.5, 0.4, 0.6), (0.9, 0.8, 1.0), "lower"),
        ((0.5, 0.4, 0.6), (0.6, 0.6, 0.7), "not told apart"),
    ):
        said = curation_summary.drawing({"long": (1, 4)}, effect(even, random))
        assert said[0].endswith("long 1 of 4.")
        assert [line.endswith(f": {word}.") for line in said[1:4]] == [True] * 3
        assert "at 10 queries" in said[4]
        assert "from 100, adds +0.000" in said[4]
    assert len(curation_summary.drawing({}, effect(even, random, sizes=(10,)))) == 4


@settings(deadline=None)
@given(st.integers(1, 60), st.data())
def test_the_attack_does_more_only_when_it_does(n, data):
    chance, aimed = (data.draw(st.integers(0, n)) for _ in range(2))
    (said,) = curation_summary.attack({"random": chance, "attack": aimed}, n, 3, 5)
    assert "Of the 5 taken into the set, 3 mislead." in said
    if "the attack does more" in said:
        assert aimed > chance
    if n > 20 and (chance, aimed) == (0, n):
        assert "the attack does more" in said


def test_no_attack_no_sentence():
    assert curation_summary.attack({"random": 0, "attack": 0}, 0, 0, 0) == []
