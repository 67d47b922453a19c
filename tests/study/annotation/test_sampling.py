"""Answers that nothing but their query, seed and settings decides; stored as they come; servers by the same call."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from chat_server import reply, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from self_answers import always, ask, save_policy

from mmrlhf_core.data.records import Query
from mmrlhf_core.models import policy, reward
from mmrlhf_core.rollout import generate
from mmrlhf_study.annotation import sampling
from mmrlhf_study.annotation.endpoint import Endpoint, NoAnswer
from mmrlhf_study.annotation.sampling import Ledger, SampledAnswers, Sampling

HOW = Sampling(n=3, max_new_tokens=6, seed=5)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("policy") / "base")


@pytest.fixture
def queries(tmp_path):
    return ask(tmp_path / "media")


@pytest.fixture
def draw(tmp_path):
    def call(source, queries, how=HOW, folder="ledger"):
        return sampling.draw(source, queries, tmp_path / "media", 2, how, str(tmp_path / folder))

    return call


@pytest.fixture
def seen(monkeypatch):
    """Every tensor of logits that a token was chosen from, and every prefill, in order."""
    kept = {"logits": [], "prefills": []}
    choose, prefill = generate.choose, generate.prefill

    def watch(logits, *rest):
        kept["logits"].append(logits.clone())
        return choose(logits, *rest)

    def count(learner, inputs, picture):
        kept["prefills"].append(tuple(inputs["input_ids"].shape))
        return prefill(learner, inputs, picture)

    monkeypatch.setattr(generate, "choose", watch)
    monkeypatch.setattr(generate, "prefill", count)
    return kept


def test_each_query_is_read_once_for_all_its_answers(base, queries, draw, seen):
    found = draw(base, queries)
    assert [one.query for one in found] == [query.id for query in queries]
    assert seen["prefills"] == [(1, one.prompt) for one in found]
    assert all(len(one.texts) == 3 and max(one.tokens) <= 6 for one in found)
    assert len({text for one in found for text in one.texts}) > 3


def test_order_company_and_interruption_change_no_bit(base, queries, draw, seen, tmp_path, monkeypatch):
    whole = draw(base, queries)
    logits = seen["logits"][:]
    per_query = [[], [], []]
    for part, one in zip(per_query, whole, strict=True):
        part += [logits.pop(0) for _ in range(max(one.tokens))]
    seen["logits"].clear()
    turned = draw(base, queries[::-1], folder="turned")[::-1]
    assert turned == whole
    expected = [tensor for part in per_query[::-1] for tensor in part]
    assert all(torch.equal(a, b) for a, b in zip(seen["logits"], expected, strict=True))
    seen["logits"].clear()
    assert draw(base, [queries[1]], folder="alone") == [whole[1]]
    assert all(torch.equal(a, b) for a, b in zip(seen["logits"], per_query[1], strict=True))

    answer = sampling.answer

    def killed(learner, prompt, name, how):
        if name == queries[2].id:
            raise KeyboardInterrupt
        return answer(learner, prompt, name, how)

    monkeypatch.setattr(sampling, "answer", killed)
    with pytest.raises(KeyboardInterrupt):
        draw(base, queries, folder="killed")
    monkeypatch.setattr(sampling, "answer", answer)
    (file,) = (tmp_path / "killed").iterdir()
    file.write_bytes(file.read_bytes()[:-5])  # the second line is cut short
    seen["logits"].clear(), seen["prefills"].clear()
    assert draw(base, queries, folder="killed") == whole
    assert len(seen["prefills"]) == 2
    assert all(torch.equal(a, b) for a, b in zip(seen["logits"], per_query[1] + per_query[2], strict=True))


def test_what_is_done_needs_no_model_and_what_changed_is_asked_anew(base, queries, draw, seen, tmp_path, monkeypatch):
    first = draw(base, queries)
    seen["prefills"].clear()
    load = policy.load
    monkeypatch.setattr(policy, "load", lambda name: pytest.fail("loaded for nothing"))
    assert draw(base, queries) == first
    assert sampling.draw(base, queries[:2], tmp_path / "media", 2, HOW, str(tmp_path / "ledger")) == first[:2]
    monkeypatch.setattr(policy, "load", load)
    (tmp_path / "media/0.png").write_bytes((tmp_path / "media/1.png").read_bytes())
    draw(base, queries)
    assert len(seen["prefills"]) == 1
    draw(base, queries, Sampling(n=3, max_new_tokens=6, seed=6))
    draw(save_policy(tmp_path / "other", seed=2), queries)
    assert len(seen["prefills"]) == 7


@pytest.mark.parametrize(("token", "length", "finished"), [("end", 1, True), (None, 6, False)])
def test_a_policy_that_only_ends_and_one_that_never_does(base, queries, draw, monkeypatch, token, length, finished):
    made = policy.load(base)
    made = always(made, made.processor.tokenizer.eos_token_id if token else None)
    monkeypatch.setattr(policy, "load", lambda name: made)
    for one in draw(base, queries):
        assert one.tokens == (length,) * 3
        assert one.finished == (finished,) * 3
        assert all((text == "") == finished for text in one.texts)


def test_one_answer_is_the_first_of_three(base, queries, draw):
    three = draw(base, queries)
    one = draw(base, queries, Sampling(n=1, max_new_tokens=6, seed=5))
    assert [found.texts for found in one] == [found.texts[:1] for found in three]


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 9}, {"temperature": -1.0}, {"top_p": 0.0}, {"max_new_tokens": 0}])
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_two_queries_of_one_name_are_refused(base, queries, draw):
    with pytest.raises(ValueError, match="3 queries have only 2 different ids"):
        draw(base, [*queries[:2], queries[0]])


# ---------------------------------------------------------------- servers


class Answering:
    """Answers with the seed it was given; to the question `odd` it gives cut answers, or status 400 if `fails`."""

    odd, fails = "odd ?", True

    def __call__(self, text, body, handler):
        if text != self.odd:
            return reply(f"answer {body['seed']}")
        return (400, b"{}", {}) if self.fails else reply("", "length")


@pytest.fixture
def server():
    with serving(Answering()) as running:
        yield running


def test_a_server_is_asked_by_the_same_call_with_a_seed_for_every_answer(server, queries, draw):
    place, how = Endpoint(server.address, "served"), Sampling(n=4, temperature=0.7, top_p=0.9, max_new_tokens=9)
    answers = draw(place, queries, how)
    assert {(b["temperature"], b["top_p"], b["max_tokens"]) for b in server.bodies} == {(0.7, 0.9, 9)}
    assert len({body["seed"] for body in server.bodies}) == len(server.bodies) == 12
    assert all(len(set(one.texts)) == 4 and one.prompt == 10 and one.tokens == (3,) * 4 for one in answers)
    assert server.bodies[0]["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert draw(place, queries, how) == answers
    assert len(server.bodies) == 12


def test_a_server_that_fails_once_is_not_asked_again_for_what_came(server, queries, draw):
    place = Endpoint(server.address, "served", tries=1)
    queries = [queries[0], Query(queries[1].id, Answering.odd, "text", ()), queries[2]]
    with pytest.raises(NoAnswer, match="3 of 9 answers did not come"):
        draw(place, queries)
    server.respond.fails = False
    answers = draw(place, queries)
    assert len(server.bodies) == 9 + 3
    assert answers[1].texts == ("",) * 3
    assert answers[1].finished == (False,) * 3


# ---------------------------------------------------------------- the ledger

RECORD = SampledAnswers("q", ("ünïcode \n ✓", ""), (4, 1), (True, False), 7, 5, "m")


def test_what_is_in_the_ledger_is_found_again(tmp_path):
    first = Ledger(tmp_path / "new/folder/a.jsonl", SampledAnswers)
    first.add("k", RECORD)
    assert Ledger(tmp_path / "new/folder/a.jsonl", SampledAnswers).entries == first.entries == {"k": RECORD}


@settings(deadline=None, max_examples=40)
@given(cut=st.integers(0, 200), noise=st.binary(max_size=20))
def test_a_ledger_cut_or_spoilt_at_its_end_keeps_its_whole_lines(tmp_path_factory, cut, noise):
    file = tmp_path_factory.mktemp("ledger") / "a.jsonl"
    writer = Ledger(file, SampledAnswers)
    for number in range(4):
        writer.add(str(number), replace(RECORD, seed=number))
    data = file.read_bytes()[: max(0, len(file.read_bytes()) - cut)]
    whole = {row["key"] for row in map(json.loads, data[: data.rfind(b"\n") + 1].splitlines())}
    file.write_bytes(data + noise.replace(b"\n", b" "))
    again = Ledger(file, SampledAnswers)
    assert whole <= again.entries.keys() <= {"0", "1", "2", "3"}
    again.add("new", RECORD)
    assert Ledger(file, SampledAnswers).entries == again.entries


def test_lines_of_another_kind_are_no_entries(tmp_path):
    odd = [None, [1], {"key": "a"}, {"key": "b", "value": 1}, {"key": "c", "value": asdict(RECORD), "more": 2}]
    odd += [{"key": ["d"], "value": asdict(RECORD)}, {"key": "e", "value": asdict(RECORD) | {"seed": "5"}}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, odd)) + "\nnonsense\n")
    assert Ledger(tmp_path / "a.jsonl", SampledAnswers).entries == {}


# ---------------------------------------------------------------- scores


def test_scores_follow_their_answers_and_are_kept(base, queries, tmp_path, monkeypatch):
    reward.save(tmp_path / "reward", reward.create(policy.load(base), seed=3))
    texts = [("a red circle .", "", "a red circle ."), ("no .", "yes .", "at b3 a red circle ."), ("no .",) * 3]
    answers = [SampledAnswers(q.id, t, (1,) * 3, (True,) * 3) for q, t in zip(queries, texts, strict=True)]
    where = (tmp_path / "media", 2, 5, str(tmp_path / "ledger"))
    rated = sampling.rate(str(tmp_path / "reward"), queries, answers, *where)
    assert [one.query for one in rated] == [query.id for query in queries]
    assert rated[0].scores[0] == rated[0].scores[2] != rated[0].scores[1]
    assert len(set(rated[1].scores)) == 3
    assert len(set(rated[2].scores)) == 1
    assert all(count > 0 for one in rated for count in one.tokens)
    assert rated[0].tokens[1] < rated[0].tokens[0] + 5
    monkeypatch.setattr(reward, "load", lambda name: pytest.fail("loaded for nothing"))
    assert sampling.rate(str(tmp_path / "reward"), queries, answers, *where) == rated
    assert sampling.rate(str(tmp_path / "reward"), queries[::-1], answers[::-1], *where) == rated[::-1]
