"""Answers that nothing but their query, seed and settings decides; kept as they come; engines by the same call."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from self_answers import always, ask, save_policy

from mmrlhf_core.models import policy, reward
from mmrlhf_core.rollout import generate, sampling
from mmrlhf_core.rollout.endpoint import Endpoint, NoAnswer
from mmrlhf_core.rollout.sampling import SampledAnswers, Sampling

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


# ---------------------------------------------------------------- engines


class Engine(BaseHTTPRequestHandler):
    """Answers with the seed it was given; question number 1 gets empty and cut answers, and fails when told to."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        odd = self.server.odd and body["messages"][0]["content"][-1]["text"] == self.server.odd
        message = {"content": "" if odd else f"answer {body['seed']}"}
        choice = {"message": message, "finish_reason": "length" if odd else "stop"}
        usage = {"prompt_tokens": 40, "completion_tokens": 7}
        data = json.dumps({"choices": [choice], "usage": usage}).encode()
        self.send_response(400 if odd and self.server.fails else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def engine():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    server.bodies, server.odd, server.fails = [], "", False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_engine_is_asked_by_the_same_call_with_a_seed_for_every_answer(engine, queries, draw):
    place = Endpoint(f"http://127.0.0.1:{engine.server_port}/v1", "served", wait=0.01, tries=2)
    found = draw(place, queries, Sampling(n=4, temperature=0.7, top_p=0.9, max_new_tokens=9))
    assert {(b["temperature"], b["top_p"], b["max_tokens"]) for b in engine.bodies} == {(0.7, 0.9, 9)}
    assert len({body["seed"] for body in engine.bodies}) == len(engine.bodies) == 12
    assert all(len(set(one.texts)) == 4 and one.prompt == 40 and one.tokens == (7,) * 4 for one in found)
    assert engine.bodies[0]["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert draw(place, queries, Sampling(n=4, temperature=0.7, top_p=0.9, max_new_tokens=9)) == found
    assert len(engine.bodies) == 12


def test_an_engine_that_fails_once_is_not_asked_again_for_what_came(engine, queries, draw):
    place = Endpoint(f"http://127.0.0.1:{engine.server_port}/v1", "served", wait=0.01, tries=1)
    queries = [queries[0], type(queries[1])(queries[1].id, "odd ?", "text", ()), queries[2]]
    engine.odd, engine.fails = "odd ?", True
    with pytest.raises(NoAnswer, match="3 of 9 answers did not come"):
        draw(place, queries)
    engine.fails = False
    found = draw(place, queries)
    assert len(engine.bodies) == 9 + 3
    assert found[1].texts == ("",) * 3
    assert found[1].finished == (False,) * 3


# ---------------------------------------------------------------- scores


def test_scores_follow_their_answers_and_are_kept(base, queries, tmp_path, monkeypatch):
    reward.save(tmp_path / "reward", reward.create(policy.load(base), seed=3))
    texts = [("a red circle .", "", "a red circle ."), ("no .", "yes .", "at b3 a red circle ."), ("no .",) * 3]
    answers = [SampledAnswers(q.id, t, (1,) * 3, (True,) * 3) for q, t in zip(queries, texts, strict=True)]
    where = (tmp_path / "media", 2, 5, str(tmp_path / "ledger"))
    found = sampling.rate(str(tmp_path / "reward"), queries, answers, *where)
    assert [one.query for one in found] == [query.id for query in queries]
    assert found[0].scores[0] == found[0].scores[2] != found[0].scores[1]
    assert len(set(found[1].scores)) == 3
    assert len(set(found[2].scores)) == 1
    assert all(count > 0 for one in found for count in one.tokens)
    assert found[0].tokens[1] < found[0].tokens[0] + 5
    monkeypatch.setattr(reward, "load", lambda name: pytest.fail("loaded for nothing"))
    assert sampling.rate(str(tmp_path / "reward"), queries, answers, *where) == found
    assert sampling.rate(str(tmp_path / "reward"), queries[::-1], answers[::-1], *where) == found[::-1]
