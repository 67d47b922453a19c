"""The arithmetic of falling chosen rewards: first-order changes against real steps, weights left as they were."""

import pytest
import ranked_examples as tiny
import torch

from mmrlhf_core.ranked.batch import build_tree
from mmrlhf_core.ranked.logps import response_logps
from mmrlhf_study.evaluation import gradients


@pytest.fixture(scope="module")
def model():
    return tiny.model(dtype=torch.float64).model.eval()


@pytest.fixture(scope="module")
def queries():
    return [example.query for example in tiny.examples(4)]


def test_a_step_on_one_pair_does_what_the_inner_products_say(model, queries):
    before = tiny.weights(model)
    for query in queries:
        found = gradients.pair_step(model, query)
        assert found.chosen == pytest.approx(found.ww - found.wl, rel=1e-3, abs=1e-2)
        assert found.rejected == pytest.approx(found.wl - found.ll, rel=1e-3, abs=1e-2)
        assert found.chosen - found.rejected > 0  # |g_w − g_l|², whatever the pair
    assert tiny.same(before, tiny.weights(model))


def test_a_step_on_all_pairs_is_the_sum_of_their_pulls(model, queries):
    """Against the derivative itself: d/ds of log π at weights + s · Σ (g_w − g_l), by central differences."""
    moved = gradients.joint_step(model, queries, strength=1e-7)  # norms are computed in float32: not smaller
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    tree = build_tree(queries)
    sums = response_logps(model, tree).sums
    first = [tree.pairs[tree.query_of_pair == n][0].tolist() for n in range(len(queries))]
    gradient = torch.autograd.grad(sum(sums[w] - sums[lose] for w, lose in first), weights)
    with torch.no_grad():
        ends = []
        for sign in (1e-6, -1e-6):
            for weight, part in zip(weights, gradient, strict=True):
                weight.add_(part, alpha=sign)
            ends.append(response_logps(model, tree).sums)
            for weight, part in zip(weights, gradient, strict=True):
                weight.sub_(part, alpha=sign)
    slope = (ends[0] - ends[1]) / 2e-6
    for (w, lose), (chosen, rejected) in zip(first, moved, strict=True):
        assert (chosen, rejected) == pytest.approx((slope[w].item(), slope[lose].item()), rel=5e-3, abs=1)
