"""Responders answer in the order asked, with their own settings; judges read what they are shown."""

import json
from pathlib import Path

import pytest

from mmrlhf_core.data import storage
from mmrlhf_core.models import policy
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.rollout import endpoint, generate
from mmrlhf_core.rollout.endpoint import Answer, Endpoint, NoAnswer
from mmrlhf_study.annotation import judge, respond
from mmrlhf_study.miniworld import pool


def test_every_responder_answers_every_query_with_its_own_settings(tmp_path, monkeypatch):
    queries = pool.draw_pool(1, 6)
    pool.write_pictures(queries, tmp_path / "media")
    storage.write_json(
        tmp_path / "models/decoding.json",
        {"b": {"temperature": 0.5, "top_p": 0.9}, "a": {"temperature": 1, "top_p": 1.0}},
    )
    calls = []

    def sample(model, asked, names, n, **settings):
        calls.append((model, [one.text for one in asked], settings))
        return [[f"{Path(model).name} {name}"] for name in names]

    monkeypatch.setattr(policy, "load", lambda name: name)
    monkeypatch.setattr(generate, "sample", sample)
    found = respond.answer_all(queries, tmp_path / "media", str(tmp_path / "models"), 3, 16, 7)
    assert [one.id for one in found] == [f"{query.id}/{name}" for query in queries for name in ("a", "b")]  # by name
    assert all(one.text == f"{one.responder} {one.query}" for one in found)
    first = found[0]
    assert (first.temperature, first.top_p, first.max_new_tokens, first.seed) == (1.0, 1.0, 16, 7)
    assert [settings["temperature"] for _, _, settings in calls] == [1.0, 0.5]
    assert len({settings["seed"] for _, _, settings in calls}) == 2
    assert calls[0][1] == [query.prompt for query in queries]


def test_the_checking_judge_asks_about_claims_and_counts_what_it_is_told(monkeypatch):
    asked = []

    def sample(model, prompts, names, **settings):
        asked.extend(one.text for one in prompts)
        return [["at a1 x ? y : right . at b2 x ? y : wrong ."] for _ in prompts]

    monkeypatch.setattr(generate, "sample", sample)
    prompt = Prompt("what ?")
    texts = ["at a1 a red circle . at b2 nothing . so the answer is 2 .", "so i must decline .", ""]
    assert judge.by_checking("model", [prompt] * 3, texts) == [0.5, 0.0, 0.0]
    assert asked == ["check : at a1 a red circle . at b2 nothing ."]
    assert judge.by_checking(None, [prompt], [""]) == [0.0]


def reply(helpfulness=5) -> str:
    row = {"helpfulness": helpfulness, "faithfulness": 4, "ethics": 5, "reason": "fine"}
    return json.dumps({"responses": [row, row], "ranks": [1, 1]})


def test_the_endpoint_judge_and_the_writer_send_their_prompts(tmp_path, monkeypatch):
    sent = []

    def ask(place, messages, cache, seed=None):
        sent.append(messages[0]["content"][-1]["text"])
        return Answer(reply(), 1, 1, cached=False)

    monkeypatch.setattr(endpoint, "ask", ask)
    place = Endpoint("http://nowhere/v1", "some-judge")
    rows, ranks = judge.by_endpoint(place, "what ?", [], "q", [("q/1", "a dog"), ("q/2", "a cat")], tmp_path)
    assert [(one.annotator, one.response, one.overall) for one in rows] == [
        ("some-judge", "q/1", 9),
        ("some-judge", "q/2", 9),
    ]
    assert ranks == (1, 1)
    assert "Response 2:\na cat" in sent[0]
    (full,) = judge.expand(place, [("what ?", "a dog", "right .")], tmp_path)
    assert full.text == reply()
    assert "Comment: right ." in sent[1]
    monkeypatch.setattr(endpoint, "ask", lambda *_: Answer(reply(9), 1, 1, cached=False))
    with pytest.raises(NoAnswer, match="not in the form asked for"):
        judge.by_endpoint(place, "what ?", [], "q", [("q/1", "a"), ("q/2", "b")], tmp_path)
