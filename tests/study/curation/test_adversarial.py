"""The attack keeps to its bound and does what a random change of the same size does not."""

import numpy as np
import pytest
import torch
from drawings import drawing

from mmrlhf_study.curation import adversarial
from mmrlhf_study.miniworld import miniature
from mmrlhf_study.miniworld.miniature import ARCHITECTURES, Size

WORDS = ("describe", "the", "picture", ".")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def small(request):
    return miniature.create(request.param, WORDS, Size(), seed=0)


def similarity(policy, picture, target):
    """Cosine between the tower's features of two pictures."""
    with torch.no_grad():
        a, b = (adversarial.features(policy, adversarial.pixels_of(image)) for image in (picture, target))
    return torch.cosine_similarity(a, b, dim=0).item()


def test_the_tower_is_moved_to_the_target_within_the_bound(small):
    clean, target = drawing(0)[0], drawing(4)[0]
    found = adversarial.attack(small, clean, target, steps=8)
    change = np.abs(np.asarray(found.picture).astype(int) - np.asarray(clean).astype(int))
    assert change.max() == found.largest <= 8
    assert found.after > found.before
    control = similarity(small, adversarial.noise(clean, 0), target)
    assert found.after - found.before > 3 * abs(control - found.before)
    assert found.after == pytest.approx(similarity(small, found.picture, target), abs=1e-5)
    again = adversarial.attack(small, clean, target, steps=8)
    assert again.picture.tobytes() == found.picture.tobytes()
    clean = drawing(1)[0].point(lambda value: 0 if value < 128 else 255)
    found = adversarial.attack(small, clean, drawing(3)[0], steps=3)
    assert found.largest <= 8


def test_no_room_no_change(small):
    clean = drawing(0)[0]
    found = adversarial.attack(small, clean, drawing(4)[0], steps=2, epsilon=0)
    assert found.picture.tobytes() == clean.tobytes()
    assert (found.largest, found.after) == (0, pytest.approx(found.before))


def test_sizes_have_to_agree(small):
    with pytest.raises(ValueError, match=r"\(64, 64\).*\(32, 32\)"):
        adversarial.attack(small, drawing(0)[0], drawing(0, 32)[0], steps=1)


def test_the_control_uses_the_whole_bound():
    clean = drawing(0)[0]
    change = np.abs(np.asarray(adversarial.noise(clean, 1)).astype(int) - np.asarray(clean).astype(int))
    assert change.max() == 8
    assert (change == 8).mean() > 0.9


def test_nobody_is_its_own_target():
    for n in (2, 3, 17):
        found = adversarial.targets(n, seed=n)
        assert sorted(found) == list(range(n))
        assert all(i != place for i, place in enumerate(found))
    with pytest.raises(ValueError, match="at least 2"):
        adversarial.targets(1, 0)


def test_too_few_pictures_to_attack_say_what_to_do():
    adversarial.require(0, 0, ["describe"])
    adversarial.require(3, 3, ["describe"])
    with pytest.raises(ValueError, match=r"3 .* 2 .*'describe'.* 2 "):
        adversarial.require(2, 3, ["describe"])
    with pytest.raises(ValueError, match=" 0 "):
        adversarial.require(1, 1, ["describe"])


def test_overlap_by_hand():
    # 3 of the words are in both ("a" once); 2 · 3 / (4 + 5).
    assert adversarial.overlap("a red circle left", "a big red circle a") == pytest.approx(6 / 9)
    assert adversarial.overlap("", "") == 0
    assert adversarial.overlap("A b", "b a") == 1
