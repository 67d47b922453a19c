"""Rounds of self-improvement: same queries and steps for every arm, passes counted, odd policies and rankings taken."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from self_answers import always, ask, save_policy

from mmrlhf_core.data import storage
from mmrlhf_core.data.records import Pair, Response
from mmrlhf_core.models import policy, reward
from mmrlhf_core.rollout import generate
from mmrlhf_core.training.job import Job
from mmrlhf_core.training.losses import Objective
from mmrlhf_study.annotation.sampling import SampledAnswers, Sampling
from mmrlhf_study.chapters import self_training
from mmrlhf_study.chapters.experiment import Experiment
from mmrlhf_study.chapters.self_training import PAIR_CHOICES, Chosen, Condition, SelfTraining

CHOOSE = generate.choose
TRAINING = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "num_train_epochs": 1}
TRAINING |= {"learning_rate": 1e-3, "logging_steps": 1}


@pytest.fixture
def queries(project):
    return ask(project / "media", 4)


def often_ends(monkeypatch, end):
    """Let every third token be the end, as random weights hardly ever choose it."""

    def ending(logits, temperature, top_p, uniform):
        return torch.where(uniform < 1 / 3, end, CHOOSE(logits, temperature, top_p, uniform))

    monkeypatch.setattr(generate, "choose", ending)


@pytest.fixture
def setup(project, monkeypatch):
    save_policy("models/base")
    often_ends(monkeypatch, policy.load("models/base").processor.tokenizer.eos_token_id)
    reward.save("models/reward", reward.create(policy.load("models/base"), seed=3))
    job = Job("models/base", "", "media", "scratch/self/reference", "scratch/self/runs", training=TRAINING, frames=2)
    how = Sampling(n=4, max_new_tokens=5)
    rewards = {"own": "models/reward"}
    experiment = Experiment(job, "scratch/self/rows")
    return SelfTraining(rewards, how, 4, "hardest", 0.0, experiment, Objective("dpo"), "scratch/self")


def go(setup, condition, queries, annotated=None):
    tokens = {one.query: one.prompt for one in setup.draw(setup.base, queries, 0)}
    return setup.run(condition, 0, queries, annotated or {}, tokens)


def weights(folder):
    return policy.load(folder).model.state_dict()


def test_the_conditions_of_an_experiment():
    found = self_training.conditions(["own", "truth"], 8, [2, 4], ["own"], [2, 3], "own")
    assert [(one.arm, one.n, one.rounds) for one in found] == [
        ("own", 8, 1), ("truth", 8, 1), ("own", 2, 1), ("own", 4, 1), ("own", 8, 2), ("own", 8, 3)
    ]  # fmt: skip
    assert len({one.name for one in found}) == len(found)
    with pytest.raises(ValueError, match="'weak'"):
        self_training.conditions(["own"], 8, [], ["weak"], [], "")
    with pytest.raises(ValueError, match="1 and 7"):
        self_training.conditions(["own"], 8, [8], ["own"], [], "")


def test_queries_are_selected_by_seed_and_name_to_a_multiple(queries):
    assert self_training.select_queries(queries, 4, 3, 7) == self_training.select_queries(queries[::-1], 4, 3, 7)
    assert len(self_training.select_queries(queries, 4, 3, 7)) == 3
    assert {q.id for q in self_training.select_queries(queries, 9, 2, 7)} == {q.id for q in queries}
    with pytest.raises(ValueError, match="multiple of 6"):
        self_training.select_queries(queries, 9, 6, 7)


def test_people_give_the_pair_they_put_furthest_apart(queries):
    said = [Response(name, queries[0].id, "m", name) for name in "abc"]
    pairs = [Pair(queries[0].id, *names, steps=steps) for names, steps in (("ab", 1), ("ac", 2), ("bc", 1))]
    row = self_training.annotated_rows(queries[:1], said, pairs, "hardest")[queries[0].id]
    assert (row.responses, row.winners, row.losers) == (("a", "c"), (0,), (1,))
    assert len(self_training.annotated_rows(queries[:1], said, pairs, "all")[queries[0].id].winners) == 3
    with pytest.raises(ValueError, match="pair"):
        self_training.annotated_rows(queries[:2], said, pairs, "all")


def test_signals_know_what_they_should(setup, queries):
    answers = [
        SampledAnswers(query.id, (query.prompt, "nothing", "nothing"), (1,) * 3, (True,) * 3, 9) for query in queries
    ]
    for arm in ("truth", "random", "own"):
        for one in setup.signal(arm, queries, answers, 0):
            assert one.scores[1] == one.scores[2]
    assert setup.signal("random", queries, answers, 0) != setup.signal("random", queries, answers, 1)
    assert {one.question for one in setup.signal("truth", queries, answers, 0)} == {0}
    assert {one.question for one in setup.signal("own", queries, answers, 0)} == {18}
    with pytest.raises(ValueError, match="'weak'"):
        setup.signal("weak", queries, answers, 0)


def test_an_arm_trains_and_its_passes_add_up(setup, queries):
    one = go(setup, Condition("random", 3), queries)
    assert one.queries == 4
    assert one.paired + one.alike + one.tied + one.unusable == 4
    assert one.steps == 2
    answers = setup.draw("models/base", queries, 0)
    assert one.sampled == sum(said.prompt + sum(said.tokens[:3]) for said in answers)
    assert one.rated == 0
    made = setup.rank(Condition("random", 3), "models/base", queries, 0)
    tokens = {said.query: said.prompt for said in answers}
    tokenizer = setup.processor.tokenizer
    size = sum(tokens[row.id] + sum(len(tokenizer(text).input_ids) + 1 for text in row.responses) for row in made.rows)
    assert one.trained == 4 * size  # forward, twice as much backward, and the reference
    before, after = weights("models/base"), weights(one.model)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert go(setup, Condition("random", 3), queries) == one  # found again
    self_training.keep_model("models/self/random", one, setup.base)
    assert all(torch.equal(after[name], value) for name, value in weights("models/self/random").items())
    assert storage.read_json("models/self/random/training.json") == {"passes": one.sampled + one.trained}


def test_more_rounds_take_the_same_queries_and_steps(setup, queries, monkeypatch):
    seen = []
    draw = SelfTraining.draw
    monkeypatch.setattr(
        SelfTraining, "draw", lambda *a, **how: seen.append((a[1], [q.id for q in a[2]])) or draw(*a, **how)
    )
    one = go(setup, Condition("own", 4, 2), queries)
    rounds_ = seen[1:]
    assert sorted(name for _, names in rounds_ for name in names) == sorted(query.id for query in queries)
    assert [len(names) for _, names in rounds_] == [2, 2]
    assert rounds_[0][0] == "models/base"
    assert rounds_[1][0] != "models/base"
    assert one.steps == 2
    assert one.rated > 0


@pytest.mark.parametrize(
    ("token", "n", "why"),
    [("end", 4, "alike"), (None, 4, "unusable"), (None, 1, "alike")],
    ids=["ends", "never", "one"],
)
def test_a_policy_without_a_usable_pair_stays_what_it_is(setup, queries, monkeypatch, token, n, why):
    made = policy.load("models/base")
    made = always(made, made.processor.tokenizer.eos_token_id if token else None)
    monkeypatch.setattr(policy, "load", lambda name, *rest: made)
    monkeypatch.setattr(generate, "choose", CHOOSE)
    one = go(setup, Condition("truth", n), queries)
    assert (one.model, one.steps, one.trained, one.paired) == ("models/base", 0, 0, 0)
    assert getattr(one, why) == 4
    self_training.keep_model("models/self/truth", one, setup.base)
    assert policy.locate("models/self/truth") == policy.locate("models/base")


def test_scores_all_equal_are_told_and_train_nothing(setup, queries):
    far = replace(setup, tie=float("inf"))  # every two scores are tied, and blank answers with them
    one = go(far, Condition("own", 4), queries)
    assert (one.tied + one.alike, one.paired, one.model) == (4, 0, "models/base")


# from scored answers to pairs


TEXTS = st.sampled_from(["a", "b", "c", "d", "", " "])
ANSWERS = st.lists(st.tuples(TEXTS, st.booleans()), min_size=1, max_size=8)


def choose(texts, scores, finished=None, **how):
    return self_training.choose_pairs(texts, finished or [True] * len(texts), scores, **how)


FOUR = ("abcd", [2.0, 5.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("texts", "scores", "how", "expected"),
    [
        (*FOUR, {}, {(1, 2)}),
        (*FOUR, {"how": "all"}, {(1, 0), (1, 2), (1, 3), (0, 2), (3, 2)}),  # the two 2s are tied
        (*FOUR, {"how": "all", "tie": 1.0}, {(1, 0), (1, 2), (1, 3)}),
        (*FOUR, {"tie": 4.0}, "tie"),
        ("abab", [1.0, 0.0, 1.0, 0.0], {"how": "all"}, {(0, 1)}),  # of equal answers the first stands for all
        ("aa", [1.0, 1.0], {}, "one answer"),
        ("a", [1.0], {}, "one answer"),
        (["", "a", "b"], [9.0, 1.0, 1.0], {}, {(1, 0)}),  # a blank answer is below all others
        (["", "a", "b"], [9.0, 1.0, 1.0], {"how": "all"}, {(1, 0), (2, 0)}),
        (["", " "], [1.0, 0.0], {}, "nothing to choose"),
        ("abc", [9.0, 2.0, 1.0], {"finished": [False, True, True]}, {(1, 2)}),  # a cut answer is never the better one
        ("abc", [0.0, 2.0, 1.0], {"finished": [False, True, True]}, {(1, 0)}),
        ("ab", [9.0, 2.0], {"finished": [False, False]}, "nothing to choose"),
        ("ab", [9.0, 2.0], {"finished": [False, True]}, "tie"),
        *(("abc", [0.3] * 3, {"how": how}, "tie") for how in PAIR_CHOICES),
    ],
)
def test_pairs_by_hand(texts, scores, how, expected):
    chosen = choose(list(texts), scores, **how)
    assert chosen == Chosen((), expected) if type(expected) is str else set(chosen.pairs) == expected
    assert len(set(chosen.pairs)) == len(chosen.pairs)


@given(ANSWERS, st.data(), st.sampled_from(PAIR_CHOICES), st.floats(0, 3))
def test_every_pair_is_sound(answers, data, how, tie):
    texts, finished = zip(*answers, strict=True)
    given_scores = {text: data.draw(st.floats(-5, 5)) for text in texts}
    scores = [given_scores[text] for text in texts]
    found = self_training.choose_pairs(texts, finished, scores, how, tie)
    assert bool(found.pairs) != bool(found.without)
    assert len({(texts[a], texts[b]) for a, b in found.pairs}) == len(found.pairs)
    for better, worse in found.pairs:
        assert finished[better]
        assert texts[better].strip()
        assert texts[better] != texts[worse]
        assert not texts[worse].strip() or scores[better] - scores[worse] > tie
    everything = self_training.choose_pairs(texts, finished, scores, "all", tie)
    assert bool(everything.pairs) == bool(found.pairs)
    assert set(found.pairs) <= set(everything.pairs)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"how": "adjacent"}, "hardest.*all"),
        ({"tie": -1.0}, "-1"),
        ({"scores": [1.0]}, "2 .*2 .*1 "),
    ],
)
def test_wrong_input_is_named(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        choose(["a", "b"], **{"scores": [1.0, 2.0], **wrong})
