"""The arms of reward training: same queries, pairs and prompts, other critiques; learned is what is asked for."""

from dataclasses import replace

import pytest
import reward_world as world
import torch

from mmrlhf_core.models import prompts, reward
from mmrlhf_core.objectives.reward import bradley_terry
from mmrlhf_core.ranked.batch import build_tree
from mmrlhf_core.rollout import score
from mmrlhf_core.training import reward as training
from mmrlhf_core.training import reward_dataset as examples
from mmrlhf_core.training.reward import RewardSettings
from mmrlhf_core.training.trainer import RankedModel
from mmrlhf_study.annotation import counterfactuals
from mmrlhf_study.miniworld import pool

WIDE = RewardSettings(steps=2, batch=2, lr=1e-3)


@pytest.fixture(scope="module")
def base():
    return world.fresh()


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    pool.write_pictures(world.made()[0].queries, folder)
    return folder


@pytest.fixture(scope="module")
def asked(base, media):
    return examples.PromptCache(base.processor, reward.form_of(base.processor), media, 3)


def decoded(processor, query):
    """Each response of an example as (text, text in the loss)."""
    return [
        (processor.tokenizer.decode(tokens), processor.tokenizer.decode(tokens[counts]))
        for tokens, counts in zip(query.responses, query.counted, strict=True)
    ]


def test_arms_differ_in_the_critique_alone(asked):
    made = {arm: examples.RewardExamples(world.data(), arm, asked) for arm in examples.CRITIQUE_KINDS}
    for number, one in enumerate(world.data()):
        by_arm = {arm: made[arm][number] for arm in made}
        texts = list(dict.fromkeys(one.responses.values()))
        for arm, example in by_arm.items():
            assert example.id == one.query.id
            assert torch.equal(example.query.prefix, by_arm["none"].query.prefix)
            assert example.query.media is by_arm["none"].query.media  # encoded once
            assert example.query.pairs == by_arm["none"].query.pairs
            names = [(texts[a], texts[b]) for a, b in example.query.pairs]
            assert names == [(one.responses[p.chosen], one.responses[p.rejected]) for p in one.pairs]
            reasons = one.reasons(arm) if arm != "none" else dict.fromkeys(one.responses, "")
            for text, (whole, learned) in zip(texts, decoded(asked.processor, example.query), strict=True):
                critique = next(reasons[name] for name in one.responses if one.responses[name] == text)
                assert whole.startswith(text)
                assert learned == (f"{critique}<|im_end|>" if critique else "")


def test_training_evaluation_and_writing_read_the_same_prompt(base, asked, media):
    """The tree a model is trained on, given the critiques, is token by token the tree it is scored on."""
    one = world.data()[0]
    form, kept = asked.form, []
    example = examples.RewardExamples([one], "expanded", asked)[0]
    work = score.works([one], media, 3, one.reasons("expanded"))[0]
    parts = reward.encode(
        base.processor, form, work.prompt, list(work.responses.values()), list(work.critiques.values())
    )
    assert torch.equal(parts.prefix, example.query.prefix)
    for tokens in parts.responses:
        kept += [k for k, other in enumerate(example.query.responses) if torch.equal(tokens, other)]
    assert len(set(kept)) == len(set(one.responses.values()))
    head, _ = prompts.critique_frame(base.processor, work.prompt, form.wording)
    written = prompts.encode_rendered(base.processor, [work.prompt], [head])
    assert torch.equal(written["input_ids"][0], example.query.prefix)
    for name, tensor in example.query.media.items():
        assert torch.equal(tensor, torch.as_tensor(written[name]))


def test_ties_and_equal_texts_are_numbers_of_texts(asked):
    one = world.data()[0]
    names, texts = list(one.responses), list(one.responses.values())
    doubled = replace(
        one, responses={**one.responses, "again": texts[1]}, ties=((names[0], names[2]), ("again", names[2]))
    )
    example = examples.RewardExamples([doubled], "raw", asked)[0]
    assert len(example.query.responses) == len(set(texts))
    assert example.ties == ((0, 2), (1, 2))


def test_an_arm_without_reasons_is_refused_and_a_single_gap_is_not(asked):
    one = world.data()[0]
    bare = replace(one, critiques={})
    with pytest.raises(ValueError, match="None of the 1 queries has expanded reasons"):
        examples.RewardExamples([bare], "expanded", asked)
    with pytest.raises(ValueError, match="critiques is"):
        examples.RewardExamples([one], "full", asked)
    first = next(iter(one.responses))
    gap = replace(one, critiques={k: v for k, v in one.critiques.items() if k != first})
    counted = examples.RewardExamples([gap], "expanded", asked)[0].query.counted
    assert [bool(mask.any()) for mask in counted] == [False] + [True] * (len(counted) - 1)


def test_a_callable_says_which_tokens_of_a_critique_enter_the_loss(asked):
    (one, *_), seen = world.data(), []

    def second_half(query, response, critique):
        seen.append((query, response, critique))
        tokens = len(prompts.literal(asked.processor, critique))
        return torch.arange(tokens) >= tokens // 2

    whole = examples.RewardExamples([one], "expanded", asked)[0].query
    half = examples.RewardExamples([one], "expanded", asked, second_half)[0].query
    assert seen == [(one.query.id, text, critique) for text, critique in examples.taught(one, "expanded").items()]
    for before, after in zip(whole.counted, half.counted, strict=True):
        tokens = int(before.sum()) - 1  # the critique; the end token stays in the loss
        assert torch.equal(after, before & (torch.arange(len(before)) >= before.nonzero()[0] + tokens // 2))


def test_prompts_are_kept_up_to_a_limit(base, media):
    form = reward.form_of(base.processor)
    some, none = (examples.PromptCache(base.processor, form, media, 3, limit) for limit in (10**9, 0))
    one = world.data()[0]
    assert some(one)[2] is some(one)[2]
    assert none(one)[2] is not none(one)[2]


# one run


def weights(model):
    return torch.cat([weight.detach().flatten() for weight in model.policy.model.state_dict().values()])


def test_every_run_begins_at_the_base_and_leaves_it_as_it_is(base, asked):
    before = weights(reward.create(base)).clone()
    starts = [training.start(base, arm, WIDE, seed) for arm, seed in (("none", 1), ("raw", 1), ("raw", 2))]
    assert all(torch.equal(weights(one), before) for one in starts)
    heads = [one.head.dense.weight for one in starts]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[1], heads[2])
    assert [one.form.critique for one in starts] == [False, True, True]
    trained = training.train(base, examples.RewardExamples(world.data(), "raw", asked), WIDE, 1)
    assert not torch.equal(weights(trained.model), before)
    assert torch.equal(weights(reward.create(base)), before)
    assert all(p.requires_grad for p in base.model.parameters())
    tower = {n: p for n, p in trained.model.policy.model.named_parameters() if "vision_tower" in n}
    own = dict(base.model.named_parameters())
    assert tower
    assert all(torch.equal(weight, own[name]) for name, weight in tower.items())


@pytest.mark.parametrize("optimizer", training.OPTIMIZERS)
def test_runs_repeat_to_the_bit_and_seeds_change_the_order(base, asked, optimizer):
    data, how = examples.RewardExamples(world.data(), "expanded", asked), replace(WIDE, optimizer=optimizer)
    first, again, other = (training.train(base, data, how, seed) for seed in (1, 1, 2))
    assert first.curve == again.curve != other.curve
    assert torch.equal(weights(first.model), weights(again.model))
    assert [row["step"] for row in first.curve] == [1, 2]
    assert all(row["critique"] > 0 for row in first.curve)


def test_products_in_bfloat16_leave_weights_and_scores_in_float32(base, asked):
    data, seen = examples.RewardExamples(world.data(), "expanded", asked), []
    watched = RankedModel.forward

    def forward(self, tree, calls=None):
        found = watched(self, tree, calls)
        seen.append((torch.is_autocast_enabled("cpu"), found[2].dtype, found[2].detach().clone()))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RankedModel, "forward", forward)
        coarse = training.train(base, data, replace(WIDE, precision="bfloat16"), 1)
    fine = training.train(base, data, WIDE, 1)
    assert {(on, dtype) for on, dtype, _ in seen} == {(True, torch.float32)}
    assert any((scores != scores.bfloat16().float()).any() for *_, scores in seen)
    assert {weight.dtype for weight in coarse.model.policy.model.parameters()} == {torch.float32}
    assert coarse.curve[0]["loss"] == pytest.approx(fine.curve[0]["loss"], rel=0.02)
    assert coarse.curve != fine.curve
    for bad in ({"precision": "float16"}, {"optimizer": "sgd"}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} is .*; it has to be one of"):
            replace(WIDE, **bad)


def test_the_arm_without_critique_learns_to_score_and_no_words(base, asked):
    data = examples.RewardExamples(world.data(), "none", asked)
    trained = training.train(base, data, replace(WIDE, steps=12, batch=4, lr=3e-3, centre_weight=0.0), 1)
    assert {row["critique"] for row in trained.curve} == {0.0}
    assert all(row["loss"] == pytest.approx(row["score"], rel=0.02) for row in trained.curve)
    (example,) = (data[0],)
    tree = build_tree([example.query])
    with torch.no_grad():
        values = RankedModel(trained.model.policy.model, trained.model.head)(tree)[2]
    assert torch.isfinite(bradley_terry(*values[tree.pairs[0]]))


def test_swapped_pictures_reach_the_model(base, asked, media):
    one = next(iter(counterfactuals.other_pictures(world.data(), 0)))
    own = next(other for other in world.data() if other.query.id == one.query.id)
    fresh = examples.PromptCache(base.processor, asked.form, media, 3)
    assert not torch.equal(*(next(iter(shown(x)[2].values())).float() for shown, x in ((asked, own), (fresh, one))))
