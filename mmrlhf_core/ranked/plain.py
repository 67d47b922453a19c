"""The two plain layouts a tree is measured against: full sequences through the model's ordinary forward pass."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from mmrlhf_core.ranked.batch import Query
from mmrlhf_core.ranked.logps import token_logps


def _repeat(media: dict[str, Tensor], times: int) -> dict[str, Tensor]:
    return {key: torch.cat([value] * times) for key, value in media.items()}


def full_sequences(model: PreTrainedModel, query: Query, chosen: list[int], left: bool = False) -> dict[str, Tensor]:
    """Model inputs of prefix + response for the `chosen` responses, padded, with the media repeated for each."""
    rows = [torch.cat([query.prefix, query.responses[k]]) for k in chosen]
    length = max(len(row) for row in rows)
    pads = [(length - len(row), 0) if left else (0, length - len(row)) for row in rows]
    ids = torch.stack([F.pad(row, pad) for row, pad in zip(rows, pads, strict=True)])
    mask = torch.stack([F.pad(torch.ones_like(row), pad) for row, pad in zip(rows, pads, strict=True)])
    inputs = {"input_ids": ids, "attention_mask": mask, **_repeat(query.media, len(chosen))}
    if model.config.model_type == "qwen2_5_vl":
        kinds = (ids == model.config.image_token_id) * 1 + (ids == model.config.video_token_id) * 2
        inputs["mm_token_type_ids"] = (kinds * mask).int()
    return inputs


def _answers(query: Query, chosen: list[int], length: int, left: bool) -> list[tuple[int, int]]:
    """Where each chosen response lies in its padded row, as (first, last + 1)."""
    sizes = [len(query.responses[k]) for k in chosen]
    starts = [length - size if left else len(query.prefix) for size in sizes]
    return [(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def _sum(query: Query, k: int, tokens: Tensor) -> Tensor:
    return tokens.sum() if query.counted is None else (tokens * query.counted[k]).sum()


def full_logps(model: PreTrainedModel, query: Query, chosen: list[int], left: bool = False) -> Tensor:
    """log π(y_k|x) [len(chosen)] from the full logits of full sequences: the definition, and the plain trainer."""
    inputs = full_sequences(model, query, chosen, left)
    logits = model(**inputs, use_cache=False).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logp = logits[:, :-1].log_softmax(-1).gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
    spans = _answers(query, chosen, logits.shape[1], left)
    rows = zip(chosen, spans, logp, strict=True)
    return torch.stack([_sum(query, k, row[start - 1 : stop - 1]) for k, (start, stop), row in rows])


def once_logps(model: PreTrainedModel, query: Query, chunk: int = 1024) -> Tensor:
    """log π(y_k|x) [K] with each response once, its own prefix in front, and only response states through the head."""
    everyone = list(range(len(query.responses)))
    inputs = full_sequences(model, query, everyone)
    states = model.base_model(**inputs, use_cache=False).last_hidden_state
    spans = _answers(query, everyone, states.shape[1], left=False)
    wanted = torch.cat([row[start - 1 : stop - 1] for row, (start, stop) in zip(states, spans, strict=True)])
    tokens = token_logps(model.get_output_embeddings(), wanted, torch.cat(query.responses), chunk)
    parts = tokens.split([len(response) for response in query.responses])
    return torch.stack([_sum(query, k, part) for k, part in enumerate(parts)])
