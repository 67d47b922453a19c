"""Group objectives: GRPO by hand and against TRL's formula, grouped comparison against the written sum."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from mmrlhf_core.objectives import group


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_advantages_by_hand():
    # rewards 1, 0, 0, 1: mean 1/2, std over G − 1: √(4 · 0.25 / 3) = 0.5773503; A = ±0.8660239 with 1e-6 added
    expected = 0.5 / (math.sqrt(1 / 3) + 1e-6)
    assert group.advantages(t(1, 0, 0, 1)).tolist() == pytest.approx([expected, -expected, -expected, expected])


def test_each_group_is_compared_with_itself_only():
    r = torch.stack([t(1, 0, 0, 1), t(50, 60, 90, 70)])
    rows = torch.stack([group.advantages(r[0]), group.advantages(r[1])])
    torch.testing.assert_close(group.advantages(r), rows, rtol=0, atol=1e-14)


def test_equal_rewards_give_no_signal_and_a_lone_response_is_refused():
    assert group.advantages(t(3, 3, 3)).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="at least 2"):
        group.advantages(t(1))


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.floats(0.5, 4), st.floats(-9, 9))
@settings(max_examples=40, deadline=None)
def test_advantages_sum_to_zero_and_ignore_a_shift(rewards, scale, shift):
    r = t(*rewards)
    assert abs(group.advantages(r * scale).sum().item()) < 1e-6
    torch.testing.assert_close(group.advantages(r + shift), group.advantages(r), rtol=1e-6, atol=1e-6)


def test_clipping_by_hand():
    # ratio e^0.5 = 1.6487 with ε 0.2: A = 1 → −1.2 (clipped), A = −1 → +1.6487; ratio e^−0.5 = 0.6065:
    # A = 1 → −0.6065, A = −1 → +0.8 (clipped)
    logp, advantage = t(0.5, 0.5, -0.5, -0.5), t(1, -1, 1, -1)
    expected = [-1.2, math.exp(0.5), -math.exp(-0.5), 0.8]
    assert group.clipped(logp, t(0, 0, 0, 0), advantage, 0.2).tolist() == pytest.approx(expected, abs=1e-14)


def test_on_policy_gradient_is_the_policy_gradient():
    logp = t(-1.0, -2.0).requires_grad_()
    group.clipped(logp, logp, t(0.7, -0.3), 0.2).sum().backward()
    assert logp.grad.tolist() == pytest.approx([-0.7, 0.3], abs=1e-15)


def test_kl_by_hand_and_unbiased():
    # d = ln 2: 2 − 1 − ln 2 = 0.306853; d = 0: 0
    assert group.kl(t(-math.log(2), 0.4), t(0, 0.4)).tolist() == pytest.approx([1 - math.log(2), 0], abs=1e-14)
    policy, reference = t(0.2, 0.5, 0.3), t(0.4, 0.4, 0.2)
    estimate = (policy * group.kl(policy.log(), reference.log())).sum()
    assert estimate.item() == pytest.approx((policy * (policy / reference).log()).sum().item(), abs=1e-14)


def test_gradients():
    assert gradcheck(lambda x: group.clipped(x, t(-1, -1, -1), t(1, -1, 2), 0.2), t(-0.9, -1.05, -2.0).requires_grad_())
    assert gradcheck(lambda x: group.kl(x, t(-1, -1, -2)), t(-0.9, -1.5, -2.5).requires_grad_())


def test_stage_1_reward_is_strict():
    nan = float("nan")
    assert group.preference_reward(t(7, 5, 5, nan, 3), t(5, 7, 5, 1, nan)).tolist() == [1, 0, 0, 0, 0]


def judge(n, seed):
    return torch.rand(n, n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 9 + 1


def test_grouped_comparison_by_hand():
    # two responses: S(y_0) = (s(y_0|y_0,y_1) + s(y_0|y_1,y_0))/2 = (8 + 6)/2 = 7, S(y_1) = (3 + 5)/2 = 4
    s = torch.zeros(2, 2, 2, dtype=torch.float64)
    s[0, 1], s[1, 0] = t(8, 3), t(5, 6)
    assert group.grouped_comparison(s, torch.ones(2, dtype=torch.bool)).tolist() == [7, 4]
    assert group.grouped_comparison_appendix(s, torch.ones(2, dtype=torch.bool)).tolist() == [8, 3]


@given(st.integers(2, 7), st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_grouped_comparison_is_the_written_sum(n, seed):
    s = judge(n, seed)
    written = [sum(s[i, j, 0] + s[j, i, 1] for j in range(n) if j != i) / (2 * (n - 1)) for i in range(n)]
    torch.testing.assert_close(group.grouped_comparison(s, torch.ones(n, dtype=torch.bool)), torch.stack(written))


def test_position_bias_cancels_only_with_both_orders():
    n = 5
    truth, first_bonus = torch.arange(n, dtype=torch.float64), 3.0
    s = torch.stack([truth[:, None].expand(n, n) + first_bonus, truth[None, :].expand(n, n)], -1)
    complete = torch.ones(n, dtype=torch.bool)
    assert group.grouped_comparison(s, complete).tolist() == (truth + first_bonus / 2).tolist()
    assert group.grouped_comparison_appendix(s, complete).tolist() != (truth + first_bonus / 2).tolist()


def test_incomplete_unreadable_and_lone_responses():
    s = judge(4, 1)
    alone = group.grouped_comparison(s, torch.tensor([False, True, False, False]))
    assert alone.tolist() == [0, 0, 0, 0]
    three = torch.tensor([0, 1, 3])
    with_cut = group.grouped_comparison(s, torch.tensor([True, True, False, True]))
    assert with_cut[2] == 0
    torch.testing.assert_close(with_cut[three], group.grouped_comparison(s[three][:, three], torch.ones(3, dtype=bool)))
    s[0, 1, 0] = float("nan")
    rest = [s[1, 0, 1], s[0, 2, 0], s[2, 0, 1], s[0, 3, 0], s[3, 0, 1]]
    unread = group.grouped_comparison(s, torch.ones(4, dtype=torch.bool))
    assert unread[0].item() == pytest.approx(torch.stack(rest).mean().item())
