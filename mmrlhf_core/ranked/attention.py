"""Attention with exactly the structure of a ranked tree, through transformers' attention interface.

A token attends to the tokens before it in its own prefix and in its own response. Each query is two calls of scaled
dot-product attention: the prefix with itself (causal), and the responses with prefix and responses under a mask. No
T × T mask is built. On CUDA with Triton the same rule is one FlexAttention block mask.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from mmrlhf_core.ranked.batch import Tree

ATTENTION = "ranked_tree"
SUPPORTED_FAMILIES = ("llava_onevision", "qwen2_5_vl", "internvl", "qwen2", "qwen3")
TEXT_MODELS = ("qwen2", "qwen2_5_vl_text", "qwen3")


def visible(tree: Tree, i: Tensor, j: Tensor) -> Tensor:
    """Whether token `i` attends to token `j`; both are index tensors that broadcast. Defines the structure."""
    same_query = tree.query_of[i] == tree.query_of[j]
    own_branch = (tree.branch_of[j] == 0) | (tree.branch_of[j] == tree.branch_of[i])
    return (i >= j) & same_query & own_branch & (tree.query_of[i] >= 0) | (i == j)


Spans = tuple[tuple[int, Tensor], ...]  # (prefix length, mask) of each query


@dataclass(frozen=True)
class Structure:
    """What the attention of every layer needs: one (prefix length, mask) per query, or a FlexAttention mask.

    Each mask is additive, [K·R, P + K·R] of one query's responses: 0 where visible, −∞ elsewhere.
    """

    spans: Spans = ()
    block_mask: object = None


def structure(tree: Tree, dtype: torch.dtype) -> Structure:
    """The structure of a batch for its device; built once per forward pass and shared by all layers."""
    device = tree.ids.device
    if device.type == "cuda" and dtype != torch.float64 and find_spec("triton"):
        from torch.nn.attention.flex_attention import create_block_mask

        size = len(tree.ids)
        return Structure(
            block_mask=create_block_mask(lambda b, h, i, j: visible(tree, i, j), None, None, size, size, device=device)
        )
    spans, start = [], 0
    for prefix, lengths in zip(tree.prefix_lengths, tree.response_lengths, strict=True):
        stop = start + prefix + sum(lengths)
        place = torch.arange(start, stop, device=device)
        seen = visible(tree, place[prefix:, None], place[None])
        spans.append((prefix, torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))))
        start = stop
    return Structure(spans=tuple(spans))


@cache
def _flex() -> Callable[..., Tensor]:
    """FlexAttention compiled for changing lengths: one compilation, not one per length."""
    from torch.nn.attention.flex_attention import flex_attention

    return cast(Callable[..., Tensor], torch.compile(flex_attention, dynamic=True))


def _split_attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None, spans: Spans) -> Tensor:
    """Attention [1, T, H, D] over the spans (prefix length, mask) of a batch; padding behind them gets zeros."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2) for x in (key, value))
    sizes = [size for prefix, mask in spans for size in (prefix, len(mask))]
    *queries, padding = query.split([*sizes, query.shape[2] - sum(sizes)], dim=2)
    whole = [prefix + len(mask) for prefix, mask in spans]
    keys, values = (x[:, :, : sum(whole)].split(whole, dim=2) for x in (key, value))
    parts = []
    for number, (prefix, mask) in enumerate(spans):
        k, v = keys[number], values[number]
        first = k[:, :, :prefix], v[:, :, :prefix]
        parts.append(F.scaled_dot_product_attention(queries[2 * number], *first, is_causal=True, scale=scale))
        responses = queries[2 * number + 1]
        parts.append(F.scaled_dot_product_attention(responses, k, v, attn_mask=mask[None, None], scale=scale))
    return torch.cat([part.transpose(1, 2) for part in (*parts, torch.zeros_like(padding))], dim=1)


def tree_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, tree: Structure | None = None, **kwargs: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention function for transformers. query [1, H, T, D], key and value [1, H_kv, T, D] → [1, T, H, D].

    Without `tree` it is transformers' own SDPA attention, so generation and plain batches work as before.
    """
    if tree is None:
        sdpa = AttentionInterface()["sdpa"]
        return cast(tuple[Tensor, None], sdpa(module, query, key, value, attention_mask, scaling=scaling, **kwargs))
    if tree.block_mask is None:
        return _split_attention(query, key, value, scaling, tree.spans), None
    query, key = query.to(value.dtype), key.to(value.dtype)  # autocast leaves them in fp32, rotated, beside bf16 values
    out = _flex()(query, key, value, block_mask=tree.block_mask, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, tree_attention)
AttentionMaskInterface.register(ATTENTION, AttentionMaskInterface()["sdpa"])


def _refuse(what: str) -> ValueError:
    return ValueError(
        f"{what}. Ranked trees need plain causal full attention in every layer of the text model; "
        "use a checkpoint with it, or train on plain pairs."
    )


def check(model: PreTrainedModel) -> None:
    """Refuse a model whose attention a tree cannot reproduce exactly, naming the layer or the setting."""
    text = model.config.get_text_config()
    for number, kind in enumerate(text.to_dict().get("layer_types") or []):
        if kind != "full_attention":
            raise _refuse(f"Layer {number} of the text model is {kind!r}")
    for name, _ in model.named_parameters():
        if name.rsplit(".", 1)[-1] == "sinks":
            raise _refuse(f"{name} is an attention sink")
    if model.config.model_type not in SUPPORTED_FAMILIES or text.model_type not in TEXT_MODELS:
        raise _refuse(
            f"Model type {model.config.model_type!r} with text model {text.model_type!r} is not supported "
            f"(allowed: {', '.join(SUPPORTED_FAMILIES)}; text: {', '.join(TEXT_MODELS)})"
        )


def check_dropout(model: PreTrainedModel) -> None:
    """Refuse dropout in training: the shared prefix would be dropped once where separate sequences differ."""
    if not model.training:
        return
    rate = model.config.get_text_config().attention_dropout
    if rate:
        raise _refuse(f"attention_dropout of the text model is {rate}; set it to 0")
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and module.training and module.p:
            raise _refuse(f"{name} drops with probability {module.p}; set it to 0")


def prepare(model: PreTrainedModel) -> PreTrainedModel:
    """Check a model and give its text part the tree attention; call once after loading. Returns the same model."""
    check(model)
    text_only = model.config.get_text_config() is model.config
    model.set_attn_implementation(ATTENTION if text_only else {"text_config": ATTENTION})
    return model
