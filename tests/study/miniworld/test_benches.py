"""Items are new, the same for everyone, and scored as their benches say."""

import numpy as np
import pytest

from mmrlhf_study.evaluation.paper import PAPER_ROWS, TEN_DIMENSIONS
from mmrlhf_study.miniworld import benches, claims, questions, scenes, truth
from mmrlhf_study.miniworld.scenes import Fact


@pytest.fixture(scope="module")
def items():
    return benches.draw(5, set(), seed=1)


def value(bench, texts, items, others=None):
    mine = [place for place, item in enumerate(items) if item.set in bench.sets]
    others = others or texts
    rows = [(*bench.measure.columns(texts[place], items[place], others[place]), 1) for place in mine]
    return float(bench.measure.statistic(np.sum(rows, axis=0)))


def test_items_are_new_and_the_same_every_time(items):
    seen = {item.scene for item in items[:40]}
    taken = set(seen)
    others = benches.draw(5, taken, seed=1)
    assert not seen & {item.scene for item in others}
    assert taken >= {item.scene for item in others} | seen  # drawn scenes are taken from then on
    assert [item.id for item in benches.draw(5, set(), seed=1)] == [item.id for item in items]
    assert [item.id for item in benches.draw(5, set(), seed=2)] != [item.id for item in items]
    assert all(item.question.scene.seed in scenes.EVALUATION for item in items)
    assert len({item.id for item in items}) == len(items)


def test_a_scene_is_in_one_set_only_but_for_the_four_questions_of_pope(items):
    sets = {item.scene: {other.set for other in items if other.scene == item.scene} for item in items}
    assert {len(found) for found in sets.values()} == {1, 4}
    assert all(len(found) == 1 or all(name.startswith("objects") for name in found) for found in sets.values())
    assert {name: sum(i.set == name for i in items) for name in benches.SETS} == dict.fromkeys(benches.SETS, 5)


def test_too_few_new_scenes_is_an_error(monkeypatch):
    monkeypatch.setattr(benches, "SEEDS", 50)
    with pytest.raises(ValueError, match=r"0 of 1 .*'x'"):
        benches.fresh_scenes("x", "chart", lambda scene: False, 1, set(), seed=1)


def test_the_questions_of_pope_are_what_their_setting_says(items):
    for item in items:
        if not item.set.startswith("objects"):
            continue
        asked, scene = item.question, item.question.scene
        thing, place = asked.prompt.removeprefix("is there ").removesuffix(" ?").split(" at ")
        assert asked.key == ("yes" if item.set == "objects yes" else "no")
        assert claims.holds(Fact(place, thing), scene) == (asked.key == "yes")
        if item.set == "objects adversarial":  # one attribute off, or the thing elsewhere
            near = [len(set(thing.split()) ^ set(fact.thing.split())) for fact in scene.facts]
            assert min(near) <= 2


def test_references_get_full_marks_and_silence_what_it_is_worth(items):
    best = {"judge, points": 5.0, "CHAIR-i": 0.0, "CHAIR-s": 0.0}
    silence = {"judge, relative": 20.0, "judge, points": 1.0, benches.WON.name: 50.0}  # it ties with itself
    for bench in benches.BENCHES:
        if bench.measure is not benches.WON:
            full = value(bench, [item.question.answer for item in items], items)
            assert full == best.get(bench.measure.name, 100), bench.name
        assert value(bench, [""] * len(items), items) == silence.get(bench.measure.name, 0), bench.name


def test_a_fault_shows_where_it_should(items):
    invented = [
        truth.corrupt(item.question, "invented", 0) if item.set == "descriptions" else "" for item in items
    ]  # fmt: skip
    by_name = {bench.name: bench for bench in benches.BENCHES}
    full = [item.question.answer for item in items]
    assert value(by_name["descriptions"], invented, items) < value(by_name["descriptions"], full, items)
    concluded = [
        truth.corrupt(item.question, "conclusion", 0) if item.set in ("movements", "chart values") else ""
        for item in items
    ]  # fmt: skip
    assert value(by_name["movements"], concluded, items) == value(by_name["chart values"], concluded, items) == 0


def test_an_object_that_is_not_there_raises_chair_and_vague_names_do_not(items):
    chair_i, chair_s = (bench for bench in benches.BENCHES if bench.name.startswith("objects told"))
    mine = [item for item in items if item.set == "descriptions"][:1]
    kinds = {fact.thing.split()[-1] for fact in mine[0].question.scene.facts}
    absent = next(kind for kind in (*scenes.OBJECT_KINDS, "purple cross") if kind not in kinds)
    vague = " ".join(f"a {kind} ." for kind in sorted(kinds))
    assert value(chair_i, [vague], mine) == value(chair_s, [vague], mine) == 0
    assert value(chair_i, [f"{vague} a {absent} ."], mine) == pytest.approx(100 / (len(kinds) + 1))
    assert value(chair_s, [f"{vague} a {absent} ."], mine) == 100


def test_the_win_rate_counts_wins_against_the_other_answers_in_both_orders(items):
    bench = next(bench for bench in benches.BENCHES if bench.measure is benches.WON)
    full, nothing = [item.question.answer for item in items], [""] * len(items)
    assert value(bench, full, items, nothing) == 100
    assert value(bench, nothing, items, full) == 0
    assert value(bench, full, items, full) == 50
    place = next(i for i, item in enumerate(items) if item.set == "descriptions")
    assert bench.measure.columns(full[place], items[place], full[place]) == (0.5,)  # a tie is a half


A, B, C = "at d1 a large black triangle .", "at d2 a small red triangle .", "at a3 a large red circle ."
ABSENT = "at b1 a large green cross ."


@pytest.mark.parametrize(
    ("answer", "judged", "won"),  # by hand: (helpfulness + faithfulness − 2) / 8, and against `A B`
    [
        (f"{A} {B} {C}", 1.0, 1.0),
        (f"{A} {B}", 0.75, 0.5),  # two of three: 3 and 5
        (f"{B} {A}", 0.75, 0.5),  # order does not matter
        (A, 0.625, 0.0),
        (f"{A} {A} {A}", 0.625, 0.0),  # saying it again does not help
        (f"{A} {B} {C} {ABSENT}", 0.875, 1.0),  # one of four is wrong: 5 and 4
        (f"at d1 a large green triangle . {B} {C}", 0.75, 0.5),  # one of three: 5 and 3, and one fault each
        (ABSENT, 0.0, 0.0),
        ("so i must decline .", 0.5, 0.0),  # it says nothing false: 1 and 5
        ("синий", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_judge_and_win_rate_of_answers_by_hand(answer, judged, won):
    scene = scenes.draw(200000000, "shapes")
    item = benches.BenchItem("descriptions", questions.ask(scene, "describe"))
    assert item.question.answer.endswith(f"{A} {B} {C}")
    assert benches.JUDGE.columns(answer, item, "") == (judged,)
    assert benches.WON.columns(answer, item, f"{A} {B}") == (won,)


def test_every_dimension_has_a_bench_and_every_bench_a_row_of_the_paper():
    assert {bench.dimension for bench in benches.BENCHES} == set(TEN_DIMENSIONS) - {"safety"}
    for bench in benches.BENCHES:
        row = PAPER_ROWS[bench.counterpart]
        assert (row.dimension, row.higher) == (bench.dimension, bench.measure.higher), bench.name


def test_popes_table(items):
    always = benches.pope_table(["so the answer is yes ."] * len(items), items)
    assert set(always) == set(benches.SETTINGS)
    for found in always.values():
        assert (found.accuracy, found.recall, found.yes_rate) == (0.5, 1, 1)
    right = benches.pope_table([item.question.answer for item in items], items)
    assert all(found.f1 == 1 and found.unanswered == 0 for found in right.values())


def test_prompts_are_those_of_training_or_the_pictures_given(items):
    clip = next(item for item in items if item.set == "clips told")
    assert len(clip.prompt(3).clip) == 3
    shown = benches.BenchItem("x", clip.question, pictures=tuple(clip.prompt(2).clip))
    assert shown.prompt(5).images == shown.pictures
    assert not shown.prompt(5).clip
