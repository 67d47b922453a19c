"""Miniature models are ordinary checkpoints of the real architectures, and their tokenizer loses nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_policies import ASKED

from mmrlhf_core.models import prompts
from mmrlhf_study.miniworld import miniature

WORDS = ["a", "red", "circle", "at", "b3", ".", "is", "there", "no_shape"]
SMALL = miniature.Size(width=32, layers=2, heads=4, kv_heads=2, mlp=48, vision_width=32, vision_mlp=32)
TOKENIZER = miniature.build_tokenizer("llava_onevision", WORDS)


@pytest.mark.parametrize("family", miniature.ARCHITECTURES)
def test_the_picture_reaches_the_logits(family):
    processor = miniature.build_processor(family, WORDS, SMALL)
    model = miniature.build_model(family, processor, SMALL)
    batch = prompts.encode(processor, [ASKED["one"]])
    other = {**batch, "pixel_values": -batch["pixel_values"]}
    with torch.no_grad():
        assert (model(**batch).logits[0, -1] - model(**other).logits[0, -1]).abs().max() > 0


def test_same_seed_same_weights_and_the_callers_generator_is_left_alone():
    processor = miniature.build_processor("llava_onevision", WORDS, SMALL)
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, second, third = (miniature.build_model("llava_onevision", processor, SMALL, seed=s) for s in (5, 5, 6))
    assert torch.equal(torch.rand(3), expected)
    pairs = [(first.state_dict()[k], second.state_dict()[k], third.state_dict()[k]) for k in first.state_dict()]
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)


def test_each_word_is_one_token_alone_and_after_a_space():
    tokenizer = miniature.build_tokenizer("internvl", WORDS)
    for word in WORDS:
        assert len(tokenizer(word, add_special_tokens=False).input_ids) == 1
        assert len(tokenizer(f"a {word}", add_special_tokens=False).input_ids) == 2
    assert len(tokenizer("redcircle", add_special_tokens=False).input_ids) == len("redcircle")


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_round_trip(text):
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


def test_the_chat_template_ends_the_prompt_where_the_answer_begins():
    processor = miniature.build_processor("llava_onevision", WORDS, SMALL)
    ask = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "is there"}]}]
    answer = [{"role": "assistant", "content": [{"type": "text", "text": "a red circle"}]}]
    prompt = processor.apply_chat_template(ask, add_generation_prompt=True)
    assert prompt == "<|im_start|>user\n<image>\nis there<|im_end|>\n<|im_start|>assistant\n"
    assert processor.apply_chat_template(ask + answer) == prompt + "a red circle<|im_end|>\n"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: miniature.build_tokenizer("llava", WORDS), "'llava'.*llava_onevision"),
        (lambda: miniature.build_tokenizer("internvl", ["two words"]), "'two words'"),
        (lambda: miniature.build_tokenizer("internvl", [""]), "''"),
        (lambda: miniature.Size(width=100, heads=6), "width 100"),
        (lambda: miniature.Size(image=60), "image 60"),
        (lambda: miniature.Size(width=42, heads=6), "head size 7"),
    ],
)
def test_wrong_input_is_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        wrong()
