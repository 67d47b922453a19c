"""Every prompt template, once: training, evaluation and inference all build their tokens here.

Shapes: B prompts, T tokens of the longest one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from PIL import Image

from mmrlhf_core.data import storage
from mmrlhf_core.data.records import Query


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
    return encode_rendered(processor, prompts, [render(processor, prompt) for prompt in prompts])


def encode_rendered(
    processor: hf.ProcessorMixin, prompts: Sequence[Prompt], text: Sequence[str]
) -> dict[str, torch.Tensor]:
    """The same for texts that are written out already, one for each prompt, with its media marks."""
    media = {}
    if images := [list(prompt.images) for prompt in prompts if prompt.images]:
        media["images"] = images
    if clips := [np.stack([np.asarray(frame) for frame in prompt.clip]) for prompt in prompts if prompt.clip]:
        media["videos"] = clips
    return dict(processor(text=list(text), padding=True, padding_side="left", return_tensors="pt", **media))


@dataclass(frozen=True)
class Wording:
    """The words around question and response when a model is asked for a critique of the response.

    A response stands between line ends, so that its tokens are those of the same text inside the whole.
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


def _refuse_marks(processor: hf.ProcessorMixin, text: str, what: str) -> None:
    """An error when a text holds the template's own marks."""
    tokenizer = processor.tokenizer
    marks = {*tokenizer.all_special_tokens, *(t.content for t in tokenizer.added_tokens_decoder.values() if t.special)}
    for mark in sorted(marks | {_SLOT}):
        if mark in text:
            raise ValueError(f"The {what} holds {mark!r}, which the template uses as a mark; write it otherwise.")


def critique_frame(processor: hf.ProcessorMixin, prompt: Prompt, wording: Wording) -> tuple[str, list[int]]:
    """What stands around a response that is to be judged: the text up to it, and the tokens behind it.

    The critique begins where the tokens end. A question that holds the template's own marks is refused.
    """
    _refuse_marks(processor, prompt.text, "question")
    text = f"{wording.before}{prompt.text}{wording.between}{_SLOT}{wording.after}"
    head, tail = render(processor, replace(prompt, text=text)).split(_SLOT)
    return head, processor.tokenizer(tail, add_special_tokens=False).input_ids


RATINGS, PLACES = ("1", "2", "3", "4", "5"), ("1", "2")  # answers to the two prompts below


def rating(processor: hf.ProcessorMixin, prompt: Prompt, response: str) -> Prompt:
    """What an untrained judge is asked about one response; it answers with one of `RATINGS`."""
    _refuse_marks(processor, prompt.text + response, "question or response")
    text = f"{prompt.text}\nresponse :\n{response}\nhow good is the response , from 1 ( bad ) to 5 ( good ) ?"
    return replace(prompt, text=text)


def comparison(processor: hf.ProcessorMixin, prompt: Prompt, first: str, second: str) -> Prompt:
    """What an untrained judge is asked about two responses; it answers with one of `PLACES`."""
    _refuse_marks(processor, prompt.text + first + second, "question or response")
    told = f"response 1 :\n{first}\nresponse 2 :\n{second}\nwhich response is better , 1 or 2 ?"
    return replace(prompt, text=f"{prompt.text}\n{told}")


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
