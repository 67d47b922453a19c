"""Tokens decoded back to text: the loss and the score stand where they should, pictures once, all text escaped."""

import reward_world as world
from PIL import Image

from mmrlhf_core.models import reward
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.training import sft
from mmrlhf_core.training.reward_dataset import PromptCache, RewardExamples
from mmrlhf_study.chapters import token_view
from mmrlhf_study.miniworld import pool

BASE = world.fresh()


def test_of_a_fine_tuning_row_the_answer_is_in_the_loss():
    exchange = sft.Exchange(Prompt("what is at b3 ?", (Image.new("RGB", (64, 64)),)), "a blue circle .")
    part = token_view.of_row(BASE.processor, sft.collate(BASE.processor, [[exchange]]), 0)
    assert "".join(text for text, kind in part if kind == "loss") == "a blue circle .<|im_end|>"
    assert any("<image>×" in text for text, kind in part if not kind)
    assert {kind for _, kind in part} == {"", "loss"}


def test_of_a_reward_example_the_critique_is_in_the_loss_and_its_end_is_scored(tmp_path):
    pool.write_pictures(world.made()[0].queries, tmp_path)
    form = reward.form_of(BASE.processor)
    example = RewardExamples(world.data(), "expanded", PromptCache(BASE.processor, form, tmp_path, 3))[0]
    prefix, *branches = token_view.of_query(BASE.processor, form, example.query)
    assert {kind for _, kind in prefix} == {""}
    assert any("×" in text for text, _ in prefix)  # the picture, once
    for branch in branches:
        assert [text for text, kind in branch if kind == "score"] == ["<|im_end|>"]
        assert branch[-1][1] == "score"
    shown = token_view.html([prefix, *branches])
    assert "&lt;|im_end|&gt;" in shown
    assert "<|" not in shown
