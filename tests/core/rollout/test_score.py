"""Critique, then score: what is written, what is read, that nothing but itself moves a score, and what is refused."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from plain_layouts import end_states
from tiny_policies import picture, sharp

from mmrlhf_core.data.records import Pair
from mmrlhf_core.models import prompts, reward
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.ranked.attention import prepare
from mmrlhf_core.ranked.logps import hidden_states
from mmrlhf_core.ranked.vision import vision_tower
from mmrlhf_core.rollout import generate, score
from mmrlhf_core.rollout.score import CritiqueDecoding, Work
from mmrlhf_study.miniworld import miniature

SAID = {"1": "yes .", "2": "no . a red circle at b3 .", "3": "a circle ."}
WORK = [
    Work("text", Prompt("is there a circle ?"), SAID),
    Work("one", Prompt("is there a red circle at b3 ?", (picture(0),)), {"1": "no .", "2": "right"}),
    Work("large", Prompt("a circle ?", (picture(1, 128),)), {"1": "wrong . a"}),
    Work("clip", Prompt("a red . circle ?", clip=tuple(picture(n) for n in range(4))), SAID),
]
HOW = CritiqueDecoding(max_new_tokens=7)


@pytest.fixture(scope="module", params=miniature.ARCHITECTURES)
def scorer(request):
    return reward.create(sharp(request.param, torch.float64))


@pytest.fixture(scope="module")
def llava():
    return reward.create(sharp("llava_onevision", torch.float64))


def read(scored):
    return {(one.query, one.response): one for one in scored}


def same(a, b):
    a, b = read(a), read(b)
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].critiques == b[key].critiques
        assert a[key].score == pytest.approx(b[key].score, abs=1e-9)


def test_critiques_and_scores_are_those_of_one_plain_sequence_after_another(scorer):
    """Each response by itself: transformers' own greedy generation, and the state at the end of the full sequence."""
    found = score.score(scorer, WORK, HOW)
    processor, model = scorer.policy.processor, prepare(scorer.policy.model)
    number = 0
    for one in WORK:
        for text in one.responses.values():
            wording = scorer.form.wording
            asked = replace(one.prompt, text=f"{wording.before}{one.prompt.text}{wording.between}{text}{wording.after}")
            inputs = prompts.encode(processor, [asked])
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=7)[0, inputs["input_ids"].shape[1] :]
            critique = prompts.answer_text(processor, ids.tolist())
            assert found[number].critiques == (critique,)
            assert found[number].finished == (scorer.form.end in ids.tolist(),)
            parts = reward.encode(processor, scorer.form, one.prompt, [text], [critique])
            query = score.ranked.RankedQuery(parts.prefix, parts.media, parts.responses, [])
            with torch.no_grad():
                plain = scorer.head(end_states(model, [(query, 0)])).item()
            assert found[number].score == pytest.approx(plain, abs=1e-9)
            number += 1
    assert number == len(found)
    assert len({one.score for one in found}) == number


def test_batch_and_order_move_no_score(scorer):
    together = score.score(scorer, WORK, HOW)
    same(together, [one for work in WORK for one in score.score(scorer, [work], HOW)])
    turned = [replace(one, responses=dict(reversed(one.responses.items()))) for one in reversed(WORK)]
    same(together, score.score(scorer, turned, HOW, batch=3))
    single = [replace(one, responses={k: t}) for one in WORK for k, t in one.responses.items()]
    same(together, [one for work in single for one in score.score(scorer, [work], HOW)])


def test_sampled_critiques_are_averaged_and_do_not_depend_on_the_company(llava):
    how = CritiqueDecoding(n=4, temperature=1.0, max_new_tokens=6, seed=3)
    together = score.score(llava, WORK, how)
    same(together, score.score(llava, WORK[::-1], how, batch=1))
    for one in together:
        assert len(one.scores) == len(one.critiques) == len(one.finished) == 4
        assert len(set(one.critiques)) > 1
        assert one.score == pytest.approx(np.mean(one.scores))
    fewer = score.score(llava, WORK, replace(how, n=2))
    assert [one.critiques for one in fewer] == [one.critiques[:2] for one in together]
    # the same critique written twice has the same score twice, and both count in the mean
    alone = [dict(zip(one.critiques, one.scores, strict=True)) for one in together]
    for one, known in zip(together, alone, strict=True):
        assert one.scores == tuple(known[critique] for critique in one.critiques)


def test_given_critiques_are_read_and_nothing_is_written(llava, monkeypatch):
    monkeypatch.setattr(generate, "write", lambda *_: pytest.fail("a critique was written"))
    given = {"1": "right .", "2": "wrong . a circle ."}
    work = Work("q", Prompt("a circle ?", (picture(0),)), {"1": "yes .", "2": "yes ."}, given)
    one, two = score.score(llava, [work])
    assert (one.critiques, two.critiques) == (("right .",), ("wrong . a circle .",))
    assert one.given
    assert one.score != two.score  # the same response, another critique


def test_given_critiques_that_the_model_wrote_give_the_scores_it_gave(scorer):
    written = score.score(scorer, WORK, HOW)
    said = {(one.query, one.response): one.critiques[0] for one in written}
    work = [replace(one, critiques={name: said[one.query, name] for name in one.responses}) for one in WORK]
    if any(not text.strip() for text in said.values()):
        pytest.skip("an empty critique was written, which cannot be given")
    for a, b in zip(written, score.score(scorer, work, batch=2), strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-9)


def test_equal_responses_tie_exactly_and_the_prompt_is_read_once(llava, monkeypatch):
    reads, real = [], generate.prefill
    monkeypatch.setattr(generate, "prefill", lambda *a: reads.append(a[1]["input_ids"].shape) or real(*a))
    work = Work("q", Prompt("a circle ?", (picture(0),)), {"1": "yes .", "2": "no .", "3": "yes ."})
    one, two, three = score.score(llava, [work], HOW)
    assert one.score == three.score != two.score
    assert [shape[0] for shape in reads] == [1]


def test_pictures_go_through_the_tower_once_for_writing_and_scoring(scorer, monkeypatch):
    """Every tile is computed once, the scores are those without a cache, and a trained tower stays trained."""
    model, tiles = scorer.policy.model, []
    tower = vision_tower(model)
    tower.register_forward_pre_hook(lambda _, args, kw: tiles.append(len([*args, *kw.values()][0])), with_kwargs=True)
    found = score.score(scorer, WORK, HOW)
    with_cache, unknown = len(tiles), sum(tiles)
    monkeypatch.setattr(score, "answering", lambda *_: nullcontext())
    monkeypatch.setattr(score, "hidden_states", lambda m, tree, _: hidden_states(m, tree))
    same(found, score.score(scorer, WORK, HOW))
    if model.config.model_type != "qwen2_5_vl":  # its blocks are kept, its tower is called again around them
        assert len(tiles) - with_cache == 2 * with_cache > 0
        assert sum(tiles) - unknown >= 2 * unknown  # equal tiles of one picture are computed once, too
    assert all(weight.requires_grad for weight in tower.parameters())


def test_a_critique_that_is_cut_off_or_empty_is_scored_and_marked(llava, monkeypatch):
    work, end = [Work("q", Prompt("a circle ?"), {"1": "yes ."})], llava.form.end
    (cut,) = score.score(llava, work, CritiqueDecoding(max_new_tokens=1))
    assert cut.finished == (False,)
    monkeypatch.setattr(generate, "write", lambda *_: [[end, end]])
    (empty,) = score.score(llava, work)
    assert (empty.critiques, empty.finished) == (("",), (True,))
    assert np.isfinite(empty.score)


def test_one_response_is_enough(llava):
    (one,) = score.score(llava, [Work("q", Prompt("a circle ?"), {"1": "yes ."})], HOW)
    assert score.margins([one], []) == []


def test_a_model_without_critiques_writes_none(llava, monkeypatch):
    monkeypatch.setattr(generate, "write", lambda *_: pytest.fail("a critique was written"))
    plain = reward.create(llava.policy, critique=False)
    found = score.score(plain, WORK)
    assert {one.critiques for one in found} == {("",)}
    with pytest.raises(ValueError, match="without a critique"):
        score.score(plain, [replace(WORK[0], critiques=dict.fromkeys(SAID, "right ."))])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Work("q", Prompt("?"), {}), "has no response to score"),
        (lambda: Work("q", Prompt("?"), {"1": "yes"}, {"1": " \n"}), "Response '1' has no critique"),
        (lambda: Work("q", Prompt("?"), {"1": "yes"}, {}), "Response '1' has no critique"),
        (lambda: CritiqueDecoding(n=3), "critiques at temperature 0 are all the same"),
        (lambda: CritiqueDecoding(n=0), "out of range"),
        (lambda: CritiqueDecoding(top_p=0.0), "out of range"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_what_does_not_fit_into_the_window_is_refused(llava):
    long = Work("long", Prompt("?"), {"1": "yes"}, {"1": "right . " * 5000})
    with pytest.raises(ValueError, match=r"Query 'long'.* do not fit into the model's 8192"):
        score.score(llava, [long])
    with pytest.raises(ValueError, match="do not fit"):
        score.score(llava, [WORK[0]], CritiqueDecoding(max_new_tokens=8192))
    with pytest.raises(ValueError, match="2 queries have only 1 different ids"):
        score.score(llava, [WORK[0], WORK[0]])


def scored(name, value, model="m"):
    return score.Scored("q", name, value, (value,), ("right .",), (True,), False, model)


def test_margins_keep_both_scores_and_the_model():
    pairs = [Pair("q", "a", "b"), Pair("q", "c", "a")]
    found = score.margins([scored("a", 1.5), scored("b", -0.5), scored("c", 1.0)], pairs)
    assert [(one.r_w, one.r_l, one.reward_margin, one.model) for one in found] == [
        (1.5, -0.5, 2.0, "m"),
        (1.0, 1.5, -0.5, "m"),
    ]
    with pytest.raises(ValueError, match="different reward models"):
        score.margins([scored("a", 1.5), scored("b", -0.5, "n")], pairs[:1])
    with pytest.raises(ValueError, match="Response 'c' of query 'q' has no score"):
        score.margins([scored("a", 1.5), scored("b", -0.5)], pairs)
