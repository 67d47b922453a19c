"""Models and queries shared by the tests of ranked trees."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from mmrlhf_core.models import prompts
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.ranked import batch
from mmrlhf_study.miniworld import miniature

WORDS = ["is", "there", "a", "red", "circle", "at", "b3", ".", "no", "yes"]
SIZE = miniature.Size(width=32, layers=2, heads=4, kv_heads=2, mlp=48, vision_width=32, vision_mlp=32)
TEXT = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


def sharpened(model):
    """Random weights with matrices four times larger, so that attention is far from uniform and errors show."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.dim() > 1 else 1)
    return model


def picture(height, width, seed):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def family(name):
    """Processor, model maker and query maker of one family."""
    processor = miniature.build_processor(name, WORDS, SIZE)

    def model(dtype=torch.float64):
        return sharpened(miniature.build_model(name, processor, SIZE, dtype=dtype))

    def query(kind, lengths, seed=0, pairs=()):
        """`kind`: text, one picture, two pictures, a large picture (several tiles), or a clip of n frames."""
        shapes = {"one": [(64, 64)], "two": [(64, 64), (64, 96)], "large": [(100, 128)]}.get(kind, [])
        pictures = [picture(*shape, 100 * seed + number) for number, shape in enumerate(shapes)]
        frames = int(kind.removeprefix("clip")) if kind.startswith("clip") else 0
        clip = tuple(picture(64, 64, 7 * seed + n) for n in range(frames))
        prompt = Prompt("is there a red circle at b3 .", tuple(pictures), clip)
        prefix, tensors = batch.split_inputs(prompts.encode(processor, [prompt]))
        generator = torch.Generator().manual_seed(seed)
        words = len(processor.tokenizer) - 12
        responses = [torch.randint(0, words, (length,), generator=generator) for length in lengths]
        return batch.RankedQuery(prefix, tensors, responses, list(pairs))

    return SimpleNamespace(name=name, processor=processor, model=model, query=query)


@pytest.fixture(scope="session", params=miniature.ARCHITECTURES)
def any_family(request):
    return family(request.param)


@pytest.fixture(scope="session")
def llava():
    return family("llava_onevision")


@pytest.fixture
def text_model():
    """A new two-layer Qwen2 text model in float64 for each test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return sharpened(hf.Qwen2ForCausalLM(hf.Qwen2Config(**TEXT)).double().eval())


@pytest.fixture
def all_double(monkeypatch):
    """transformers takes norms and vision positions in fp32 whatever the weights; here they become float64 too.

    Without it a float64 comparison of gradients ends at the rounding of those fp32 islands, about 1e-8.
    """
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def text_query(prefix, lengths, seed=0, pairs=()):
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randint(1, TEXT["vocab_size"], (n,), generator=generator) for n in (prefix, *lengths)]
    return batch.RankedQuery(draw[0], {}, draw[1:], list(pairs))


@pytest.fixture(scope="session")
def make_text_query():
    return text_query
