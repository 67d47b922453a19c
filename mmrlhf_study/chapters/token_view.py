"""Training tokens decoded back to text, as HTML: which tokens enter the loss, and which one gives a score."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

import torch
import transformers as hf
from torch import Tensor

from mmrlhf_core.models import reward
from mmrlhf_core.models.reward import Form
from mmrlhf_core.ranked.batch import RankedQuery, build_tree
from mmrlhf_core.training import sft

BACKGROUND = {"": "", "loss": "background:#ffe2a8", "score": "background:#ffe2a8;outline:2px solid #0b6e6e"}
Pieces = list[tuple[str, str]]  # (text, kind): "" for plain, "loss", or "score" for the token that gives the score


def pieces(processor: hf.ProcessorMixin, tokens: Iterable[int], kinds: Iterable[str]) -> Pieces:
    """Each token as text with its kind; repeated tokens appear once, with their count."""
    decoded = []
    for (token, kind), group in groupby(zip(tokens, kinds, strict=True)):
        text, count = processor.tokenizer.decode([token]), len(list(group))
        decoded.append((f"{text}×{count} " if count > 1 else text, kind))
    return decoded


def of_row(processor: hf.ProcessorMixin, batch: dict[str, Tensor], row: int) -> Pieces:
    """The pieces of one row of a fine-tuning batch (`sft.collate`)."""
    real = batch["attention_mask"][row, 0].diagonal() & (batch["input_ids"][row] != processor.tokenizer.pad_token_id)
    kinds = ["loss" if label != sft.IGNORED else "" for label in batch["labels"][row][real].tolist()]
    return pieces(processor, batch["input_ids"][row][real].tolist(), kinds)


def of_query(processor: hf.ProcessorMixin, form: Form, query: RankedQuery) -> list[Pieces]:
    """The prompt of a reward example, then each response with its critique."""
    tree = build_tree([query])
    scored = set(reward.score_places(tree.targets, tree.response_of, tree.places, tree.n_responses, form).tolist())
    parts, start = [], 0
    masks = [torch.zeros(len(query.prefix), dtype=torch.bool), *query.counted]
    for tokens, mask in zip([query.prefix, *query.responses], masks, strict=True):
        kinds = ["score" if start + n in scored else "loss" if count else "" for n, count in enumerate(mask.tolist())]
        parts.append(pieces(processor, tokens.tolist(), kinds))
        start += len(tokens)
    return parts


def html(parts: Sequence[Pieces]) -> str:
    """One paragraph for each part: loss tokens get a background, the score token a frame."""
    lines = []
    for part in parts:
        spans = (
            f"<span style='{BACKGROUND[kind]}'>{escape(text)}</span>" if kind else escape(text) for text, kind in part
        )
        lines.append(f"<p style='font-family:monospace;white-space:pre-wrap;margin:.4em 0'>{''.join(spans)}</p>")
    return "".join(lines)
