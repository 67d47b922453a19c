"""Pre-training of a miniature's vision tower: for every patch of a picture, predict the words for what it shows.

Published checkpoints start from a vision tower trained on hundreds of millions of captioned pictures, and from a
projector aligned with the word embeddings of the language model. This module replaces both. A projected patch h is
compared with the embedding e_v of every word, s_v = sigma(c <h, e_v> + b_v), and the loss is

    L_tower = -(1/BP) sum over pictures, patches and words of [ y log s + (1 - y) log(1 - s) ].

Shapes: B pictures, P patches of one picture (4 x 4), V words.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import transformers as hf
from PIL import Image
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from mmrlhf_core.models.policy import Policy
from mmrlhf_core.training.optimizer import Mixed
from mmrlhf_study.miniworld.claims import NUMBERS
from mmrlhf_study.miniworld.render import RGB, SIDE, render
from mmrlhf_study.miniworld.scenes import BARS, CELLS, CLIP_ROWS, NOTHING, QUARTERS, Fact, Scene, quarter

DIGIT_WORDS = set(NUMBERS[:10])
SILENT = {"a", "the", "bar", "of", "word", "number", "text"}  # words that describe no patch


def patches(family: str, fact: Fact) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The patches of the 4 x 4 grid that a fact covers (a bar from its top to the ground), and its describing words."""
    words = tuple(word for word in fact.thing.split() if word not in SILENT)
    if family == "chart":
        return tuple(range(4 * ((8 - int(words[1])) // 2) + BARS.index(fact.place), 16, 4)), words
    if family == "sign":
        start = 4 * CLIP_ROWS.index(fact.place)
        return tuple(range(start, start + 4)), words
    if family == "clip":
        row, column = divmod(QUARTERS.index(quarter(fact.thing)), 2)
        corner = 8 * row + 2 * column
        return (corner, corner + 1, corner + 4, corner + 5), words[:-2]
    return (CELLS.index(fact.place.split()[-1]),), words


def names(family: str, patch: int, shown: set[str]) -> set[str]:
    """The words for the place of a patch.

    The name of a bar belongs to its top, or to the ground where there is no bar. A digit has the name of its position
    in the number (first, second, ...), and a quarter of a clip is named where it is not empty.
    """
    if family == "chart":
        return {BARS[patch % 4]} if len(shown) > 1 or (patch >= 12 and NOTHING in shown) else set()
    if family == "sign":
        return {CLIP_ROWS[patch // 4], *(BARS[patch % 4 : patch % 4 + 1] if shown & DIGIT_WORDS else ())}
    if family == "clip":
        return set() if NOTHING in shown else set(QUARTERS[patch // 8 * 2 + patch % 4 // 2].split())
    return {CELLS[patch]}


def labels(scene: Scene) -> list[tuple[Image.Image, list[set[str]]]]:
    """The pictures of a scene and the words of each patch: clips by first and last frame, tiles also by quarter."""
    images = render(scene)
    labelled = []
    for number, image in enumerate((images[0], images[-1]) if len(images) > 1 else images):
        shown: list[set[str]] = [set() for _ in range(16)]
        for fact in scene.facts:
            if _visible(scene.family, fact, number):
                places, words = patches(scene.family, fact)
                digits = scene.family == "sign" and fact.place == "bottom"
                for i, place in enumerate(places):
                    below = scene.family == "chart" and i > 0  # the height can be seen at the top only
                    shown[place].update(words[i : i + 1] if digits else words[:1] if below else words)
        shown = [words or {NOTHING} for words in shown]
        whole = [words | names(scene.family, patch, words) for patch, words in enumerate(shown)]
        labelled.append((image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), whole))
        if image.width > SIDE:
            labelled += [_quarter(image, shown, row, column) for row in (0, 1) for column in (0, 1)]
    return labelled


def _visible(family: str, fact: Fact, number: int) -> bool:
    """Whether a fact can be seen in picture `number` (0 first, 1 last)."""
    if family == "pair":
        return fact.place.startswith(("one", "two")[number])
    return family != "clip" or fact.place in (("start", "rest"), ("end", "rest"))[number]


def _quarter(
    image: Image.Image, shown: Sequence[set[str]], row: int, column: int
) -> tuple[Image.Image, list[set[str]]]:
    """A quarter of a large picture, as the model tiles it; a shape is named where it covers a tenth of a patch."""
    crop = image.crop((SIDE * column, SIDE * row, SIDE * (column + 1), SIDE * (row + 1)))
    pixels, visible = np.asarray(crop), []
    for patch in range(16):
        y, x = divmod(patch, 4)
        words = shown[4 * (2 * row + y // 2) + 2 * column + x // 2]
        part = pixels[16 * y : 16 * y + 16, 16 * x : 16 * x + 16].reshape(-1, 3)
        colours = [RGB[word] for word in words if word in RGB]
        visible.append(words if any((part == colour).all(1).sum() > 25 for colour in colours) else {NOTHING})
    return crop, visible


def tensors(scenes: Sequence[Scene], words: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels [B, 3, side, side] in 0..255 and labels [B, P, V], both as bytes."""
    place = {word: i for i, word in enumerate(words)}
    pixels, marks = [], []
    for scene in scenes:
        for image, shown in labels(scene):
            mark = np.zeros((16, len(words)), np.uint8)
            for patch, named in enumerate(shown):
                mark[patch, [place[word] for word in named]] = 1
            pixels.append(np.asarray(image).transpose(2, 0, 1))
            marks.append(mark)
    return torch.from_numpy(np.stack(pixels)), torch.from_numpy(np.stack(marks))


def batches(count: int, batch: int, steps: int, seed: int) -> Iterator[torch.Tensor]:
    """The numbers of the pictures in every step; each epoch has its own order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(count, generator=generator) for _ in range(-(-batch * steps // count))])
    yield from order[: batch * steps].split(batch)


class Naming(torch.nn.Module):
    """Scores of every word for every patch: scaled products with the word embeddings plus a bias per word."""

    def __init__(self, policy: Policy, words: Sequence[str]) -> None:
        super().__init__()
        model = policy.model.model
        self.tower, self.projector, self.embed = (
            model.vision_tower,
            model.multi_modal_projector,
            model.get_input_embeddings(),
        )
        self.layer = model.config.vision_feature_layer
        tokens = [policy.processor.tokenizer(f" {word}", add_special_tokens=False).input_ids[0] for word in words]
        self.register_buffer("tokens", torch.tensor(tokens))
        self.scale = torch.nn.Parameter(torch.tensor(10.0))
        self.bias = torch.nn.Parameter(torch.full((len(words),), -4.0))
        self.to(policy.model.device)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels [B, 3, side, side] in 0..255 to scores [B, P, V]."""
        seen = self.tower(pixels / 127.5 - 1, output_hidden_states=True).hidden_states[self.layer]
        return self.scale * (self.projector(seen) @ self.embed(self.tokens).T) + self.bias


def pretrain(
    policy: Policy, scenes: Sequence[Scene], words: Sequence[str], steps: int, batch: int, lr: float, seed: int
) -> list[dict[str, float]]:
    """Train tower, projector and word embeddings of `policy` in place; returns step, loss and recall of the words."""
    if steps == 0:
        return []
    naming, (pixels, marks), rows = Naming(policy, words), tensors(scenes, words), []
    optimizer = Mixed(naming.named_parameters(), lr, weight_decay=0.0)
    schedule = hf.get_linear_schedule_with_warmup(optimizer, steps // 15, steps)
    for step, taken in enumerate(tqdm(batches(len(pixels), batch, steps, seed), total=steps, desc="tower"), 1):
        wanted = marks[taken].to(policy.model.device).float()
        scores = naming(pixels[taken].to(policy.model.device))
        loss = binary_cross_entropy_with_logits(scores, wanted, reduction="sum") / wanted[..., 0].numel()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*naming.tower.parameters(), *naming.projector.parameters()], 1.0)
        optimizer.step()
        schedule.step()
        if step % 10 == 0 or step == steps:
            recalled = ((scores > 0) & (wanted > 0)).sum() / wanted.sum()
            rows.append({"step": step, "loss": loss.item(), "recall": recalled.item()})
    return rows
