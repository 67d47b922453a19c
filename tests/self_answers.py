"""A tiny policy in a folder and queries with pictures, for the tests of sampling and of self-improvement."""

import numpy as np
import torch
from PIL import Image

from mmrlhf_core.data.records import Query
from mmrlhf_core.models import policy
from mmrlhf_study.miniworld import curriculum, miniature, questions, scenes

SIZE = miniature.Size(width=32, layers=1, heads=2, kv_heads=1, mlp=48, vision_width=32, vision_layers=1, vision_mlp=32)


def save_policy(folder, seed=1):
    """A miniature with weights sharp enough to tell tokens apart."""
    made = miniature.create("llava_onevision", curriculum.words(), SIZE, seed)
    with torch.no_grad():
        for name, weight in made.model.named_parameters():
            weight.mul_(4 if weight.dim() > 1 and "norm" not in name else 1)
    policy.save(folder, made)
    return str(folder)


def always(made, token):
    """The policy with one token forced (a number), or with its end token forbidden (None)."""
    end = made.processor.tokenizer.eos_token_id

    def force(module, given, logits):
        logits = logits.clone()
        logits[..., end if token is None else token] += -1e6 if token is None else 1e6
        return logits

    made.model.lm_head.register_forward_hook(force)
    return made


def ask(media, count=3):
    """`count` queries of MiniWorld, each with a picture of noise below `media`."""
    made = []
    for number in range(count):
        asked = questions.ask(scenes.draw(scenes.EVALUATION[number], "shapes"), "describe")
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        media.mkdir(exist_ok=True)
        Image.fromarray(noise).save(media / f"{number}.png")
        rest = {"category": "long" if number % 2 else "short", "source": "miniworld"}
        made.append(Query(asked.id, asked.prompt, "image", (f"{number}.png",), **rest))
    return made
