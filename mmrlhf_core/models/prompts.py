"""Every prompt template, once: training, evaluation and inference build their tokens with these functions.

Shapes: B prompts, T tokens of the longest prompt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import transformers as hf
from PIL import Image

from mmrlhf_core.data import storage
from mmrlhf_core.data.records import Query

Frame = TypeVar("Frame")


@dataclass(frozen=True)
class Prompt:
    """A user turn: the text, and its pictures or the frames of one clip in order."""

    text: str
    images: tuple[Image.Image, ...] = ()
    clip: tuple[Image.Image, ...] = ()


def spread(frames: Sequence[Frame], count: int) -> tuple[Frame, ...]:
    """`count` frames at even distances, the first and the last among them; a short clip repeats frames."""
    return tuple(frames[int(place)] for place in np.linspace(0, len(frames) - 1, count).round())


def of_query(query: Query, folder: str | Path, frames: int) -> Prompt:
    """The prompt of a query of the pool, its media read from `folder`, a clip cut to `frames` frames."""
    paths = spread(query.media, frames) if query.modality == "video" else query.media
    media = tuple(Image.open(storage.inside(storage.path(folder), path)).convert("RGB") for path in paths)
    return Prompt(query.prompt, clip=media) if query.modality == "video" else Prompt(query.prompt, images=media)


def messages(prompt: Prompt) -> list[dict[str, Any]]:
    """The conversation up to the answer: one user turn, media first (arXiv 2502.10391 trains with the same order)."""
    media = [{"type": "image"} for _ in prompt.images] + [{"type": "video"}] * bool(prompt.clip)
    return [{"role": "user", "content": [*media, {"type": "text", "text": prompt.text}]}]


def render(processor: hf.ProcessorMixin, prompt: Prompt) -> str:
    """The prompt as the model's chat template writes it, ending where the answer begins."""
    return str(processor.apply_chat_template(messages(prompt), add_generation_prompt=True))


def encode(processor: hf.ProcessorMixin, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
    """Processor tensors of B prompts: `input_ids`, `attention_mask` [B, T], padded on the left; equally long clips."""
    return encode_rendered(processor, prompts, [render(processor, prompt) for prompt in prompts])


def encode_rendered(
    processor: hf.ProcessorMixin, prompts: Sequence[Prompt], text: Sequence[str]
) -> dict[str, torch.Tensor]:
    """`encode` for prompts that are already rendered with the chat template."""
    media: dict[str, Any] = {}
    if images := [list(prompt.images) for prompt in prompts if prompt.images]:
        media["images"] = images
    if clips := [np.stack([np.asarray(frame) for frame in prompt.clip]) for prompt in prompts if prompt.clip]:
        media["videos"] = clips
    return dict(processor(text=list(text), padding=True, padding_side="left", return_tensors="pt", **media))


@dataclass(frozen=True)
class Wording:
    """The words around question and response when a model is asked for a critique of the response.

    Line breaks surround the response, so it has the same tokens in the prompt as alone.
    """

    before: str = ""
    between: str = "\ncheck :\n"
    after: str = ""


BRIEF = Wording()  # for MiniWorld's models, which have learned what `check :` asks for
FULL = Wording(  # for models that read English: the task of the paper's critique prompt, in our own words
    "Judge, fairly and without bias, how well a multimodal model answered a question. Look at correctness, clarity "
    "and completeness; explain in detail what is good and what should be better.\n\n[Question]: ",
    "\n[Response]:\n",
    "\n\n[Evaluation]:",
)
_SLOT = "\x00response\x00"


def refuse_marks(processor: hf.ProcessorMixin, text: str, what: str) -> None:
    """Refuse special tokens in a text: they would end the turn or insert a picture."""
    tokenizer = processor.tokenizer
    marks = {*tokenizer.all_special_tokens, *(t.content for t in tokenizer.added_tokens_decoder.values() if t.special)}
    for mark in sorted(marks | {_SLOT}):
        if mark in text:
            raise ValueError(f"The {what} contains the special token {mark!r}. Remove it.")


def critique_frame(processor: hf.ProcessorMixin, prompt: Prompt, wording: Wording) -> tuple[str, list[int]]:
    """The text before the response, and the tokens between response and critique."""
    refuse_marks(processor, prompt.text, "question")
    text = f"{wording.before}{prompt.text}{wording.between}{_SLOT}{wording.after}"
    head, tail = render(processor, replace(prompt, text=text)).split(_SLOT)
    return head, _tokens(processor, tail)


def _tokens(processor: hf.ProcessorMixin, text: str) -> list[int]:
    """Tokens of a piece of the template, its marks included."""
    return list(processor.tokenizer(text, add_special_tokens=False).input_ids)


def literal(processor: hf.ProcessorMixin, text: str) -> list[int]:
    """Tokens of a written text; `<image>` and the like are tokenised as ordinary text."""
    return list(processor.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)


def after_media(processor: hf.ProcessorMixin, prompt: Prompt) -> list[int]:
    """Tokens after the last media token of a prompt; all tokens if it has no media.

    Media marks are special tokens and never merge with their neighbours, so these are the last tokens of `encode`.
    """
    text = render(processor, prompt)
    if prompt.images or prompt.clip:
        marks: tuple[str, str] = (processor.image_token, processor.video_token)  # type: ignore[attr-defined]
        text = text[max(text.rindex(mark) + len(mark) for mark in marks if mark in text) :]
    return _tokens(processor, text)


def answer_ids(processor: hf.ProcessorMixin, answer: str) -> list[int]:
    """Tokens of an answer and the end of the turn, tokenised without the prompt, so that neither changes the other."""
    return [*literal(processor, answer), processor.tokenizer.eos_token_id]


def answer_text(processor: hf.ProcessorMixin, ids: Iterable[int]) -> str:
    """The text of sampled tokens, up to the first end of turn."""
    ids, end = list(ids), processor.tokenizer.eos_token_id
    kept = ids[: ids.index(end)] if end in ids else ids
    return str(processor.tokenizer.decode(kept, skip_special_tokens=True)).strip()
