"""Balanced verdicts: claims of the frequent verdict leave the critique loss whole, and no other token does."""

from collections import Counter

import pytest
import reward_world as world
import torch

from mmrlhf_core.models import prompts, reward
from mmrlhf_core.training import reward_dataset as examples
from mmrlhf_study.miniworld import curriculum, pool, truth


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    base, folder = world.fresh(), tmp_path_factory.mktemp("media")
    pool.write_pictures(world.made()[0].queries, folder)
    return examples.PromptCache(base.processor, reward.form_of(base.processor), folder, 3)


def test_the_balance_leaves_out_claims_of_the_frequent_verdict_and_no_other_token(asked):
    data = world.data()
    critiques = [text for one in data for text in one.reasons("expanded").values()]
    found = curriculum.lookups(critiques)
    assert found == Counter(
        v for text in critiques for v in truth.verdicts(text.replace("missing", "~")) if v
    ) - Counter(wrong=sum(text.count("missing") for text in critiques))
    rare, frequent = sorted(("right", "wrong"), key=found.get)
    assert curriculum.balanced_shares(critiques, 0.0) == {"right": 1.0, "wrong": 1.0}
    half, whole = (curriculum.balanced_shares(critiques, share) for share in (0.5, 1.0))
    assert whole[rare] == half[rare] == 1
    assert whole[frequent] == pytest.approx(found[rare] / found[frequent])
    assert half[frequent] == pytest.approx((1 + whole[frequent]) / 2)
    plain = examples.RewardExamples(data, "expanded", asked)
    balance = curriculum.ClaimBalance(asked.processor, data, "expanded", 1.0, 0)
    assert balance.shares[rare] == 1 > balance.shares[frequent] > 0  # of the different texts that are taught
    even = examples.RewardExamples(data, "expanded", asked, balance)
    learned = {name: "".join(asked.processor.tokenizer.decode(tokens[counts]) for n in range(len(data))
                             for tokens, counts in zip(some[n].query.responses, some[n].query.counted, strict=True))
               for name, some in (("plain", plain), ("even", even))}  # fmt: skip
    before, after = (curriculum.lookups([learned[name]]) for name in ("plain", "even"))
    assert after[rare] == before[rare]
    assert after[frequent] < before[frequent]
    assert abs(after[frequent] - after[rare]) < 0.5 * abs(before[frequent] - before[rare]) + 5
    assert learned["even"].count("missing") == learned["plain"].count("missing")
    assert learned["even"].count("<|im_end|>") == learned["plain"].count("<|im_end|>")
    again = examples.RewardExamples(data, "expanded", asked, balance)
    assert all(torch.equal(a, b) for n in range(len(data))
               for a, b in zip(again[n].query.counted, even[n].query.counted, strict=True))  # fmt: skip


def test_a_claim_left_out_is_left_out_whole(asked):
    text = "at b3 red ? red yes cross ? circle no : wrong . missing at c2 a cross : wrong . answer red ? red : right ."
    kept = curriculum.thinned(asked.processor, text, {"right": 1.0, "wrong": 0.0}, "x")
    tokens = torch.tensor(prompts.literal(asked.processor, text))
    assert len(tokens) == len(kept)
    assert (
        asked.processor.tokenizer.decode(tokens[kept]) == " missing at c2 a cross : wrong . answer red ? red : right ."
    )
    assert curriculum.thinned(asked.processor, text, {"right": 1.0, "wrong": 1.0}, "x").all()
    assert curriculum.thinned(asked.processor, "no grammar here : <b>", {"right": 0.0, "wrong": 0.0}, "x").all()
