"""A small CLIP trained on pictures and captions, for pictures that published weights have never seen.

It is an open_clip model with its own configuration, saved as open_clip loads it. So after training, a small and a
published encoder are the same to the rest of the code. Shapes: B pairs, W tokens.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from tqdm import tqdm

from mmrlhf_core.data import storage
from mmrlhf_study.curation import embed

CONTEXT = 24  # tokens of a caption, its end included
WEIGHTS = "open_clip_model.safetensors"
Pair = tuple[Image.Image, str]


def config(words: Sequence[str], side: int = 64) -> dict:
    """open_clip configuration of a vision and a text transformer of about 1 M parameters for pictures of `side`."""
    vision = {"image_size": side, "patch_size": 16, "width": 128, "layers": 3, "head_width": 32}
    text = {"context_length": CONTEXT, "vocab_size": len(words) + 2, "width": 128, "heads": 4, "layers": 2}
    scale = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    return {"model_cfg": {"embed_dim": 128, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": scale}


def tokens(captions: Sequence[str], words: Sequence[str]) -> torch.Tensor:
    """[B, W] token ids over a closed vocabulary: 0 pads, 1 + place of the word, the highest id ends.

    open_clip reads a caption off its highest id, so the end has to be that.
    """
    place = {word: i + 1 for i, word in enumerate(words)}
    ids = torch.zeros(len(captions), CONTEXT, dtype=torch.long)
    for row, caption in enumerate(captions):
        parts = caption.split()
        if unknown := [word for word in parts if word not in place]:
            raise ValueError(f"{unknown[0]!r} in {caption!r} is not in the vocabulary. Add it to the words.")
        if len(parts) >= CONTEXT:
            raise ValueError(f"A caption of {len(parts)} words does not fit: {CONTEXT - 1} are allowed. Shorten it.")
        ids[row, : len(parts) + 1] = torch.tensor([*(place[word] for word in parts), len(words) + 1])
    return ids


def create(folder: str | Path, words: Sequence[str], seed: int) -> embed.Encoder:
    """Write an untrained model into `folder` and load it; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _write(folder, open_clip.CLIP(**config(words)["model_cfg"]), words)


def save(folder: str | Path, encoder: embed.Encoder, words: Sequence[str]) -> embed.Encoder:
    """Write a trained model whole or not at all, and load it, so that its digest is that of the files."""
    return _write(folder, encoder.model, words)


def _write(folder: str | Path, model: torch.nn.Module, words: Sequence[str]) -> embed.Encoder:
    """Configuration and weights of a model into `folder`, in open_clip's form."""
    with storage.writing(folder) as temporary:
        temporary.mkdir()
        (temporary / embed.CONFIG).write_text(json.dumps(config(words), indent=2, sort_keys=True) + "\n")
        save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, temporary / WEIGHTS)
    return embed.load(str(storage.path(folder)))


def train(
    encoder: embed.Encoder, pairs: Sequence[Pair], words: Sequence[str], steps: int, batch: int, lr: float, seed: int
) -> list[float]:
    """Train `encoder.model` in place with CLIP's contrastive loss; returns the loss of every step.

    Each step takes `batch` pairs in an order fixed by `seed`. Pictures are shifted by up to two pixels, tinted and made
    noisy, because an embedding should not depend on any of these. The learning rate rises for a tenth of the steps and
    falls along a cosine.
    """
    model, loss_of, rng = encoder.model.train(), open_clip.ClipLoss(), np.random.default_rng(seed)
    device = next(model.parameters()).device
    images = torch.stack([encoder.transform(picture) for picture, _ in pairs])
    captions = tokens([caption for _, caption in pairs], words)
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(steps, 2), pct_start=0.1)
    order, losses = np.array([], np.int64), []
    for _ in tqdm(range(steps), unit=" steps", desc="CLIP"):
        if len(order) < batch:
            order = rng.permutation(len(pairs))
        chosen, order = torch.from_numpy(order[:batch]), order[batch:]
        loss = loss_of(*model(_vary(images[chosen], rng).to(device), captions[chosen].to(device)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        losses.append(loss.item())
    model.eval()
    return losses


def _vary(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Pictures [B, 3, S, S] moved by up to two pixels, each in another light and with a little noise."""
    right, down = rng.integers(-2, 3, 2)
    images = images + torch.from_numpy(rng.uniform(-0.2, 0.2, (len(images), 3, 1, 1)).astype(np.float32))
    noise = torch.from_numpy(rng.normal(0, 0.03, images.shape).astype(np.float32))
    return torch.roll(images, (int(down), int(right)), (2, 3)) + noise


@torch.inference_mode()
def recall(encoder: embed.Encoder, pairs: Sequence[Pair], words: Sequence[str], k: int = 1) -> tuple[int, int]:
    """(pictures whose caption is among the `k` best of all captions, pictures)."""
    device = next(encoder.model.parameters()).device
    images = torch.stack([encoder.transform(picture) for picture, _ in pairs]).to(device)
    captions = tokens([caption for _, caption in pairs], words).to(device)
    score = encoder.model.encode_image(images, normalize=True) @ encoder.model.encode_text(captions, normalize=True).T
    rank = (score > score.diagonal()[:, None]).sum(1)
    return int((rank < k).sum()), len(pairs)
