"""The two plain layouts a tree is measured against: full sequences through the model's ordinary forward pass.

A row is (query, k): the prefix of `query`, with its media, and its k-th response behind it. `B` rows.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from mmrlhf_core.ranked.batch import RankedQuery
from mmrlhf_core.ranked.logps import token_logps
from mmrlhf_core.ranked.vision import gather

Rows = Sequence[tuple[RankedQuery, int]]


def full_sequences(model: PreTrainedModel, rows: Rows, left: bool = False) -> dict[str, Tensor]:
    """Model inputs [B, longest] of prefix + response for each row, padded, with the media once per row."""
    full = [torch.cat([query.prefix, query.responses[k]]) for query, k in rows]
    length = max(len(ids) for ids in full)
    pads = [(length - len(ids), 0) if left else (0, length - len(ids)) for ids in full]
    ids = torch.stack([F.pad(ids, pad) for ids, pad in zip(full, pads, strict=True)])
    mask = torch.stack([F.pad(torch.ones_like(ids), pad) for ids, pad in zip(full, pads, strict=True)])
    keys = tuple(dict.fromkeys(key for query, _ in rows for key in query.media))
    inputs = {"input_ids": ids, "attention_mask": mask, **gather(tuple(query.media for query, _ in rows), keys)}
    if model.config.model_type == "qwen2_5_vl":
        kinds = (ids == model.config.image_token_id) * 1 + (ids == model.config.video_token_id) * 2
        inputs["mm_token_type_ids"] = (kinds * mask).int()
    return inputs


def _spans(rows: Rows, length: int, left: bool = False) -> list[tuple[int, int]]:
    """Where each response lies in its padded row, as (first, last + 1)."""
    sizes = [len(query.responses[k]) for query, k in rows]
    starts = [length - size if left else len(query.prefix) for (query, _), size in zip(rows, sizes, strict=True)]
    return [(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def _sums(rows: Rows, parts: Sequence[Tensor]) -> Tensor:
    """Sums [B] over the counted tokens of each response."""
    masks = [None if query.counted is None else query.counted[k] for query, k in rows]
    return torch.stack([part.sum() if m is None else (part * m).sum() for part, m in zip(parts, masks, strict=True)])


def full_logps(model: PreTrainedModel, rows: Rows, left: bool = False) -> Tensor:
    """log π(y_k|x) [B] from the full logits of full sequences: the definition, and the plain trainer."""
    inputs = full_sequences(model, rows, left)
    logits = model(**inputs, use_cache=False).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logp = logits[:, :-1].log_softmax(-1).gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
    spans = _spans(rows, logits.shape[1], left)
    return _sums(rows, [row[start - 1 : stop - 1] for row, (start, stop) in zip(logp, spans, strict=True)])


def once_logps(model: PreTrainedModel, rows: Rows, chunk: int = 1024) -> Tensor:
    """log π(y_k|x) [B] with each response in its own sequence, and only response states through the head."""
    inputs = full_sequences(model, rows)
    states = model.base_model(**inputs, use_cache=False).last_hidden_state
    spans = _spans(rows, states.shape[1])
    wanted = torch.cat([row[start - 1 : stop - 1] for row, (start, stop) in zip(states, spans, strict=True)])
    responses = [query.responses[k] for query, k in rows]
    tokens = token_logps(model.get_output_embeddings(), wanted, torch.cat(responses), chunk)
    return _sums(rows, tokens.split([len(response) for response in responses]))


def end_states(model: PreTrainedModel, rows: Rows) -> Tensor:
    """Final state [B, D] at the last token of each response: what a reward head reads."""
    inputs = full_sequences(model, rows)
    states = model.base_model(**inputs, use_cache=False).last_hidden_state
    spans = _spans(rows, states.shape[1])
    return torch.stack([row[stop - 1] for row, (_, stop) in zip(states, spans, strict=True)])
