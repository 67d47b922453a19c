"""Responders answer in the order of the queries, each with its own settings."""

from pathlib import Path

from mmrlhf_core.data import storage
from mmrlhf_core.models import policy
from mmrlhf_core.rollout import generate
from mmrlhf_study.annotation import campaign
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
    found = campaign.answer_all(queries, tmp_path / "media", str(tmp_path / "models"), 3, 16, 7)
    assert [one.id for one in found] == [f"{query.id}/{name}" for query in queries for name in ("a", "b")]  # by name
    assert all(one.text == f"{one.responder} {one.query}" for one in found)
    first = found[0]
    assert (first.temperature, first.top_p, first.max_new_tokens, first.seed) == (1.0, 1.0, 16, 7)
    assert [settings["temperature"] for _, _, settings in calls] == [1.0, 0.5]
    assert len({settings["seed"] for _, _, settings in calls}) == 2
    assert calls[0][1] == [query.prompt for query in queries]
