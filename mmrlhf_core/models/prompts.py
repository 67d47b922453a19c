"""Every prompt template, once: training, evaluation and inference all build their tokens here.

Shapes: B prompts, T tokens of the longest one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from PIL import Image

from mmrlhf_core import storage
from mmrlhf_core.records import Query


@dataclass(frozen=True)
class Prompt:
    """What a model is asked: the text, and its pictures or the frames of one clip in order."""

    text: str
    images: tuple[Image.Image, ...] = ()
    clip: tuple[Image.Image, ...] = ()


def spread(frames: Sequence, count: int) -> tuple:
    """`count` frames at even distances, first and last included; a short clip repeats some."""
    return tuple(frames[int(place)] for place in np.linspace(0, len(frames) - 1, count).round())


def of_query(query: Query, folder: str | Path, frames: int) -> Prompt:
    """The prompt of a query of the pool, its media read from `folder`, a clip cut to `frames` frames."""
    paths = spread(query.media, frames) if query.modality == "video" else query.media
    media = tuple(Image.open(storage.inside(storage.path(folder), path)).convert("RGB") for path in paths)
    return Prompt(query.prompt, clip=media) if query.modality == "video" else Prompt(query.prompt, images=media)


def messages(prompt: Prompt) -> list[dict]:
    """The conversation up to the answer: one user turn, media first (arXiv 2502.10391 trains with the same order)."""
    media = [{"type": "image"} for _ in prompt.images] + [{"type": "video"}] * bool(prompt.clip)
    return [{"role": "user", "content": [*media, {"type": "text", "text": prompt.text}]}]


def render(processor: hf.ProcessorMixin, prompt: Prompt) -> str:
    """The prompt as the model's chat template writes it, ending where the answer begins."""
    return processor.apply_chat_template(messages(prompt), add_generation_prompt=True)


def encode(processor: hf.ProcessorMixin, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
    """Processor tensors of B prompts: `input_ids` and `attention_mask` [B, T], padded on the left, and the media.

    Clips of one batch need equally many frames (`spread` sees to it).
    """
    media = {}
    if images := [list(prompt.images) for prompt in prompts if prompt.images]:
        media["images"] = images
    if clips := [np.stack([np.asarray(frame) for frame in prompt.clip]) for prompt in prompts if prompt.clip]:
        media["videos"] = clips
    text = [render(processor, prompt) for prompt in prompts]
    return dict(processor(text=text, padding=True, padding_side="left", return_tensors="pt", **media))


def after_media(processor: hf.ProcessorMixin, prompt: Prompt) -> list[int]:
    """Tokens of a prompt behind its last media mark (all of them without media).

    Marks are special tokens, which no other token grows into, so these are the last tokens of `encode`.
    """
    text, marks = render(processor, prompt), (processor.image_token, processor.video_token)
    if prompt.images or prompt.clip:
        text = text[max(text.rindex(mark) + len(mark) for mark in marks if mark in text) :]
    return processor.tokenizer(text, add_special_tokens=False).input_ids


def answer_ids(processor: hf.ProcessorMixin, answer: str) -> list[int]:
    """Tokens of an answer and the end of the turn; tokenised apart, so the prompt's tokens never depend on it."""
    tokenizer = processor.tokenizer
    return [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]


def answer_text(processor: hf.ProcessorMixin, ids: Iterable[int]) -> str:
    """The text of sampled tokens, up to the first end of turn."""
    ids, end = list(ids), processor.tokenizer.eos_token_id
    kept = ids[: ids.index(end)] if end in ids else ids
    return processor.tokenizer.decode(kept, skip_special_tokens=True).strip()
