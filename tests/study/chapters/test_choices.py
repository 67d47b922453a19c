"""Pairs from scored answers: duplicates once, blank ones last, cut ones never first, ties by a threshold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrlhf_core.data.records import Query
from mmrlhf_study.chapters import choices

TEXTS = st.sampled_from(["a", "b", "c", "d", "", " "])
ANSWERS = st.lists(st.tuples(TEXTS, st.booleans()), min_size=1, max_size=8)


def choose(texts, scores, finished=None, **how):
    return choices.choose(texts, finished or [True] * len(texts), scores, **how)


def test_best_against_worst_and_all_pairs_by_hand():
    texts, scores = ["a", "b", "c", "d"], [2.0, 5.0, 1.0, 2.0]
    assert choose(texts, scores).pairs == ((1, 2),)
    # 5 beats 2, 1, 2; each 2 beats 1; the two 2s are tied
    assert set(choose(texts, scores, how="all").pairs) == {(1, 0), (1, 2), (1, 3), (0, 2), (3, 2)}
    assert set(choose(texts, scores, how="all", tie=1.0).pairs) == {(1, 0), (1, 2), (1, 3)}
    assert choose(texts, scores, tie=4.0) == choices.Chosen((), "tie")


def test_of_equal_answers_the_first_stands_for_all():
    assert choose(["a", "b", "a", "b"], [1.0, 0.0, 1.0, 0.0], how="all").pairs == ((0, 1),)
    assert choose(["a", "a"], [1.0, 1.0]) == choices.Chosen((), "one answer")
    assert choose(["a"], [1.0]) == choices.Chosen((), "one answer")


def test_a_blank_answer_is_below_all_others():
    assert choose(["", "a", "b"], [9.0, 1.0, 1.0]).pairs == ((1, 0),)
    assert set(choose(["", "a", "b"], [9.0, 1.0, 1.0], how="all").pairs) == {(1, 0), (2, 0)}
    assert choose(["", " "], [1.0, 0.0]) == choices.Chosen((), "nothing to choose")


def test_an_answer_cut_off_is_never_the_better_one():
    assert choose(["a", "b", "c"], [9.0, 2.0, 1.0], [False, True, True]).pairs == ((1, 2),)
    assert choose(["a", "b", "c"], [0.0, 2.0, 1.0], [False, True, True]).pairs == ((1, 0),)
    assert choose(["a", "b"], [9.0, 2.0], [False, False]) == choices.Chosen((), "nothing to choose")
    assert choose(["a", "b"], [9.0, 2.0], [False, True]) == choices.Chosen((), "tie")


def test_scores_all_equal_give_no_pair():
    for how in choices.PAIR_CHOICES:
        assert choose(["a", "b", "c"], [0.3] * 3, how=how) == choices.Chosen((), "tie")


@given(ANSWERS, st.data(), st.sampled_from(choices.PAIR_CHOICES), st.floats(0, 3))
def test_every_pair_is_sound(answers, data, how, tie):
    texts, finished = zip(*answers, strict=True)
    given_scores = {text: data.draw(st.floats(-5, 5)) for text in texts}
    scores = [given_scores[text] for text in texts]
    found = choices.choose(texts, finished, scores, how, tie)
    assert bool(found.pairs) != bool(found.without)
    assert len({(texts[a], texts[b]) for a, b in found.pairs}) == len(found.pairs)
    for better, worse in found.pairs:
        assert finished[better]
        assert texts[better].strip()
        assert texts[better] != texts[worse]
        assert not texts[worse].strip() or scores[better] - scores[worse] > tie
    everything = choices.choose(texts, finished, scores, "all", tie)
    assert bool(everything.pairs) == bool(found.pairs)
    assert set(found.pairs) <= set(everything.pairs)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"how": "adjacent"}, "hardest or all"),
        ({"tie": -1.0}, "0 or more"),
        ({"scores": [1.0]}, "2 answers, 2 ends and 1 scores"),
    ],
)
def test_wrong_input_is_named(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        choose(["a", "b"], **{"scores": [1.0, 2.0], **wrong})


def test_a_row_keeps_the_answers_of_its_pairs():
    query = Query("q", "what ?", "text", ())
    row = choices.row(query, ["a", "b", "c", "d"], [(3, 1), (3, 2)])
    assert (row.responses, row.winners, row.losers) == (("d", "b", "c"), (0, 0), (1, 2))
    alone = choices.row(query, ["a", "b"], [])
    assert (alone.responses, alone.winners, alone.losers) == (("a",), (), ())
