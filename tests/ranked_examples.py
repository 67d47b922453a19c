"""A tiny model and ranked examples for the tests of this folder; importable from the processes they start."""

from functools import cache

import numpy as np
import torch
from PIL import Image

from mmrlhf_core.models import prompts
from mmrlhf_core.ranked.attention import prepare
from mmrlhf_core.ranked.batch import RankedQuery, split_inputs
from mmrlhf_core.ranked.vision import vision_tower
from mmrlhf_core.training.base import arguments
from mmrlhf_core.training.dataset import RankedExample
from mmrlhf_core.training.trainer import RankedModel
from mmrlhf_study.miniworld import miniature

SIZE = miniature.Size(
    width=32, layers=1, heads=2, kv_heads=1, mlp=48, vision_width=32, vision_layers=1, vision_heads=2, vision_mlp=48
)
WORDS = ("a", "red", "blue", "circle", "square", "at", "left", "right", "is", "it")


@cache
def processor():
    return miniature.build_processor("llava_onevision", WORDS, SIZE)


def model(score=None, dtype=torch.float32):
    """A fresh model, always with the same weights; its tower does not train."""
    inner = prepare(miniature.build_model("llava_onevision", processor(), SIZE, dtype=dtype))
    vision_tower(inner).requires_grad_(False)
    return RankedModel(inner, score)


def examples(count, seed=0, margins=True, reference=True):
    """`count` queries with a picture each, 2 to 4 responses, all their pairs."""
    rng, made, asked = np.random.default_rng(seed), [], processor()
    for number in range(count):
        picture = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
        prefix, media = split_inputs(prompts.encode(asked, [prompts.Prompt("is it red", (picture,))]))
        answers = [torch.tensor(rng.integers(5, 200, rng.integers(2, 9))) for _ in range(2 + number % 3)]
        pairs = [(a, b) for a in range(len(answers)) for b in range(a + 1, len(answers))]
        delta = torch.tensor(rng.normal(1, 1, len(pairs))) if margins else None
        logps = [torch.tensor(rng.normal(-5, 0.1, len(a)), dtype=torch.float32) for a in answers]
        query = RankedQuery(prefix, media, answers, pairs)
        made.append(RankedExample(f"q{number}", query, delta, logps if reference else None))
    return made


def settings(folder, **given):
    """Few quick steps on the CPU."""
    usual = {"use_cpu": True, "max_steps": 3, "learning_rate": 1e-3, "logging_steps": 1, "disable_tqdm": True}
    usual |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "seed": 7}
    return arguments(folder, **{**usual, **given})


def weights(trained):
    """A copy of all weights."""
    return {name: value.detach().clone() for name, value in trained.state_dict().items()}


def same(a, b):
    """Whether two sets of weights are equal to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def distance(a, b):
    """Largest difference between two sets of weights."""
    return max((a[name] - b[name]).abs().max().item() for name in a)
