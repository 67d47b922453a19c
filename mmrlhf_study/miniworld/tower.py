"""Pre-training of a miniature's eyes: every patch of a picture names what it shows and where it is.

Published checkpoints start from a tower that has seen hundreds of millions of captioned pictures and a projector
aligned with the words of the language model. This stands in for both: the projected patch h is compared with the
embedding e_v of every word, s_v = sigma(c <h, e_v> + b_v), and learns

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
from mmrlhf_study.miniworld.scenes import BARS, CELLS, CLIP_ROWS, NOTHING, QUARTERS, Fact, Scene

DIGITS = set(NUMBERS[:10])
SILENT = {"a", "the", "bar", "of", "word", "number", "text"}  # words of a phrase that show nothing


def patches(family: str, fact: Fact) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The patches of a 4 x 4 grid a fact covers, and the words they show; a bar's from its top to the ground."""
    words = tuple(word for word in fact.thing.split() if word not in SILENT)
    if family == "chart":
        return tuple(range(4 * ((8 - int(words[1])) // 2) + BARS.index(fact.place), 16, 4)), words
    if family == "sign":
        start = 4 * CLIP_ROWS.index(fact.place)
        return tuple(range(start, start + 4)), words
    if family == "clip":
        row, column = divmod(QUARTERS.index(" ".join(words[-2:])), 2)
        corner = 8 * row + 2 * column
        return (corner, corner + 1, corner + 4, corner + 5), words[:-2]
    return (CELLS.index(fact.place.split()[-1]),), words


def names(family: str, patch: int, shown: set[str]) -> set[str]:
    """The words for where a patch is; a bar is named at its top or, where there is none, at the ground, a digit by its
    place in the number (the words of bars), and a quarter of a clip where something is."""
    if family == "chart":
        return {BARS[patch % 4]} if len(shown) > 1 or (patch >= 12 and NOTHING in shown) else set()
    if family == "sign":
        return {CLIP_ROWS[patch // 4], *(BARS[patch % 4 : patch % 4 + 1] if shown & DIGITS else ())}
    if family == "clip":
        return set() if NOTHING in shown else set(QUARTERS[patch // 8 * 2 + patch % 4 // 2].split())
    return {CELLS[patch]}


def labels(scene: Scene) -> list[tuple[Image.Image, list[set[str]]]]:
    """The pictures of a scene with the words of every patch: first and last frame of a clip, also tiles' quarters."""
    images = render(scene)
    found = []
    for number, image in enumerate((images[0], images[-1]) if len(images) > 1 else images):
        shown: list[set[str]] = [set() for _ in range(16)]
        for fact in scene.facts:
            if _visible(scene.family, fact, number):
                places, words = patches(scene.family, fact)
                digits = scene.family == "sign" and fact.place == "bottom"
                for i, place in enumerate(places):
                    below = scene.family == "chart" and i > 0  # the height is to be seen at the top alone
                    shown[place].update(words[i : i + 1] if digits else words[:1] if below else words)
        shown = [said or {NOTHING} for said in shown]
        whole = [said | names(scene.family, patch, said) for patch, said in enumerate(shown)]
        found.append((image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), whole))
        if image.width > SIDE:
            found += [_quarter(image, shown, row, column) for row in (0, 1) for column in (0, 1)]
    return found


def _visible(family: str, fact: Fact, number: int) -> bool:
    """Whether a fact is to be seen in picture `number` (0 first, 1 last)."""
    if family == "pair":
        return fact.place.startswith(("one", "two")[number])
    return family != "clip" or fact.place in (("start", "rest"), ("end", "rest"))[number]


def _quarter(
    image: Image.Image, shown: Sequence[set[str]], row: int, column: int
) -> tuple[Image.Image, list[set[str]]]:
    """A quarter of a large picture, as the model's tiles cut it: a patch shows what colours a tenth of it or more."""
    crop = image.crop((SIDE * column, SIDE * row, SIDE * (column + 1), SIDE * (row + 1)))
    pixels, found = np.asarray(crop), []
    for patch in range(16):
        y, x = divmod(patch, 4)
        said = shown[4 * (2 * row + y // 2) + 2 * column + x // 2]
        part = pixels[16 * y : 16 * y + 16, 16 * x : 16 * x + 16].reshape(-1, 3)
        colours = [RGB[word] for word in said if word in RGB]
        found.append(said if any((part == colour).all(1).sum() > 25 for colour in colours) else {NOTHING})
    return crop, found


def tensors(scenes: Sequence[Scene], words: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels [B, 3, side, side] in 0..255 and labels [B, P, V], both as bytes."""
    place = {word: i for i, word in enumerate(words)}
    pixels, marks = [], []
    for scene in scenes:
        for image, shown in labels(scene):
            mark = np.zeros((16, len(words)), np.uint8)
            for patch, said in enumerate(shown):
                mark[patch, [place[word] for word in said]] = 1
            pixels.append(np.asarray(image).transpose(2, 0, 1))
            marks.append(mark)
    return torch.from_numpy(np.stack(pixels)), torch.from_numpy(np.stack(marks))


def batches(count: int, batch: int, steps: int, seed: int) -> Iterator[torch.Tensor]:
    """Picture numbers of every step: epoch after epoch, each in a new order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(count, generator=generator) for _ in range(-(-batch * steps // count))])
    yield from order[: batch * steps].split(batch)


class Naming(torch.nn.Module):
    """Scores of every word for every patch: scaled products with the word embeddings, and a bias per word."""

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
    """Train tower, projector and word embeddings of `policy` in place; rows of step, loss, share of words recalled."""
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
