"""Questions for dev and test, grades, comparisons by hand, and the rule of selection."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrlhf_core.data import records
from mmrlhf_core.data.records import Pair, Query
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.rollout import score
from mmrlhf_core.rollout.score import CritiqueDecoding
from mmrlhf_study.evaluation import held_out, reward_hacking
from mmrlhf_study.evaluation.held_out import HeldOutQuestion
from mmrlhf_study.evaluation.paper import TEN_DIMENSIONS

FOUR = ("math", "conversation", "ocr", "chart")


@pytest.fixture(scope="module")
def items():
    return held_out.new_scenes([*FOUR, "safety"], 4, set(), 3, 7)


def test_every_question_has_a_new_scene_of_its_own_and_its_family(items):
    assert len(items) == 2 * 4 * 5
    assert len({item.question.scene.hash for item in items}) == len(items)
    assert all(item.question.dimension == item.family for item in items)
    assert pd.crosstab([i.family for i in items], [i.part for i in items]).to_numpy().tolist() == [[4, 4]] * 5
    seen = {item.question.scene.hash for item in items[:10]}
    again = held_out.new_scenes([*FOUR, "safety"], 4, seen, 3, 7)
    assert not seen & {item.question.scene.hash for item in again}
    assert held_out.new_scenes(FOUR, 2, set(), 3, 7) == held_out.new_scenes(FOUR, 2, set(), 3, 7)
    assert held_out.new_scenes(FOUR, 2, set(), 3, 8) != held_out.new_scenes(FOUR, 2, set(), 3, 7)
    with pytest.raises(ValueError, match=r"'maths'.*chart"):
        held_out.new_scenes(["maths"], 1, set(), 3, 7)


def write(folder, queries, pairs):
    records.write(folder / "queries.parquet", queries)
    records.write(folder / "pairs.parquet", pairs, Pair)
    return str(folder)


def test_pairs_of_miniworld_get_new_scenes_and_published_ones_their_held_out_queries(tmp_path, items):
    asked = items[0].question
    mine = Query(asked.id, asked.prompt, "text", (), source="miniworld")
    folder = write(tmp_path / "world", [mine], [])
    made = held_out.for_annotations(folder, FOUR, 4, "media", 3, 7)
    assert asked.scene.hash not in {item.question.scene.hash for item in made}
    assert {item.part for item in made if item.family == "safety"} == {"test"}
    assert held_out.world(folder) == ("MiniWorld", "truth score, -10 to 10")
    queries = [Query(f"q{n}", "?", "text", (), category=("long", "short")[n % 2]) for n in range(12)]
    parts = ("train", "dev", "dev", "dev", "test", "test")
    pairs = [Pair(q.id, f"{q.id}/a", f"{q.id}/b", split=parts[n // 2]) for n, q in enumerate(queries)]
    made = held_out.for_annotations(write(tmp_path / "published", queries, pairs), FOUR, 2, "media", 3, 7)
    assert [(i.part, i.family, i.id) for i in made] == [
        ("dev", "long", "q2"), ("dev", "short", "q3"), ("dev", "long", "q4"), ("dev", "short", "q5"),
        ("test", "long", "q8"), ("test", "short", "q9"), ("test", "long", "q10"), ("test", "short", "q11"),
    ]  # fmt: skip
    assert held_out.world(str(tmp_path / "published"))[0] == "held-out queries"


def test_answers_are_graded_by_the_truth(items):
    how, asked = CritiqueDecoding(), [item for item in items if item.family == "math"][:2]
    good, bad = (held_out.grade(asked, texts, "a", 1, how) for texts in ([i.question.answer for i in asked], ["", "x"]))
    assert all(one.right and one.score == 10 and one.wrong == 0 for one in good)
    assert not any(one.right for one in bad)
    assert good[0].words == len(asked[0].question.answer.split())
    assert (good[0].arm, good[0].seed, good[0].family, good[0].query) == ("a", 1, "math", asked[0].id)
    refused = [item for item in items if item.question.decline]
    for one in held_out.grade(refused, ["so i must decline ."] * len(refused), "a", 1, how):
        assert one.due
        assert one.declined


def test_where_no_truth_is_known_the_judge_grades(monkeypatch):
    asked = [HeldOutQuestion("dev", "long", name, Prompt("?")) for name in ("x", "y")]
    with pytest.raises(ValueError, match=r"'x'.*reward model"):
        held_out.grade(asked, ["a", "b"], "arm", 1, CritiqueDecoding())
    given = {}

    def scored(model, work, how, desc):
        given[desc] = [list(one.responses.values()) for one in work]
        return [score.Scored(w.query, "answer", 1.5, (1.5,), ("",), (True,), False) for w in work]

    monkeypatch.setattr(score, "score", scored)
    made = held_out.grade(asked, ["a", "b c"], "arm", 2, CritiqueDecoding(), "judge")
    assert [one.score for one in made] == [1.5, 1.5]
    assert [one.words for one in made] == [1, 2]
    assert given == {"arm 2": [["a"], ["b c"]]}


COLUMNS = ("arm", "seed", "part", "family", "query", "score", "words", "right", "claims", "wrong", "due", "declined")


def grades(scores, part="test", family="math"):
    """Graded rows from {arm: [[score of each question] for each seed]}."""
    rows = [
        (arm, seed, part, family, f"{family}{n}", value, 3, False, 2, 1, False, False)
        for arm, table in scores.items()
        for seed, row in enumerate(table, 1)
        for n, value in enumerate(row)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_means_are_over_questions_of_means_over_seeds_and_leave_safety_out():
    rows = pd.concat([grades({"a": [[1, 2], [3, 4]]}), grades({"a": [[10], [20]]}, family="ocr"),
                      grades({"a": [[-9], [-9]]}, family="safety"), grades({"a": [[7], [7]]}, part="dev")])  # fmt: skip
    found = held_out.means(rows, "test", 50, 0).set_index("family")
    assert found.value.to_dict() == {"math": 2.5, "average": (2 + 3 + 15) / 3}, "one question has no interval"
    assert found.questions.to_dict() == {"math": 2, "average": 3}
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()
    assert held_out.by_seed(rows, "test").value.tolist() == [13 / 3, 9]


def test_comparisons_by_hand_and_of_a_clear_difference():
    """Differences 1, 1, 1, -1 of four questions: mean 0.5, sd 1, so d_z 0.5; of 16 sign flips 10 are as far from 0."""
    rows = grades({"a": [[2, 3, 4, 4]], "b": [[1, 2, 3, 5]], "c": [[2, 3, 4, 4]]})
    found = held_out.compared(rows, "test", "a", ["b", "c"], 20, 0).set_index("against")
    assert found.difference.to_dict() == {"b": 0.5, "c": 0.0}
    assert found.d_z.to_dict() == pytest.approx({"b": 0.5, "c": 0.0})
    assert found.p.to_dict() == {"b": 10 / 16, "c": 1.0}
    assert found["p (Holm)"].to_dict() == {"b": 1.0, "c": 1.0}
    assert found["seeds above"].to_dict() == {"b": 1, "c": 0}
    assert set(found.verdict) == {"not distinguished"}
    rng = np.random.default_rng(0)
    base = rng.normal(0, 1, 40)
    rows = grades({"a": [base + 1], "b": [base + rng.normal(0, 0.1, 40)], "c": [base + 2]})
    assert held_out.compared(rows, "test", "a", ["b", "c"], 100, 0).verdict.tolist() == ["better", "worse"]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-10, 10), min_size=3, max_size=8), st.randoms())
def test_order_of_rows_changes_nothing_and_an_arm_equals_itself(values, random):
    rows = grades({"a": [values, values], "b": [values[::-1], values]})
    mixed = rows.sample(frac=1, random_state=random.randrange(2**31))
    one, other = (held_out.by_question(r, "test").sort_index().sort_index(axis=1) for r in (rows, mixed))
    pd.testing.assert_frame_equal(one, other)
    found = held_out.compared(rows, "test", "a", ["a"], 20, 0)
    assert (found.difference[0], found.p[0], found.d_z[0]) == (0, 1, 0)


def test_a_question_that_an_arm_did_not_answer_is_told():
    rows = pd.concat([grades({"a": [[1, 2]]}), grades({"b": [[1]]})])
    with pytest.raises(ValueError, match="every question of test"):
        held_out.by_question(rows, "test")


def test_selection_takes_the_best_on_dev_and_the_first_of_equals():
    dev = grades({"a": [[1, 2]], "b": [[2, 2]], "c": [[3, 1]]}, part="dev")
    test = grades({"a": [[9, 9]], "b": [[0, 0]], "c": [[0, 0]]})
    rows = pd.concat([dev, test])
    assert held_out.select(rows, ["a", "b", "c"]) == "b"
    assert held_out.select(rows, ["c", "b", "a"]) == "c"


def test_noise_tells_seeds_from_questions():
    questions_ = np.array([0.0, 4.0, 8.0])
    rows = grades({"a": [questions_, questions_]})
    assert held_out.noise(rows, "test", "a") == pytest.approx({"between_seeds": 0, "between_items": 4, "rest": 0})
    rows = grades({"a": [[1, 1, 1], [3, 3, 3]]})
    assert held_out.noise(rows, "test", "a")["between_seeds"] == pytest.approx(2**0.5)


# reward hacking


def test_answer_style_is_measured_over_all_answers_and_of_silent_policies():
    rows = grades({"a": [[0, 0]]})
    rows["words"], rows["wrong"], rows["claims"] = [2, 4], [1, 0], [1, 3]
    rows["due"], rows["declined"] = [False, True], [True, True]
    found = reward_hacking.answer_style(rows, "test", True, 50, 0).set_index("measure").value.to_dict()
    expected = {"words": 3, "right": 0, "claims": 2, "claims hallucinated": 0.25}
    assert found == {**expected, "declines when due": 1, "declines in vain": 1}
    assert list(reward_hacking.answer_style(rows, "test", False, 50, 0).measure) == ["words"]
    silent = grades({"base": [[0, 0]], "a": [[2, 2]]}).assign(words=0, wrong=0, claims=0, due=False, declined=False)
    gone = reward_hacking.answer_style(silent, "test", True, 50, 0)
    assert set(gone.measure) == {"words", "right", "claims", "claims hallucinated", "declines in vain"}


def test_reward_and_score_of_the_same_answers_against_base(monkeypatch, items):
    asked = [item for item in items if item.part == "test"]
    how, said = CritiqueDecoding(), {"base": "", "up": "so the answer is 3 ."}
    seeds = {"base": 0, "up": 1}
    graded = [g for arm, text in said.items() for g in held_out.grade(asked, [text] * len(asked), arm, seeds[arm], how)]
    monkeypatch.setattr(held_out, "rewards", lambda judge, some, texts, how, desc: [float(len(text)) for text in texts])
    rows = reward_hacking.rewarded(graded, asked, 5, 0, how, None)
    assert rows.groupby("arm").size().to_dict() == {"base": 5, "up": 5}
    assert set(rows["query"]) <= {item.id for item in asked if item.family != "safety"}
    found = reward_hacking.against_base(rows, 20, 0).set_index("measure")
    assert found.value["reward"] == len(said["up"])
    assert found.arm.tolist() == ["up", "up"]
    assert reward_hacking.rank_correlation(rows) == {}, "nothing to correlate where every answer has one reward"
    mixed = rows.assign(reward=range(len(rows)), score=range(len(rows)))
    assert reward_hacking.rank_correlation(mixed) == pytest.approx({"base": 1, "up": 1})


def test_every_dimension_can_be_asked_about():
    for family in TEN_DIMENSIONS:
        assert held_out.new_scenes([family], 1, set(), 3, 1)
