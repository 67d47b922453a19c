"""Reward-model objectives: numbers by hand, gradients, symmetry."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from mmrlhf_core.objectives import reward


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_bradley_terry_by_hand():
    # −log σ(1.5 − 0.5) = ln(1 + e^−1) = 0.3132616875; equal scores give ln 2
    assert reward.bradley_terry(t(1.5, 2), t(0.5, 2)).tolist() == pytest.approx([0.3132616875182228, math.log(2)])


def test_swapping_costs_exactly_the_margin():
    r_w, r_l = t(0.3, -2, 5), t(1, -2.5, 1)
    difference = reward.bradley_terry(r_l, r_w) - reward.bradley_terry(r_w, r_l)
    torch.testing.assert_close(difference, r_w - r_l, rtol=0, atol=1e-14)


def test_a_shift_moves_only_the_centre_term():
    r_w, r_l = t(1, 3), t(0, 4)
    torch.testing.assert_close(reward.bradley_terry(r_w + 7, r_l + 7), reward.bradley_terry(r_w, r_l))
    assert torch.equal(reward.tie(r_w + 7, r_l + 7), reward.tie(r_w, r_l))
    assert reward.centre(r_w, r_l).tolist() == [1, 49]
    assert reward.tie(r_w, r_l).tolist() == [1, 1]


def test_critique_is_a_mean_for_each_sample():
    # −(−6)/2 = 3 and −(−60)/10 = 6: a long critique weighs as much as a short one
    assert reward.critique(t(-6, -60), t(2, 10)).tolist() == [3, 6]


@pytest.mark.parametrize("loss", [reward.bradley_terry, reward.tie, reward.centre])
def test_gradients(loss):
    assert gradcheck(loss, (t(-1, 0.2).requires_grad_(), t(0.5, 3).requires_grad_()))
    assert gradcheck(lambda x: reward.critique(x, t(2, 5)), t(-3, -9).requires_grad_())
