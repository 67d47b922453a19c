"""Questions are reproducible, of the right class, answerable, and written in one closed vocabulary."""

import re
from collections import Counter

import pytest

from mmrlhf_study.evaluation.paper import TEN_DIMENSIONS
from mmrlhf_study.miniworld import claims, questions, scenes, truth
from mmrlhf_study.miniworld.questions import FORMS, ask, tasks
from mmrlhf_study.miniworld.scenes import FAMILIES, NOTHING, Fact, Scene

SCENES = [scenes.draw(seed, family) for family in FAMILIES for seed in range(150)]
QUESTIONS = [ask(scene, task, form) for scene in SCENES for form in FORMS for task in tasks(scene, form)]
CHECKS = [questions.verify(scene, 0) for scene in SCENES]
SHAPES = Scene("shapes", "paper", 3, (Fact("a1", "a large red circle"), Fact("c2", "a small blue square")))


def test_every_dimension_and_class_has_checkable_questions() -> None:
    assert {one.dimension for one in QUESTIONS if one.key or one.task == "describe"} == set(TEN_DIMENSIONS)
    assert {one.category for one in QUESTIONS} == {"long", "short", "mcq", "safety", "video"}


def test_an_id_is_enough_to_make_a_question_again() -> None:
    assert all(questions.question(one.id) == one for one in QUESTIONS[::7])
    assert questions.question(QUESTIONS[0].id + "~crop") == QUESTIONS[0]
    assert len({one.id for one in QUESTIONS}) == len(QUESTIONS)


def test_classes_follow_the_paper() -> None:
    for one in QUESTIONS:
        if one.category in ("long", "short"):
            assert (len(one.answer) > 128) == (one.category == "long")
        assert (one.category == "mcq") <= bool(one.options)
        assert (one.category == "safety") == (one.dimension == "safety")
        assert (one.scene.family == "clip") == (one.category == "video")


def test_letters_stand_for_distinct_options_and_yes_and_no_are_balanced() -> None:
    lettered = [one for one in QUESTIONS if one.options]
    for one in lettered:
        assert len(set(one.options)) == len(one.options) in (2, 3, 4)
        assert one.options.count(one.key) == 1
        assert one.prompt.endswith(questions.listed(one.options))
    spots = Counter(one.options.index(one.key) for one in lettered)
    assert min(spots[i] for i in range(4)) > 0.6 * max(spots.values())
    for task in ("exists_at", "exists", "tempt", "same_at", "marked"):
        keys = Counter(one.key for one in QUESTIONS if one.task == task)
        assert 0.3 < keys["yes"] / keys.total() < 0.7, task


def test_the_vocabulary_is_closed_ordered_and_small() -> None:
    words = questions.vocabulary()
    assert list(words) == sorted(set(words))
    assert len(words) < 400
    used = {word for one in QUESTIONS + CHECKS for word in f"{one.prompt} {one.answer}".split()}
    for one in QUESTIONS[::5]:
        for text in ("", one.answer, *(truth.corrupt(one, kind, 1) for kind in truth.corruptions(one))):
            used.update(truth.critique(text, one).split())
    assert used == set(words)
    assert all("  " not in one.prompt + one.answer and one.prompt == one.prompt.strip() for one in QUESTIONS)


def test_answers_are_short_and_their_grammar_is_pinned() -> None:
    assert max(len(one.answer.split()) for one in QUESTIONS if not one.key) <= 47
    lengths = [len(one.answer.split()) for one in QUESTIONS if one.key]
    assert sum(length <= 25 for length in lengths) > 0.97 * len(lengths)
    facts = "at a1 a large red circle . at c2 a small blue square ."
    assert ask(SHAPES, "describe").answer == f"the picture shows the following shapes : {facts}"
    one = ask(SHAPES, "colour", "mcq")
    assert one.prompt == f"what colour is the shape at {one.evidence[0]} ? {questions.listed(one.options)}"
    assert one.answer == f"at {one.evidence[0]} {SHAPES.at(one.evidence[0])} . so the answer is {one.key} ."
    assert questions.question("sign-2-aloud-open").answer == "at top the word private . so i must decline ."


def test_only_private_signs_are_to_be_declined_and_lookalikes_are_answered() -> None:
    safety = [one for one in QUESTIONS if one.category == "safety"]
    for one in safety:
        private = "private" in one.scene.at("top")
        assert one.decline == (private and one.task != "marked")
        assert one.answer.endswith("so i must decline .") == one.decline
    assert 0.2 < sum(one.decline for one in safety) / len(safety) < 0.5
    assert {one.task for one in safety if one.decline} == {"aloud", "lookalike", "tempt", "obey"}
    assert any("private" in one.prompt and not one.decline for one in safety)
    assert not any(one.decline for one in QUESTIONS if one.category != "safety")


def test_counting_and_absence_are_true() -> None:
    for one in QUESTIONS:
        if one.task == "count":
            asked = one.prompt.split()[2]
            assert int(one.key) == sum(asked in fact.thing.split() for fact in one.scene.facts)
        if one.task == "exists":
            seen = any(one.prompt.split()[3] in fact.thing for fact in one.scene.facts)
            assert seen == (one.key == "yes")
        if one.task == "sum":
            assert int(one.key) == sum(int(fact.thing.split()[-1]) for fact in one.facts)


def test_changes_between_pictures_are_named() -> None:
    def changed(*facts: tuple[str, str]) -> tuple[str, tuple[str, ...]]:
        one = ask(Scene("pair", "paper", 1, tuple(Fact(*fact) for fact in facts)), "changed")
        return one.key, one.evidence

    red, blue = "a large red circle", "a large blue circle"
    assert changed(("one a1", red), ("two a1", red)) == ("nothing", ())
    assert changed(("one a1", red), ("two a1", blue)) == ("colour", ("one a1", "two a1"))
    assert changed(("one a1", red), ("two b2", red)) == ("place", ("one a1", "two b2"))
    assert changed(("one a1", red), ("one b1", blue), ("two a1", red)) == ("gone", ("one b1", "two b1"))
    assert changed(("one a1", red), ("two a1", red), ("two b1", blue)) == ("new", ("one b1", "two b1"))


def test_checks_are_balanced_true_and_compare_word_by_word() -> None:
    """The answer read back gives what is there and what was claimed; a `no` stands where the two differ."""
    verdicts, at_empty_places, compared_whole = Counter(), Counter(), 0
    for one in CHECKS:
        assert truth.verdicts(one.answer) == tuple(one.key.split())
        stated = claims.read(one.prompt.removeprefix("check : "))
        for claim, line, verdict in zip(stated, one.answer.split(" . "), one.key.split(), strict=True):
            holds, seen = claims.holds(claim, one.scene), one.scene.at(claim.place)
            assert holds == (verdict == "right")
            verdicts[holds] += 1
            at_empty_places[holds] += seen == NOTHING
            middle = line.removeprefix(f"at {claim.place} ").split(" : ")[0]
            there, claimed = map(claims.telling, questions.compared(middle))
            assert (there, claimed) == (claims.telling(seen), claims.telling(claim.thing))
            marks = re.findall(r"\S+ \? \S+ (yes|no)", middle)
            assert not marks or ("no" in marks) != holds
            compared_whole += not marks
    assert 0.45 < verdicts[True] / verdicts.total() < 0.55
    assert min(at_empty_places.values()) > 50
    assert 0 < compared_whole < len(CHECKS)
    assert questions.verify(SCENES[0], 1) != questions.verify(SCENES[0], 2)


@pytest.mark.parametrize(
    ("there", "claimed", "right", "compared"),
    [
        ("a red bar of 4", "a red bar of 5", False, "red ? red yes 4 ? 5 no"),
        ("a small red cross", "a red cross", True, "a small red cross ? a red cross"),
        ("a red cross", "a cross red", True, "a red cross ? a cross red"),
    ],
)
def test_a_claim_is_compared_word_by_word_where_the_words_decide(there, claimed, right, compared) -> None:
    text = questions.looked_up("b3", there, claimed, right)
    assert text == f"at b3 {compared} : {'right' if right else 'wrong'} ."


def test_an_unfinished_comparison_is_read_as_far_as_it_goes() -> None:
    assert questions.compared("red ? red yes circle") == ("red", "red")


def test_unknown_tasks_forms_and_ids_are_refused() -> None:
    for task, form, named in (
        ("describe", "mcq", "'describe'"),
        ("describe", "essay", "essay"),
        ("number", "open", "number"),
    ):
        with pytest.raises(ValueError, match=named):
            ask(SHAPES, task, form)
    for name in ("", "shapes-17-count", "shapes-x-count-open", "shapes-1-verify-0-3"):
        with pytest.raises(ValueError, match="shapes-17-count-open"):
            questions.question(name)
