"""The structure of a tree is honoured exactly, and models it cannot hold for are refused."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from mmrlhf_core.ranked import attention, batch, logps

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)
SHAPES = st.lists(st.tuples(st.integers(1, 9), LENGTHS), min_size=1, max_size=3)


def tree_of(shapes, multiple=1):
    ones = torch.ones(64, dtype=torch.long)
    queries = [batch.RankedQuery(ones[:prefix], {}, [ones[:n] for n in lengths], []) for prefix, lengths in shapes]
    return batch.build_tree(queries, multiple)


def dense(tree):
    """The T × T mask of a batch from the one definition."""
    place = torch.arange(len(tree.ids))
    return attention.visible(tree, place[:, None], place[None])


def test_visible_by_hand():
    # prefix of 2, responses of 2 and 1, then a query of 1 + 1, then one token of padding
    tree = tree_of([(2, [2, 1]), (1, [1])], multiple=8)
    rows = [
        "x.......",
        "xx......",
        "xxx.....",
        "xxxx....",
        "xx..x...",
        ".....x..",
        ".....xx.",
        ".......x",
    ]
    assert ["".join("x" if seen else "." for seen in row) for row in dense(tree).tolist()] == rows


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(1, 8), st.integers(0, 999))
def test_split_attention_equals_dense_attention_with_gradients(shapes, multiple, seed):
    tree = tree_of(shapes, multiple)
    generator = torch.Generator().manual_seed(seed)
    size, real = len(tree.ids), int((tree.query_of >= 0).sum())
    q = torch.randn(1, 4, size, 8, dtype=torch.float64, generator=generator, requires_grad=True)
    k, v = (torch.randn(1, 2, size, 8, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2))
    weight = torch.randn(1, real, 4, 8, dtype=torch.float64, generator=generator)
    ours, _ = attention.tree_attention(None, q, k, v, None, 0.3, attention.structure(tree, q.dtype))
    wide = [x.repeat_interleave(2, 1) for x in (k, v)]
    naive = F.scaled_dot_product_attention(q, *wide, attn_mask=dense(tree), scale=0.3).transpose(1, 2)
    torch.testing.assert_close(ours[:, :real], naive[:, :real], atol=1e-12, rtol=0)
    grads = [torch.autograd.grad((out[:, :real] * weight).sum(), (q, k, v)) for out in (ours, naive)]
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=0)


def test_flex_block_mask_is_the_same_rule():
    """What runs on CUDA, in FlexAttention's uncompiled form: same mask, same output as the split."""
    tree = tree_of([(70, [33, 5, 64]), (9, [40])], multiple=128)
    size = len(tree.ids)
    block_mask = create_block_mask(
        lambda b, h, i, j: attention.visible(tree, i, j), None, None, size, size, device="cpu"
    )
    q, k, v = (torch.randn(1, heads, size, 16, dtype=torch.float64) for heads in (4, 2, 2))
    flex = flex_attention(q, k, v, block_mask=block_mask, enable_gqa=True, scale=0.25)
    split, _ = attention.tree_attention(None, q, k, v, None, 0.25, attention.structure(tree, q.dtype))
    real = tree.query_of >= 0
    torch.testing.assert_close(flex.transpose(1, 2)[:, real], split[:, real], atol=1e-12, rtol=0)


def test_flex_takes_what_autocast_leaves(monkeypatch):
    """Under autocast rotated queries and keys are fp32 beside bf16 values; FlexAttention wants one precision."""
    tree = tree_of([(70, [33, 25])], multiple=128)
    size = len(tree.ids)
    rule = create_block_mask(lambda b, h, i, j: attention.visible(tree, i, j), None, None, size, size, device="cpu")
    q, k, v = (torch.randn(1, heads, size, 16) for heads in (4, 2, 2))
    monkeypatch.setattr(attention, "_flex", lambda: flex_attention)
    ours, _ = attention.tree_attention(None, q, k, v.bfloat16(), None, 0.25, attention.Structure(block_mask=rule))
    exact, _ = attention.tree_attention(None, q, k, v, None, 0.25, attention.structure(tree, q.dtype))
    assert ours.dtype == torch.bfloat16
    real = tree.query_of >= 0
    torch.testing.assert_close(ours[:, real].float(), exact[:, real], atol=2e-2, rtol=2e-2)


def test_without_a_tree_the_model_is_as_before(any_family, tmp_path):
    plain, model = any_family.model(torch.float32), any_family.model(torch.float32)
    untouched = {key: type(module) for key, module in plain.named_modules()}
    vision = model.config.vision_config._attn_implementation
    attention.prepare(model)
    query = any_family.query("one", [3])
    with torch.no_grad():
        logps.response_logps(model, batch.build_tree([query]))
    assert {key: type(module) for key, module in model.named_modules()} == untouched
    assert model.config.vision_config._attn_implementation == vision != attention.ATTENTION
    assert not [key for module in model.modules() for key in vars(module) if key == "forward"]
    inputs = {"input_ids": query.prefix.repeat(2, 1), "attention_mask": torch.ones(2, len(query.prefix)).long()}
    inputs["attention_mask"][1, :4] = 0
    inputs |= {key: torch.cat([value, value]) for key, value in query.media.items()}
    if any_family.name == "qwen2_5_vl":
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == model.config.image_token_id).int()
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, plain(**inputs).logits)
    answers = [m.generate(**inputs, max_new_tokens=4, do_sample=False) for m in (model, plain)]
    assert torch.equal(*answers)
    model.save_pretrained(tmp_path)
    loaded = hf.AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert loaded.config.get_text_config()._attn_implementation == "sdpa"


def config(text_model, **changes):
    """The text model's configuration with changes, as a new object."""
    values = {**copy.deepcopy(text_model.config.to_dict()), **changes}
    return hf.Qwen2Config(**{key: value for key, value in values.items() if key not in ("model_type", "layer_types")})


SMALL = {"hidden_size": 16, "intermediate_size": 16, "vocab_size": 32, "pad_token_id": 0, "num_attention_heads": 2}
GROUPED = {**SMALL, "num_key_value_heads": 1, "head_dim": 8}
WINDOW = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
REFUSED = {
    "Layer 1 .* 'sliding_attention'": lambda: hf.Qwen2ForCausalLM(
        hf.Qwen2Config(**SMALL, num_key_value_heads=1, num_hidden_layers=2, **WINDOW)
    ),
    "Layer 0 .* 'linear_attention'": lambda: hf.Qwen3NextForCausalLM(
        hf.Qwen3NextConfig(**GROUPED, num_hidden_layers=4, num_experts=2, moe_intermediate_size=8)
    ),
    r"layers\.0\.self_attn\.sinks": lambda: hf.GptOssForCausalLM(
        hf.GptOssConfig(**GROUPED, num_hidden_layers=1, num_local_experts=2, layer_types=["full_attention"])
    ),
    "'gemma' with text model 'gemma'": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**GROUPED, num_hidden_layers=1)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_models_that_a_tree_cannot_reproduce_are_refused_by_name(reason):
    with pytest.raises(ValueError, match=reason):
        attention.prepare(REFUSED[reason]())


def test_dropout_is_refused_in_training_only(text_model, make_text_query):
    tree = batch.build_tree([make_text_query(4, [2, 3])])
    model = attention.prepare(hf.Qwen2ForCausalLM(config(text_model, attention_dropout=0.1)))
    logps.response_logps(model.eval(), tree)
    with pytest.raises(ValueError, match=r"attention_dropout of the text model is 0\.1"):
        logps.response_logps(model.train(), tree)
    attention.prepare(text_model).train()
    text_model.model.layers[1].mlp.extra = torch.nn.Dropout(0.2)
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.extra drops with probability 0\.2"):
        logps.response_logps(text_model, tree)


def test_a_model_that_was_not_prepared_is_refused(text_model, make_text_query):
    with pytest.raises(ValueError, match=r"Call mmrlhf_core\.ranked\.attention\.prepare"):
        logps.response_logps(text_model, batch.build_tree([make_text_query(4, [2])]))
