"""Miniature models are ordinary checkpoints of the real architectures, and their tokenizer loses nothing."""

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmrlhf_core.models import policy
from mmrlhf_core.models.policy import Policy
from mmrlhf_study.miniworld import miniature

WORDS = ["a", "red", "circle", "at", "b3", ".", "is", "there", "no_shape"]
SMALL = miniature.Size(width=32, layers=2, heads=4, kv_heads=2, mlp=48, vision_width=32, vision_mlp=32)


def picture(height, width, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def inputs(processor, kind):
    """Processor tensors of one prompt: `one` square picture, `two` pictures, a `large` picture, a `clip`, `text`."""
    pictures = {"one": [(64, 64)], "two": [(64, 64), (64, 64)], "large": [(100, 128)]}.get(kind, [])
    part = [{"type": "video"}] if kind == "clip" else [{"type": "image"} for _ in pictures]
    content = [*part, {"type": "text", "text": "is there a red circle at b3"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    media = {"images": [[picture(*shape, seed) for seed, shape in enumerate(pictures)]]} if pictures else {}
    if kind == "clip":
        media = {"videos": [np.stack([np.asarray(picture(64, 64, seed)) for seed in range(4)])]}
    return processor(text=[text], return_tensors="pt", **media)


@pytest.mark.parametrize("family", miniature.ARCHITECTURES)
def test_saved_folder_loads_through_the_auto_classes_and_gives_the_same_logits(family, tmp_path):
    processor = miniature.build_processor(family, WORDS, SMALL)
    model = miniature.build_model(family, processor, SMALL, seed=3)
    policy.save(tmp_path / "model", Policy(model, processor))
    assert not list((tmp_path / "model").glob("*.bin"))
    loaded = hf.AutoModelForImageTextToText.from_pretrained(tmp_path / "model").eval()
    again = hf.AutoProcessor.from_pretrained(tmp_path / "model")
    for kind in ("one", "two", "large", "clip", "text"):
        batch, same = inputs(processor, kind), inputs(again, kind)
        assert batch.keys() == same.keys()
        assert all(torch.equal(torch.as_tensor(batch[k]), torch.as_tensor(same[k])) for k in batch)
        with torch.no_grad():
            assert torch.equal(model(**batch).logits, loaded(**same).logits), kind
        tokens = loaded.generate(**same, max_new_tokens=3, do_sample=False)
        assert tokens.shape[1] <= same["input_ids"].shape[1] + 3


@pytest.mark.parametrize("family", miniature.ARCHITECTURES)
def test_the_picture_reaches_the_logits(family):
    processor = miniature.build_processor(family, WORDS, SMALL)
    model = miniature.build_model(family, processor, SMALL)
    batch = inputs(processor, "one")
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
    tokenizer = _TOKENIZER
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


_TOKENIZER = miniature.build_tokenizer("llava_onevision", WORDS)


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
