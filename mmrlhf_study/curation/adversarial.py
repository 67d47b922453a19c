"""Adversarial pictures (arXiv 2502.10391, App. C.1): a change of at most 8/255 makes them resemble other pictures.

The attack is projected gradient descent through the policy's own image processor and vision tower. It works with any
model of `AutoModelForImageTextToText` whose image processor takes tensors.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from mmrlhf_core.models.policy import Policy

LARGEST_CHANGE = 8  # largest change of a channel, in steps of 1/255


class Attack(NamedTuple):
    """An adversarial picture, and how far it moved towards its target."""

    picture: Image.Image
    largest: int  # largest change of any channel, in steps of 1/255
    before: float  # cosine between the tower's features of the clean and of the target picture
    after: float  # the same of the adversarial picture, read back as whole numbers


def features(policy: Policy, pixels: torch.Tensor) -> torch.Tensor:
    """Vision tower output of one picture as a vector; `pixels` [3, H, W] in 0 … 255, gradients pass through."""
    inputs = policy.processor.image_processor(images=[pixels], return_tensors="pt")
    inputs = {name: value.to(policy.model.device) for name, value in inputs.items()}
    inputs["pixel_values"] = inputs["pixel_values"].to(policy.model.dtype)
    return policy.model.get_image_features(**inputs).last_hidden_state.flatten().float()


def pixels_of(picture: Image.Image) -> torch.Tensor:
    """[3, H, W] float32 in 0 … 255."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float()


@torch.no_grad()
def _resemblance(policy: Policy, pixels: torch.Tensor, target: torch.Tensor) -> float:
    """Cosine between the tower's features of `pixels` and the features `target`."""
    return torch.cosine_similarity(features(policy, pixels), target, dim=0).item()


def attack(
    policy: Policy, clean: Image.Image, target: Image.Image, steps: int, epsilon: int = LARGEST_CHANGE
) -> Attack:
    """Change `clean` by at most `epsilon`/255 per channel so that the tower's features resemble those of `target`.

    Each step follows the sign of the gradient of the cosine. It is a quarter of `epsilon` at the start and a fortieth
    at the end, and its result is clipped to the bound and to 0 … 255. The final picture is rounded to whole numbers
    and measured again.
    """
    if clean.size != target.size:
        raise ValueError(f"The clean picture is {clean.size}, the target {target.size}. Give two of one size.")
    start = pixels_of(clean)
    with torch.no_grad():
        wanted = features(policy, pixels_of(target))
    pixels = start.clone()
    for step in range(steps):
        pixels.requires_grad_(True)
        similar = torch.cosine_similarity(features(policy, pixels), wanted, dim=0)
        (slope,) = torch.autograd.grad(similar, pixels)
        size = epsilon / 4 * (1 - 0.9 * step / max(steps - 1, 1))
        moved = pixels.detach() + size * slope.sign()
        pixels = torch.clamp(torch.clamp(moved, start - epsilon, start + epsilon), 0, 255)
    whole = pixels.detach().round()
    before, after = (_resemblance(policy, image, wanted) for image in (start, whole))
    picture = Image.fromarray(whole.permute(1, 2, 0).numpy().astype(np.uint8))
    return Attack(picture, int((whole - start).abs().max()), before, after)


def noise(clean: Image.Image, seed: int, epsilon: int = LARGEST_CHANGE) -> Image.Image:
    """The control: `clean` with every channel moved by `epsilon`/255 up or down at random."""
    start = pixels_of(clean).numpy()
    sign = np.random.default_rng(seed).choice((-1, 1), start.shape)
    changed = np.clip(start + epsilon * sign, 0, 255).astype(np.uint8)
    return Image.fromarray(changed.transpose(1, 2, 0))


def require(available: int, wanted: int, prompts: Sequence[str]) -> None:
    """Refuse when fewer than `wanted` (or than two) of the remaining queries ask one of `prompts`."""
    if wanted and available < max(wanted, 2):
        raise ValueError(
            f"{wanted} adversarial pictures are wanted, and {available} of the remaining image queries ask one of "
            f"{', '.join(map(repr, prompts))}. Name prompts of this pool in describe_prompts, or ask for "
            f"{available if available > 1 else 0} in adversarial."
        )


def targets(n: int, seed: int) -> Sequence[int]:
    """For each of `n` pictures another one as its target: a random cycle, so no picture is its own target."""
    if n < 2:
        raise ValueError(f"{n} pictures cannot be targets of each other. Give at least 2.")
    order = np.random.default_rng(seed).permutation(n)
    return [int(order[(int(place) + 1) % n]) for place in np.argsort(order)]


def overlap(text: str, reference: str) -> float:
    """F1 over words of an answer and a reference, 0 to 1; a word counts as often as it is in both."""
    a, b = Counter(text.lower().split()), Counter(reference.lower().split())
    return 2 * (a & b).total() / max(a.total() + b.total(), 1)
