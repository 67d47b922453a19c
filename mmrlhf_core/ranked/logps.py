"""Exact, differentiable log-probabilities of every response of a packed batch, with the logits of one chunk at a time.

Shapes: `T` packed tokens, `N` response tokens, `M` responses, `D` width, `V` vocabulary.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from mmrlhf_core.ranked.attention import ATTENTION, check_dropout, structure
from mmrlhf_core.ranked.batch import Tree
from mmrlhf_core.ranked.vision import TowerCache, embed


@dataclass(frozen=True)
class Logps:
    """sums [M]: log π(y|x) over counted tokens, in float64; tokens [N]: of each token; states [T, D]: final states."""

    sums: Tensor
    tokens: Tensor
    states: Tensor


def _prefix_positions(model: PreTrainedModel, ids: Tensor, media: dict[str, Tensor]) -> Tensor:
    """M-RoPE positions [3, P] of one prefix, from the model itself."""
    kinds = (ids == model.config.image_token_id) * 1 + (ids == model.config.video_token_id) * 2
    keys = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    given = {key: media[key] for key in keys if key in media}
    base: Any = model.base_model  # `get_rope_index` belongs to the family
    return cast(Tensor, base.get_rope_index(ids[None], mm_token_type_ids=kinds[None].int(), **given)[0][:, 0])


def positions(model: PreTrainedModel, tree: Tree) -> Tensor:
    """Rotary positions [1, T], or [3, 1, T] for M-RoPE: every response continues after the largest of its prefix."""
    if model.config.model_type != "qwen2_5_vl":
        before = torch.tensor((*tree.prefix_lengths, 0), device=tree.ids.device)[tree.query_of]
        return (tree.offset + before * (tree.branch_of > 0))[None]
    parts: list[Tensor] = []
    start = 0
    for prefix, lengths, media in zip(tree.prefix_lengths, tree.response_lengths, tree.media, strict=True):
        own = _prefix_positions(model, tree.ids[start : start + prefix], media)
        stop = start + prefix + sum(lengths)
        parts += [own, (tree.offset[start + prefix : stop] + own.max() + 1).expand(3, -1)]
        start = stop
    parts.append(tree.offset[start:].expand(3, -1))
    return torch.cat(parts, dim=1)[:, None]


def hidden_states(model: PreTrainedModel, tree: Tree, cache: TowerCache | None = None) -> Tensor:
    """Final hidden states [T, D] of a packed batch; `model` went through `attention.prepare`."""
    if model.config.get_text_config()._attn_implementation != ATTENTION:
        raise ValueError("Call mmrlhf_core.ranked.attention.prepare(model) once after loading the model.")
    check_dropout(model)
    embeds = embed(model, tree, cache)
    # A 4-D mask is passed on as it is. Without one, restarting positions would be taken for packed documents,
    # and responses would lose their prefix. The real structure travels in `tree`.
    unused = embeds.new_zeros(1, 1, 1, 1)
    out = model.base_model(
        inputs_embeds=embeds, position_ids=positions(model, tree), attention_mask=unused, use_cache=False,
        tree=structure(tree, embeds.dtype),
    )  # fmt: skip
    return cast(Tensor, out.last_hidden_state[0])


def _chunk_logps(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
    logits = head(states)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return -F.cross_entropy(logits, targets, reduction="none")


def token_logps(
    head: nn.Module, states: Tensor, targets: Tensor, chunk: int = 1024, calls: int | None = None
) -> Tensor:
    """log softmax(head(states))[targets], [N], with at most `chunk` rows of logits at a time, also in backward.

    The sum of exponentials is taken in fp32 (float64 stays float64). `calls` fixes how often `head` is called, at
    least ⌈N / chunk⌉ times: under ZeRO-3 every rank has to call it equally often.
    """
    needed = -(-len(targets) // chunk)
    calls = needed if calls is None else calls
    if calls < needed:
        raise ValueError(f"{len(targets)} tokens in chunks of {chunk} need {needed} head calls, not {calls}.")
    pieces = zip(states.tensor_split(calls), targets.tensor_split(calls), strict=True)
    if calls == 1:
        return torch.cat([_chunk_logps(head, *piece) for piece in pieces])
    return torch.cat([checkpoint(_chunk_logps, head, *piece, use_reentrant=False) for piece in pieces])


def response_logps(
    model: PreTrainedModel, tree: Tree, chunk: int = 1024, calls: int | None = None, cache: TowerCache | None = None
) -> Logps:
    """Log-probabilities of all responses of a batch under `model`, equal to those of separate full sequences.

    Sums are in float64: a loss takes the difference of four numbers in the thousands, where one step of fp32 is 1e-4.
    """
    states = hidden_states(model, tree, cache)
    head = model.get_output_embeddings()
    tokens = token_logps(head, states[tree.state_index], tree.targets, chunk, calls)
    counted = tokens.double() * tree.counted
    sums = counted.new_zeros(tree.n_responses).index_add(0, tree.response_of, counted)
    return Logps(sums=sums, tokens=tokens, states=states)
