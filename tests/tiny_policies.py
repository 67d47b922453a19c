"""Tiny policies with random weights, and prompts of every kind, for the tests of models and rollouts."""

import numpy as np
import torch
from PIL import Image

from mmrlhf_core.models.prompts import Prompt
from mmrlhf_study.miniworld import miniature

WORDS = ["a", "red", "circle", "at", "b3", ".", "is", "there", "?", "yes", "no", "right", "wrong", ":"]
WORDS += ["question", "response", "critique"]
SIZE = miniature.Size(
    width=32, layers=2, heads=4, kv_heads=2, mlp=48, vision_width=32, vision_layers=1, vision_mlp=32, tied=False
)


def picture(seed, side=64):
    """A square picture of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


ASKED = {
    "text": Prompt("is there a circle ?"),
    "one": Prompt("is there a red circle at b3 ?", (picture(0),)),
    "large": Prompt("a circle ?", (picture(1, 128),)),
    "two": Prompt("is it unknown?", (picture(2), picture(3))),
    "clip": Prompt("a red . circle ?", clip=tuple(picture(seed) for seed in range(4))),
}


def sharpened(policy):
    """The policy with matrices four times larger: random weights hardly prefer any token, larger ones do."""
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.mul_(4 if weight.dim() > 1 else 1)
    return policy


def sharp(family, dtype=torch.float32):
    """A tiny policy that prefers some tokens."""
    created = miniature.create(family, WORDS, SIZE, seed=1)
    created.model.to(dtype)
    return sharpened(created)
