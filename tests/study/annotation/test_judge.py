"""The checking judge sees the claims, and the prompt for reasons holds what it is given."""

from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.rollout import generate
from mmrlhf_study.annotation import judge


def test_the_checking_judge_asks_about_claims_and_counts_the_right_ones(monkeypatch):
    asked = []

    def sample(model, prompts, names, **settings):
        asked.extend(one.text for one in prompts)
        return [["at a1 x ? y : right . at b2 x ? y : wrong ."] for _ in prompts]

    monkeypatch.setattr(generate, "sample", sample)
    prompt = Prompt("what ?")
    texts = ["at a1 a red circle . at b2 nothing . so the answer is 2 .", "so i must decline .", ""]
    assert judge.by_checking("model", [prompt] * 3, texts) == [0.5, 0.0, 0.0]
    assert asked == ["check : at a1 a red circle . at b2 nothing ."]
    assert judge.by_checking(None, [prompt], [""]) == [0.0]


def test_prompts_hold_their_parts_as_they_are():
    text = judge.expansion("what is {answer} ?", "a {comment}", "right {question} .")
    for part in ("what is {answer} ?\n", "a {comment}\n", "right {question} .\n"):
        assert text.count(part) == 1
