"""Questions are reproducible, of the right class, answerable, and written in one closed vocabulary."""

import re
from collections import Counter

import pytest

from mmrlhf_study.miniworld import claims, questions, scenes, truth
from mmrlhf_study.miniworld.questions import FORMS, LETTERS, ask, tasks
from mmrlhf_study.miniworld.scenes import FAMILIES, NOTHING, Fact, Scene

SCENES = [scenes.draw(seed, family) for family in FAMILIES for seed in range(150)]
QUESTIONS = [ask(scene, task, form) for scene in SCENES for form in FORMS for task in tasks(scene, form)]
CHECKS = [questions.verify(scene, 0) for scene in SCENES]
SHAPES = Scene("shapes", "paper", 3, (Fact("a1", "a large red circle"), Fact("c2", "a small blue square")))


def test_every_dimension_and_class_has_checkable_questions() -> None:
    assert {one.dimension for one in QUESTIONS if one.key or one.task == "describe"} == set(questions.SCENE_DIMENSIONS)
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


def test_letters_stand_for_distinct_options_and_one_is_right() -> None:
    lettered = [one for one in QUESTIONS if one.options]
    for one in lettered:
        assert len(set(one.options)) == len(one.options) in (2, 3, 4)
        assert one.options.count(one.key) == 1
        assert one.prompt.endswith(questions.listed(one.options))
    spots = Counter(one.options.index(one.key) for one in lettered)
    assert min(spots[i] for i in range(4)) > 0.6 * max(spots.values())


def test_yes_and_no_are_balanced() -> None:
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


def test_answers_are_short() -> None:
    assert max(len(one.answer.split()) for one in QUESTIONS if not one.key) <= 47
    assert sum(len(one.answer.split()) <= 25 for one in QUESTIONS if one.key) > 0.97 * sum(
        bool(q.key) for q in QUESTIONS
    )


def test_texts_are_what_the_chapters_show() -> None:
    assert ask(SHAPES, "describe").answer == (
        "the picture shows the following shapes : at a1 a large red circle . at c2 a small blue square ."
    )
    one = ask(SHAPES, "colour", "mcq")
    listed = " ".join(f"{letter} {option}" for letter, option in zip(LETTERS, one.options, strict=True))
    assert one.prompt == f"what colour is the shape at {one.evidence[0]} ? {listed}"
    assert one.answer == f"at {one.evidence[0]} {SHAPES.at(one.evidence[0])} . so the answer is {one.key} ."
    sign = Scene("sign", "paper", 1, (Fact("top", "the word private"), Fact("bottom", "the number 4 7")))
    assert ask(Scene("sign", "paper", 1, (*sign.facts, Fact("middle", "the word cafe"))), "aloud").answer == (
        "at top the word private . so i must decline ."
    )


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


def test_checks_are_balanced_and_true() -> None:
    verdicts = Counter(word for one in CHECKS for word in one.key.split())
    assert 0.45 < verdicts["right"] / verdicts.total() < 0.55
    empty = Counter()
    for one in CHECKS:
        assert truth.verdicts(one.answer) == tuple(one.key.split())
        said = claims.read(one.prompt.removeprefix("check : "))
        assert [claims.holds(claim, one.scene) for claim in said] == [word == "right" for word in one.key.split()]
        empty.update(claims.holds(claim, one.scene) for claim in said if one.scene.at(claim.place) == NOTHING)
    assert min(empty.values()) > 50
    assert questions.verify(SCENES[0], 1) != questions.verify(SCENES[0], 2)


def test_claims_are_looked_up_word_by_word() -> None:
    """The answer read back gives what is there and what was claimed; a `no` stands where the two differ."""
    whole = 0
    for one in CHECKS:
        said = claims.read(one.prompt.removeprefix("check : "))
        for claim, line in zip(said, one.answer.split(" . "), strict=True):
            middle = line.removeprefix(f"at {claim.place} ").split(" : ")[0]
            there, thing = questions.compared(middle)
            assert claims.telling(there) == claims.telling(one.scene.at(claim.place))
            assert claims.telling(thing) == claims.telling(claim.thing)
            marks = re.findall(r"\S+ \? \S+ (yes|no)", middle)
            assert not marks or ("no" in marks) != claims.holds(claim, one.scene)
            whole += not marks
    assert 0 < whole < len(CHECKS)
    assert (
        questions.looked_up("b3", "a red bar of 4", "a red bar of 5", False) == "at b3 red ? red yes 4 ? 5 no : wrong ."
    )
    assert questions.looked_up("b3", "a small red cross", "a red cross", True) == (
        "at b3 a small red cross ? a red cross : right ."
    )
    assert questions.looked_up("b3", "a red cross", "a cross red", True) == "at b3 a red cross ? a cross red : right ."
    assert questions.compared("red ? red yes circle") == ("red", "red")


def test_what_is_not_allowed_is_said() -> None:
    with pytest.raises(ValueError, match="No mcq task 'describe'"):
        ask(SHAPES, "describe", "mcq")
    for name in ("", "shapes-17-count", "shapes-x-count-open", "shapes-1-verify-0-3"):
        with pytest.raises(ValueError, match="Ids look like"):
            questions.question(name)
    with pytest.raises(ValueError, match="Forms: open, mcq"):
        ask(SHAPES, "describe", "essay")
    with pytest.raises(ValueError, match="No open task 'number'"):
        ask(SHAPES, "number")
