"""Prompts hold what they are given, replies are read strictly."""

import json

import pytest

from mmrlhf_study.annotation import wording
from mmrlhf_study.annotation.records import SCALES


def test_the_expansion_prompt_holds_its_parts_as_they_are():
    text = wording.expansion("what is {answer} ?", "a {comment}", "right {question} .")
    assert "Question: what is {answer} ?\nAnswer: a {comment}\nComment: right {question} .\n" in text
    assert "Rely on the comment alone." in text


def test_the_judging_prompt_numbers_responses_and_names_every_scale():
    text = wording.judging("what ?", ["a dog", "a cat"])
    assert text.endswith("Question: what ?\n\nResponse 1:\na dog\n\nResponse 2:\na cat")
    for scale, labels in SCALES.items():
        assert f"{scale}: " in text
        assert f"1 = {labels[0]}, 5 = {labels[-1]}" in text


def reply(ranks=(1, 2), **change) -> str:
    row = {"helpfulness": 5, "faithfulness": 4, "ethics": 5, "reason": "fine"}
    return "Sure:\n```json\n" + json.dumps({"responses": [row, row | change], "ranks": list(ranks)}) + "\n```"


def test_a_reply_becomes_judgements_and_ranks():
    found, ranks = wording.judged(reply((3, 1)), "q", ["q/1", "q/2"], "gpt")
    assert [(one.response, one.annotator, one.overall, one.reason) for one in found] == [
        ("q/1", "gpt", 9, "fine"),
        ("q/2", "gpt", 9, "fine"),
    ]
    assert ranks == (2, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[1]",
        "{}",
        reply(helpfulness=6),
        reply(helpfulness="5"),
        reply(ethics=None),
        reply((1,)),
        reply((1, "a")),
        reply(reason=3),
    ],
)
def test_a_reply_in_another_form_is_refused(text):
    with pytest.raises(ValueError, match="not in the form asked for"):
        wording.judged(text, "q", ["q/1", "q/2"], "gpt")
