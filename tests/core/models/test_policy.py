"""Miniatures of the three families load, answer and save through the lines that published checkpoints use."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmrlhf_core.data import storage
from mmrlhf_core.models import policy
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.rollout.generate import sample
from mmrlhf_study.miniworld import miniature

WORDS = ["a", "red", "circle", "at", "b3", ".", "is", "there", "?", "yes", "no"]
SIZE = miniature.Size(width=32, layers=1, heads=4, kv_heads=2, mlp=48, vision_width=32, vision_layers=1, vision_mlp=32)


def picture(seed, side=64):
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


ASKED = {
    "text": Prompt("is there a circle ?"),
    "one": Prompt("is there a red circle at b3 ?", (picture(0),)),
    "large": Prompt("a circle ?", (picture(1, 128),)),
    "two": Prompt("is it unknown?", (picture(2), picture(3))),
    "clip": Prompt("a red . circle ?", clip=tuple(picture(seed) for seed in range(4))),
}


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


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(policy.PolicyError, match=r"holds no config\.json"):
        policy.load(str(tmp_path))
