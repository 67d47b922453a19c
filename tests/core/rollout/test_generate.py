"""Sampling: greedy is transformers' own, an answer depends on its prompt, name and seed alone, top-p is exact."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_policies import ASKED, sharp

from mmrlhf_core.models import prompts
from mmrlhf_core.rollout.generate import choose, nucleus, sample, stream
from mmrlhf_study.miniworld import miniature


@pytest.fixture(scope="module", params=miniature.ARCHITECTURES)
def answerer(request):
    return sharp(request.param)


def test_greedy_answers_are_those_of_transformers_one_prompt_at_a_time(answerer):
    ours = sample(answerer, list(ASKED.values()), list(ASKED), max_new_tokens=9)
    for asked, (answer,) in zip(ASKED.values(), ours, strict=True):
        inputs = prompts.encode(answerer.processor, [asked])
        theirs = answerer.model.generate(**inputs, do_sample=False, max_new_tokens=9)
        assert answer == prompts.answer_text(answerer.processor, theirs[0, inputs["input_ids"].shape[1] :].tolist())


def test_batch_size_and_order_change_no_answer(answerer):
    asked, names = list(ASKED.values()), list(ASKED)
    how = {"n": 3, "temperature": 1.0, "top_p": 0.9, "max_new_tokens": 7, "seed": 5}
    together = sample(answerer, asked, names, **how)
    alone = sample(answerer, asked, names, batch=1, **how)
    turned = sample(answerer, asked[::-1], names[::-1], batch=2, **how)[::-1]
    assert together == alone == turned
    assert len({answer for answers in together for answer in answers}) > len(asked)


def test_more_answers_keep_the_first_ones_and_other_seeds_give_others(answerer):
    asked, names = [ASKED["one"]], ["one"]
    three = sample(answerer, asked, names, n=3, temperature=1.0, max_new_tokens=8)[0]
    assert sample(answerer, asked, names, n=2, temperature=1.0, max_new_tokens=8)[0] == three[:2]
    assert len(set(three)) == 3
    assert sample(answerer, asked, names, n=3, temperature=1.0, max_new_tokens=8, seed=1)[0] != three
    assert sample(answerer, asked, ["other"], n=3, temperature=1.0, max_new_tokens=8)[0] != three


def test_the_nucleus_worked_by_hand():
    # 0.5 + 0.3 = 0.8 reaches 0.7, so two tokens stay: 0.5 / 0.8 and 0.3 / 0.8.
    kept = nucleus(torch.tensor([[0.3, 0.05, 0.5, 0.15]]), 0.7)
    assert torch.allclose(kept, torch.tensor([[0.375, 0.0, 0.625, 0.0]]))
    # exactly reached: 0.5 alone is the smallest set whose mass is at least 0.5
    assert torch.equal(nucleus(torch.tensor([[0.25, 0.5, 0.25]]), 0.5), torch.tensor([[0.0, 1.0, 0.0]]))


def test_the_inverse_cdf_draws_each_token_as_often_as_it_should():
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(10_000, 4)
    uniform = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    counts = torch.bincount(choose(logits, 1.0, 1.0, uniform), minlength=4)
    assert (counts - torch.tensor([1000, 2000, 3000, 4000])).abs().max() <= 1
    colder = torch.bincount(choose(logits, 0.5, 1.0, uniform), minlength=4)  # squares: 1, 4, 9, 16 of 30
    assert (colder - torch.tensor([333, 1333, 3000, 5333])).abs().max() <= 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-30, 30), min_size=1, max_size=9), st.floats(0.01, 1), st.floats(0, 1, exclude_max=True))
def test_a_chosen_token_is_always_in_the_nucleus(logits, top_p, uniform):
    row = torch.tensor([logits])
    token = int(choose(row, 1.0, top_p, torch.tensor([uniform], dtype=torch.float64)))
    assert nucleus(row.double().softmax(-1), top_p)[0, token] > 0


def test_streams_are_uniform_reproducible_and_distinct():
    first = stream(0, "q", 0, 4000)
    assert np.array_equal(first[:10], stream(0, "q", 0, 10))
    assert abs(first.mean() - 0.5) < 0.02
    assert not any(np.array_equal(first[:10], stream(*other, 10)) for other in [(1, "q", 0), (0, "r", 0), (0, "q", 1)])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"names": ["a"]}, "as many different names"),
        ({"temperature": -1}, "temperature -1"),
        ({"top_p": 0}, "top_p 0 "),
    ],
)
def test_wrong_input_is_named(wrong, sentence):
    made = sharp("internvl")
    with pytest.raises(ValueError, match=sentence):
        sample(made, **{"asked": [ASKED["text"]] * 2, "names": ["a", "b"], **wrong})
