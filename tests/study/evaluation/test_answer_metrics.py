"""Each scorer on ten answers by hand, and what holds for any answer."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrlhf_study.evaluation import metrics

LONG = "so the picture goes on and on " * 4000
OPTIONS = ("red", "blue", "dark red", "green")
texts = st.text(max_size=40)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("bus", 1),
        ("So the answer is Bus.", 1),
        ("at middle the word bus . so the answer is bus .", 1),
        ("The answer is: the BUS!", 1),
        ("ｂｕｓ", 1),  # full-width letters are the same letters
        ("buses", 0),
        ("the answer is bus or taxi", 0),
        ("автобус", 0),
        ("", 0),
        (LONG, 0),
    ],
)
def test_exact_match(answer, value):
    assert metrics.exact_match(answer, ["bus"]) == value


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("so the answer is blue (b) .", "b"),
        ("B", "b"),
        ("(b)", "b"),
        ("blue", "b"),  # the text instead of the letter
        ("at b3 a large red circle . so the answer is dark red (c) .", "c"),
        ("the answer is blue (a)", ""),  # letter and text of two options
        ("(a) or (b)", ""),
        ("(e)", ""),
        ("синий", ""),
        ("", ""),
        (LONG, ""),
        ("A nice picture", ""),  # an article is no choice
        ("dark red", "c"),  # and not also `red`
    ],
)
def test_option_letter(answer, letter):
    assert metrics.option_letter(answer, OPTIONS) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("so the answer is 3 .", "b"), ("3", "b"), ("(3)", "b"), ("b", "b"), ("9", ""), ("3 (c)", "")],
)
def test_a_digit_is_an_options_text_and_no_letter(answer, letter):
    assert metrics.option_letter(answer, ("1", "3", "5", "7")) == letter


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        ("105", "100", 1),
        ("so the answer is 95 .", "100", 1),
        ("105.1", "100", 0),
        ("-100", "100", 0),
        ("1,050", "1000", 1),
        ("5 %", "0.05", 1),
        ("5%", "5", 0),  # as published, a percentage is a hundredth
        ("0", "0", 1),
        ("0.01", "0", 0),  # 5 % of nothing is nothing
        ("Red.", "red", 1),  # no number: exact match
        ("сто", "100", 0),
        ("nan", "100", 0),
        ("", "100", 0),
        (LONG, "100", 0),
    ],
)
def test_relaxed_match(answer, reference, value):
    assert metrics.relaxed_match(answer, [reference]) == value


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("hotel", 1),
        ("HOTEL ", 1),
        ("so the answer is hotel .", 1),
        ("motel", 0.8),  # 1 of 5 letters
        ("hotels", 5 / 6),
        ("hot", 0.6),
        ("ho", 0),  # 3 of 5 differ: over a half
        ("отель", 0),
        ("", 0),
        (LONG, 0),
    ],
)
def test_anls(answer, value):
    assert metrics.anls(answer, ["hotel"]) == pytest.approx(value)


def test_anls_takes_the_best_reference_and_half_is_none():
    assert metrics.anls("motel", ["hostel", "motel"]) == 1
    assert metrics.anls("ab", ["abcd"]) == metrics.anls("abxy", ["abcd"]) == 0  # distance exactly a half


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("yes", "yes"),
        ("No, there is none.", "no"),
        ("at b3 nothing . so the answer is no .", "no"),
        ("YES!", "yes"),
        ("yes and no", ""),
        ("nothing of the kind", ""),  # `no` is not a word in it
        ("know", ""),
        ("да", ""),
        ("", ""),
        (LONG, ""),
    ],
)
def test_yes_no(answer, said):
    assert metrics.yes_no(answer) == said


def test_pope_worked_by_hand():
    # 4 questions to answer with yes, 6 with no; said: 3 of 4 yes, 1 neither; 2 of 6 yes, 4 no
    said = ["yes"] * 3 + [""] + ["yes"] * 2 + ["no"] * 4
    true = ["yes"] * 4 + ["no"] * 6
    sums = np.sum([metrics.pope_columns(*pair) for pair in zip(said, true, strict=True)], axis=0)
    found = metrics.pope(sums, 4)
    assert found.accuracy == pytest.approx(7 / 10)
    assert found.precision == pytest.approx(3 / 5)
    assert found.recall == pytest.approx(3 / 4)
    assert found.f1 == pytest.approx(2 * 0.6 * 0.75 / 1.35)
    assert (found.yes_rate, found.unanswered) == (pytest.approx(0.5), pytest.approx(0.1))
    always = metrics.pope(np.array([5.0, 5.0, 0, 0, 0]), 5)
    assert (always.accuracy, always.recall, always.yes_rate) == (0.5, 1, 1)
    silent = metrics.pope(np.array([0, 0, 0, 0, 8.0]), 4)
    assert (silent.accuracy, silent.f1, silent.yes_rate, silent.unanswered) == (0, 0, 0, 1)
    assert metrics.pope(np.zeros(5), 0).accuracy == 0
    with pytest.raises(ValueError, match="answered by yes or no"):
        metrics.pope_columns("yes", "maybe")


NAMES = {"red circle", "circle", "square", "blue square"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("at b3 a red circle .", ["red circle"]),
        ("a Red-Circle!", ["red circle"]),
        ("a circle, a circle", ["circle", "circle"]),
        ("a blue square", ["blue square"]),
        ("a blue circle", ["circle"]),
        ("circles", []),
        ("круг", []),
        ("", []),
        ("red", []),
        (LONG, []),
    ],
)
def test_objects(text, named):
    assert metrics.objects(text, NAMES) == named


def test_chair_worked_by_hand():
    # three descriptions: 3 mentions with 1 wrong, 2 with none wrong, silence: i = 1/5, s = 1/3
    told = (["circle", "square", "red circle"], ["circle", "circle"], [])
    sums = np.sum([metrics.chair_columns(named, {"circle", "red circle"}) for named in told], axis=0)
    assert metrics.chair(sums, 3) == (pytest.approx(1 / 5), pytest.approx(1 / 3))
    assert metrics.chair(np.zeros(3), 0) == (0, 0)


@settings(max_examples=50)
@given(texts)
def test_every_metric_takes_any_text(text):
    assert metrics.option_letter(text, OPTIONS) in ("", "a", "b", "c", "d")
    assert metrics.yes_no(text) in ("", "yes", "no")
    for value in (metrics.exact_match(text, ["x"]), metrics.relaxed_match(text, ["1"]), metrics.anls(text, ["x y"])):
        assert 0 <= value <= 1
    assert metrics.number(text) is None or math.isfinite(metrics.number(text))
    assert set(metrics.objects(text, NAMES)) <= NAMES


@given(st.text("abc ", max_size=8), st.text("abc ", max_size=8), st.text("abc ", max_size=8))
def test_edit_distance_is_a_distance(a, b, c):
    assert metrics.edit_distance(a, b) == metrics.edit_distance(b, a)
    assert (metrics.edit_distance(a, b) == 0) == (a == b)
    assert metrics.edit_distance(a, c) <= metrics.edit_distance(a, b) + metrics.edit_distance(b, c)
    assert abs(len(a) - len(b)) <= metrics.edit_distance(a, b) <= max(len(a), len(b))


@given(st.lists(st.tuples(st.sampled_from(["yes", "no", ""]), st.sampled_from(["yes", "no"])), max_size=12))
def test_pope_counts_as_by_hand(pairs):
    sums = np.sum([metrics.pope_columns(*pair) for pair in pairs] or [np.zeros(5)], axis=0)
    found = metrics.pope(sums, sum(true == "yes" for _, true in pairs))
    right = [said == true for said, true in pairs]
    assert found.accuracy == pytest.approx(np.mean(right) if right else 0)
    yes = [true == "yes" for said, true in pairs if said == "yes"]
    assert found.precision == pytest.approx(np.mean(yes) if yes else 0)


@given(st.integers(-(10**6), 10**6), st.floats(-0.2, 0.2))
def test_relaxed_is_within_five_percent(reference, apart):
    value = reference * (1 + apart)
    close = abs(value - reference) <= 0.05 * abs(reference)
    if abs(abs(apart) - 0.05) > 1e-6:
        assert metrics.relaxed_match(f"{value:.12f}", [str(reference)]) == close
