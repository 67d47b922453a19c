"""Judges see what they are shown, prompts hold what they are given, replies are read strictly."""

import json

import pytest
from tiny_policies import ASKED, SIZE, WORDS

from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.rollout import generate
from mmrlhf_study.annotation import endpoint, judge
from mmrlhf_study.annotation.endpoint import Answer, Endpoint, NoAnswer
from mmrlhf_study.annotation.records import SCALES
from mmrlhf_study.miniworld import miniature


def reply(ranks=(1, 2), **change) -> str:
    row = {"helpfulness": 5, "faithfulness": 4, "ethics": 5, "reason": "fine"}
    return "Sure:\n```json\n" + json.dumps({"responses": [row, row | change], "ranks": list(ranks)}) + "\n```"


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


def test_the_endpoint_judge_and_the_writer_send_their_prompts(tmp_path, monkeypatch):
    sent = []

    def ask(place, messages, cache, seed=None):
        sent.append(messages[0]["content"][-1]["text"])
        return Answer(reply((3, 1)), 1, 1, cached=False)

    monkeypatch.setattr(endpoint, "ask", ask)
    place = Endpoint("http://nowhere/v1", "some-judge")
    rows, ranks = judge.by_endpoint(place, "what ?", [], "q", [("q/1", "a dog"), ("q/2", "a cat")], tmp_path)
    expected = [("some-judge", name, 9, "fine") for name in ("q/1", "q/2")]
    assert [(one.annotator, one.response, one.overall, one.reason) for one in rows] == expected
    assert ranks == (2, 1)  # without gaps
    assert sent == [judge.judging("what ?", ["a dog", "a cat"])]
    monkeypatch.setattr(endpoint, "ask_all", lambda place, messages, cache: [one[0]["content"] for one in messages])
    assert judge.expand(place, [("what ?", "a dog", "right .")], tmp_path) == [
        endpoint.user(judge.expansion("what ?", "a dog", "right ."))[0]["content"]
    ]
    monkeypatch.setattr(endpoint, "ask", lambda *_: Answer(reply(ethics=9), 1, 1, cached=False))
    with pytest.raises(NoAnswer, match="ethics"):
        judge.by_endpoint(place, "what ?", [], "q", [("q/1", "a"), ("q/2", "b")], tmp_path)


def test_prompts_hold_their_parts_as_they_are():
    text = judge.expansion("what is {answer} ?", "a {comment}", "right {question} .")
    for part in ("what is {answer} ?\n", "a {comment}\n", "right {question} .\n"):
        assert text.count(part) == 1
    text = judge.judging("what ?", ["a dog", "a cat"])
    assert text.index("what ?") < text.index("1:\na dog") < text.index("2:\na cat")
    for scale, labels in SCALES.items():
        assert scale in text
        assert all(f"{point} = {labels[point - 1]}" in text for point in (1, 5))


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[1]", "{}", reply(helpfulness=6), reply(helpfulness="5"), reply(ethics=None), reply((1,)),
     reply((1, "a")), reply(reason=3)],
)  # fmt: skip
def test_a_reply_in_another_form_is_refused(text):
    with pytest.raises(ValueError, match="reply"):
        judge.judged(text, "q", ["q/1", "q/2"], "gpt")


@pytest.mark.parametrize("architecture", miniature.ARCHITECTURES)
def test_a_judge_is_asked_after_question_and_responses_and_no_text_may_hold_a_mark(architecture):
    processor = miniature.build_processor(architecture, WORDS, SIZE)
    one, two = judge.rating(processor, ASKED["one"], "yes ."), judge.comparison(processor, ASKED["one"], "a", "b")
    for asked, shown in ((one, ["yes ."]), (two, ["1 :\na", "2 :\nb"])):
        assert asked.images == ASKED["one"].images
        assert asked.text.startswith(ASKED["one"].text)
        assert all(text in asked.text for text in shown)
    for ask in (judge.rating, judge.comparison):
        with pytest.raises(ValueError, match=r"<\|im_end\|>"):
            ask(processor, ASKED["text"], *["yes <|im_end|>"] * (1 + (ask is judge.comparison)))
