"""The four kinds of case: the truth prefers the better response, people mostly do, and the kinds are what they say."""

from statistics import fmean

from mmrlhf_study.annotation import hard_cases
from mmrlhf_study.miniworld import annotators, claims, scenes, truth

CASES = hard_cases.draw(15, 0)


def test_each_kind_has_its_number_and_the_truth_prefers_the_better():
    assert [one.kind for one in CASES] == [kind for kind in hard_cases.CASE_KINDS for _ in range(15)]
    for one in CASES:
        assert truth.check(one.better, one.question).order > truth.check(one.worse, one.question).order
        assert one.question.scene.seed in scenes.EVALUATION
    assert hard_cases.draw(15, 0) == CASES


def test_the_kinds_are_what_they_say():
    by_kind = {kind: [one for one in CASES if one.kind == kind] for kind in hard_cases.CASE_KINDS}
    assert all(
        one.question.prompt.endswith("(a) yes (b) no") and one.question.key not in ("yes", "no")
        for one in by_kind["confusing"]
    )
    assert {one.question.prompt for one in by_kind["incomplete"]} == {"what shape is it ?"}
    for one in by_kind["unanswerable"]:
        colour = one.question.prompt.split()[4]
        assert not any(colour in fact.thing.split() for fact in one.question.scene.facts)
    for one in by_kind["subtly wrong"]:
        wrong = [claim for claim in claims.read(one.worse) if not claims.holds(claim, one.question.scene)]
        assert len(wrong) == 1
        assert len(one.question.facts) >= 4


def test_people_are_better_than_chance_and_a_perfect_one_is_always_right():
    perfect = annotators.Annotator("perfect", (0.0,) * 3, (0.0,) * 3, (1.0,) * 3)
    panel = annotators.panel(12, 0)
    for kind in hard_cases.CASE_KINDS:
        mine = [one for one in CASES if one.kind == kind]
        assert all(hard_cases.people(one, [perfect], 0) == [1.0] for one in mine)
        assert fmean(fmean(hard_cases.people(one, panel, 0)) for one in mine) > 0.65
