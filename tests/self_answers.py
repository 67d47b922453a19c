"""A tiny policy in a folder and queries with pictures, for the tests of sampling and of self-improvement."""

from tiny_policies import picture, sharpened

from mmrlhf_core.data.records import Query
from mmrlhf_core.models import policy
from mmrlhf_study.miniworld import curriculum, miniature, questions, scenes

SIZE = miniature.Size(width=32, layers=1, heads=2, kv_heads=1, mlp=48, vision_width=32, vision_layers=1, vision_mlp=32)


def save_policy(folder, seed=1):
    """A miniature that prefers some tokens."""
    policy.save(folder, sharpened(miniature.create("llava_onevision", curriculum.words(), SIZE, seed)))
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
        media.mkdir(exist_ok=True)
        picture(number).save(media / f"{number}.png")
        rest = {"category": "long" if number % 2 else "short", "source": "miniworld"}
        made.append(Query(asked.id, asked.prompt, "image", (f"{number}.png",), **rest))
    return made
