"""Scores of sampled answers: one for each answer, in order, and stored."""

import pytest
from self_answers import ask, save_policy

from mmrlhf_core.models import policy, reward
from mmrlhf_core.rollout.sampling import SampledAnswers
from mmrlhf_study.chapters import answer_scores


def test_scores_follow_their_answers_and_are_kept(tmp_path, monkeypatch):
    base, queries = save_policy(tmp_path / "base"), ask(tmp_path / "media")
    reward.save(tmp_path / "reward", reward.create(policy.load(base), seed=3))
    texts = [("a red circle .", "", "a red circle ."), ("no .", "yes .", "at b3 a red circle ."), ("no .",) * 3]
    answers = [SampledAnswers(q.id, t, (1,) * 3, (True,) * 3) for q, t in zip(queries, texts, strict=True)]
    where = (tmp_path / "media", 2, 5, str(tmp_path / "ledger"))
    rated = answer_scores.rate(str(tmp_path / "reward"), queries, answers, *where)
    assert [one.query for one in rated] == [query.id for query in queries]
    assert rated[0].scores[0] == rated[0].scores[2] != rated[0].scores[1]
    assert len(set(rated[1].scores)) == 3
    assert len(set(rated[2].scores)) == 1
    assert all(count > 0 for one in rated for count in one.tokens)
    assert rated[0].tokens[1] < rated[0].tokens[0] + 5
    monkeypatch.setattr(reward, "load", lambda name: pytest.fail("loaded for nothing"))
    assert answer_scores.rate(str(tmp_path / "reward"), queries, answers, *where) == rated
    assert answer_scores.rate(str(tmp_path / "reward"), queries[::-1], answers[::-1], *where) == rated[::-1]
