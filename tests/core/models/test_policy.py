"""Miniatures of the three families load, answer and save through the lines that published checkpoints use."""

import pytest
import torch
from tiny_policies import ASKED, SIZE, WORDS

from mmrlhf_core.data import storage
from mmrlhf_core.models import policy
from mmrlhf_core.rollout.generate import sample
from mmrlhf_study.miniworld import miniature


@pytest.mark.parametrize("family", miniature.ARCHITECTURES)
def test_a_policy_loads_answers_and_saves_the_same(family, tmp_path):
    first = miniature.create(family, WORDS, SIZE, seed=3)
    policy.save(tmp_path / "a", first)
    loaded = policy.load(str(tmp_path / "a"))
    policy.save(tmp_path / "again", miniature.create(family, WORDS, SIZE, seed=3))
    assert storage.sha256_tree(tmp_path / "a") == storage.sha256_tree(tmp_path / "again")
    for name in ("b", "c"):  # loading adds the precision to the configuration once, and nothing after that
        policy.save(tmp_path / name, policy.load(str(tmp_path / ("a" if name == "b" else "b"))))
    assert storage.sha256_tree(tmp_path / "b") == storage.sha256_tree(tmp_path / "c")
    files = {file.suffix for file in (tmp_path / "a").iterdir()}
    assert files <= {".json", ".safetensors", ".jinja"}
    weights, again = first.model.state_dict(), loaded.model.state_dict()
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    answers = [sample(p, list(ASKED.values()), list(ASKED), max_new_tokens=4, temperature=1.0) for p in (first, loaded)]
    assert answers[0] == answers[1]


def test_an_absent_checkpoint_is_one_sentence_with_id_folder_and_profile(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(policy.PolicyError) as caught:
        policy.load("llava-hf/no-such-checkpoint")
    message = str(caught.value)
    assert "\n" not in message
    assert message.count(". ") == 0
    for part in ("llava-hf/no-such-checkpoint", str(tmp_path), "hub cache", "`mini`"):
        assert part in message


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (None, ""),
        ("config.json", "null"),
        ("config.json", "[1]"),
        ("config.json", "{}"),
        ("config.json", "[" * 100_000),
        ("config.json", '{"n": ' + "1" * 5000 + "}"),
        ("checkpoint.json", "null"),
        ("checkpoint.json", '{"checkpoint": null}'),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_named(tmp_path, file, content):
    if file:
        (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=str(tmp_path / (file or ""))) as caught:
        policy.load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_reference_leads_to_its_checkpoint_and_not_to_itself(tmp_path):
    policy.save(tmp_path / "real", miniature.create("internvl", WORDS, SIZE, seed=3))
    policy.refer(tmp_path / "near", str(tmp_path / "real"))
    assert policy.locate(str(tmp_path / "near")) == tmp_path / "real"
    assert policy.load(str(tmp_path / "near")).model.num_parameters() > 1000
    policy.refer(tmp_path / "ring", str(tmp_path / "ring"))
    with pytest.raises(policy.PolicyError, match="ring"):
        policy.locate(str(tmp_path / "ring"))
