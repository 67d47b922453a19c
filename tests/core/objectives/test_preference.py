"""Preference objectives: numbers worked by hand, gradients in float64, invariants, TRL, the released formula."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from mmrlhf_core.objectives import preference as p

finite = st.floats(-30, 30, allow_nan=False)


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def test_dpo_by_hand():
    # log-ratios: chosen −12 − (−13) = 1, rejected −11 − (−9) = −2; h = 3; β h = 0.3; −log σ(0.3) = ln(1 + e^−0.3)
    h = p.log_ratio_margin(t(-12), t(-11), t(-13), t(-9))
    assert h.item() == 3.0
    assert p.dpo(h, 0.1).item() == pytest.approx(0.5543552444685272, abs=1e-12)


def test_dpo_at_initialisation_is_ln_2():
    logp = t(-7.0, -31.5)
    h = p.log_ratio_margin(logp, logp - 3, logp, logp - 3)
    assert p.dpo(h, 0.1).tolist() == pytest.approx([math.log(2)] * 2, abs=1e-15)


def test_dpo_stays_finite_far_out():
    assert p.dpo(t(1e5, -1e5), 1.0).tolist() == [0.0, 1e5]


@pytest.mark.parametrize(
    ("delta", "beta"),
    # β_ori (1 + w (1 − e^(−kδ))) with β_ori 0.1, w = k = 0.5: δ=1: 1 − e^−0.5 = 0.393469, β = 0.1 · 1.1967347
    [(0, 0.1), (1, 0.11967346701436834), (2, 0.1316060279414279), (5, 0.14589575006880505), (10, 0.14966310265004573)],
)
def test_dynamic_beta_by_hand(delta, beta):
    assert p.dynamic_beta(t(delta), 0.1, 0.5, 0.5).item() == pytest.approx(beta, abs=1e-14)


def test_three_rules_for_a_misordered_pair():
    # δ = −1: 1 − e^0.5 = −0.648721, β as written = 0.1 (1 − 0.3243606) = 0.06756394
    delta = t(-1, 1)
    assert p.dynamic_beta(delta, 0.1, 0.5, 0.5, "paper")[0].item() == pytest.approx(0.0675639364649936, abs=1e-14)
    assert p.dynamic_beta(delta, 0.1, 0.5, 0.5, "clamp")[0].item() == 0.1
    assert p.dynamic_beta(delta, 0.1, 0.5, 0.5, "drop")[0].item() == 0.0
    assert p.kept(delta, "drop").tolist() == [False, True]
    assert p.kept(delta, "paper").tolist() == p.kept(delta, "clamp").tolist() == [True, True]


def test_beta_as_written_crosses_zero_where_the_docstring_says():
    zero = -math.log(1 + 1 / 0.5) / 0.5
    assert zero == pytest.approx(-2.197, abs=5e-4)
    left, at, right = p.dynamic_beta(t(zero - 0.01, zero, zero + 0.01), 0.1, 0.5, 0.5, "paper").tolist()
    assert left < 0 < right
    assert at == pytest.approx(0, abs=1e-15)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="clamp, paper, drop"):
        p.dynamic_beta(t(1), 0.1, 0.5, 0.5, "ignore")


def test_a_dropped_pair_has_no_gradient():
    h = t(0.3, -0.4).requires_grad_()
    p.mm_dpo(h, t(-2, 2), 0.1, 0.5, 0.5, "drop").sum().backward()
    assert h.grad[0] == 0
    assert h.grad[1] < 0


@given(st.lists(st.floats(-1e4, 1e4, allow_nan=False), min_size=1, max_size=8), st.floats(0, 5), st.floats(0, 5))
@settings(max_examples=60, deadline=None)
def test_clamped_beta_stays_in_the_papers_interval_and_grows(deltas, w, k):
    beta = p.dynamic_beta(t(*sorted(deltas)), 0.1, w, k)
    assert torch.all((beta >= 0.1) & (beta <= 0.1 * (1 + w) * (1 + 1e-12)))
    assert torch.all(beta.diff() >= -1e-15)


def test_w_zero_is_dpo_to_the_last_bit_in_single_precision():
    h = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 20
    delta = torch.randn(1000, generator=torch.Generator().manual_seed(1)) * 9
    for rule in ("clamp", "paper"):
        assert torch.equal(p.mm_dpo(h, delta, 0.1, 0.0, 0.5, rule), p.dpo(h, 0.1))


def test_beta_carries_no_gradient():
    delta = t(0.5, 2).requires_grad_()
    assert not p.dynamic_beta(delta, 0.1, 0.5, 0.5).requires_grad
    assert not p.offset_of_margin(delta, 1.0).requires_grad


@given(finite, finite, finite, finite)
@settings(max_examples=60, deadline=None)
def test_swapping_the_pair_flips_the_sign(a, b, c, d):
    assert p.log_ratio_margin(t(a), t(b), t(c), t(d)).item() == -p.log_ratio_margin(t(b), t(a), t(d), t(c)).item()


def test_arms_by_hand():
    # β h = 0.2 for h = 2, β = 0.1: −log σ(0.2) = 0.5981388694, −log σ(−0.2) = 0.7981388694
    h, right, wrong = t(2.0), softplus(-0.2), softplus(0.2)
    assert p.conservative_dpo(h, 0.1, 0.1).item() == pytest.approx(0.9 * right + 0.1 * wrong, abs=1e-14)
    assert p.robust_dpo(h, 0.1, 0.1).item() == pytest.approx((0.9 * right - 0.1 * wrong) / 0.8, abs=1e-14)
    assert p.ipo(h, 0.1).item() == pytest.approx((2 - 5) ** 2, abs=1e-12)
    # Δ_r = α log δ = 0.5 ln 4 = 0.693147; −log σ(0.2 − 0.693147)
    assert p.dpo_with_offset(h, 0.1, p.offset_of_margin(t(4), 0.5)).item() == pytest.approx(
        softplus(0.5 * math.log(4) - 0.2), abs=1e-14
    )
    # 2 · (−10/5) − 2 · (−12/4) − 0.5 = −4 + 6 − 0.5 = 1.5
    assert p.simpo(t(-10), t(-12), t(5), t(4), 2.0, 0.5).item() == pytest.approx(softplus(-1.5), abs=1e-14)
    assert p.sft(t(-10), t(5)).item() == 2.0


def test_robust_dpo_is_unbiased_under_flips():
    # E over flips of the robust loss is the clean loss: (1−ε) robust(h) + ε robust(−h) = dpo(h)
    h, eps = torch.linspace(-5, 5, 11, dtype=torch.float64), 0.2
    mean = (1 - eps) * p.robust_dpo(h, 0.3, eps) + eps * p.robust_dpo(-h, 0.3, eps)
    torch.testing.assert_close(mean, p.dpo(h, 0.3), rtol=0, atol=1e-14)


def test_an_offset_for_a_misordered_pair_asks_for_nothing():
    h = t(0.4).requires_grad_()
    loss = p.dpo_with_offset(h, 0.1, p.offset_of_margin(t(-1), 1.0))
    loss.sum().backward()
    assert loss.item() == 0
    assert h.grad.item() == 0


@pytest.mark.parametrize(
    "loss",
    [
        lambda h: p.dpo(h, 0.1),
        lambda h: p.mm_dpo(h, t(-1, 0.5, 3), 0.1, 0.5, 0.5),
        lambda h: p.dpo_with_offset(h, 0.1, t(0.1, 0.2, -0.3)),
        lambda h: p.conservative_dpo(h, 0.1, 0.1),
        lambda h: p.robust_dpo(h, 0.1, 0.1),
        lambda h: p.ipo(h, 0.1),
        lambda h: p.simpo(h, h * 0.3 - 1, t(2, 3, 4), t(3, 3, 9), 2.0, 0.5),
        lambda h: p.sft(h, t(2, 3, 4)),
    ],
)
def test_gradients(loss):
    assert gradcheck(loss, t(-2.0, 0.1, 3.0).requires_grad_())


def test_beta_dpo_without_a_filter_is_worked_by_hand():
    # β_ori 0.1, h = (1, 3, 5): M = (.1, .3, .5), mean 0.3; β = 0.1 (1 + 0.6 (0.3 − 0.1)) = 0.112; ρ = 1 keeps all
    beta, mask = p.beta_dpo(t(1, 3, 5), 0.1, 0.6, m_0=0.1, sigma=0.2, rho=1.0)
    assert beta.item() == pytest.approx(0.112, abs=1e-14)
    assert mask.all()
    # M_0 ← 0.9 · 0.1 + 0.1 · 0.3 = 0.12; deviation √(0.08/3) = 0.163299; σ ← 0.9 · 0.2 + 0.1 · 0.163299
    m_0, sigma = p.beta_dpo_statistics(t(1, 3, 5), 0.1, 0.1, 0.2, 0.9)
    assert (m_0, sigma) == pytest.approx((0.12, 0.18 + 0.1 * math.sqrt(0.08 / 3)), abs=1e-14)


def test_beta_dpo_keeps_the_share_and_prefers_the_middle():
    h = torch.cat([torch.zeros(8), torch.full((2,), 60.0)]).double()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        _, mask = p.beta_dpo(h, 0.1, 0.6, m_0=0.0, sigma=1.0, rho=0.8, generator=generator)
        assert mask.sum() == 8
        assert not mask[8:].any()
    beta, mask = p.beta_dpo(t(-500.0), 0.1, 0.6, m_0=0.0, sigma=1.0, rho=0.8)
    assert mask.tolist() == [True]
    assert beta.item() == pytest.approx(1e-4)


def test_released_code_ignores_the_reward_model_and_needs_two_pairs():
    with pytest.raises(ValueError, match="at least 2 pairs"):
        p.released_beta(t(1.0), 0.1, 0.1)
    # two pairs: ⌊1.6⌋ = 1 is drawn; h = (0, 4), mean 2: β = 0.1 (1 ± 0.1 · 2) = 0.12 or 0.08, by the toss of a coin
    seen = {
        round(p.released_beta(t(0, 4), 0.1, 0.1, torch.Generator().manual_seed(seed)).item(), 12) for seed in range(20)
    }
    assert seen == {0.12, 0.08}


def test_released_beta_against_its_formula_and_floor():
    h = torch.randn(8, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 10
    z = (h - h.mean()) / h.std()
    drawn = torch.multinomial(torch.exp(-0.5 * z**2), 6, generator=torch.Generator().manual_seed(5))
    expected = 0.1 * (1 + 0.1 * (h[drawn].mean() - h.mean()))
    assert p.released_beta(h, 0.1, 0.1, torch.Generator().manual_seed(5)).item() == pytest.approx(expected.item())
    assert p.released_beta(h * 1000, 0.1, 5.0, torch.Generator().manual_seed(5)).item() in (
        pytest.approx(1e-3),
        pytest.approx(0.1 * (1 + 5000 * (expected.item() / 0.01 - 10))),
    )


def test_released_total_is_the_token_mean_not_the_mean_of_means():
    h, logp_w, length_w = t(0.5, -1), t(-6, -30), t(2, 10)
    beta = p.released_beta(h, 0.1, 0.1, torch.Generator().manual_seed(0))
    total = p.released_loss(h, logp_w, length_w, 0.1, 0.1, 0.25, torch.Generator().manual_seed(0)).mean()
    # cross-entropy over the 12 tokens of the micro-batch: 36/12 = 3; the per-sample mean would be (3 + 3)/2
    assert total.item() == pytest.approx((p.dpo(h, beta).mean() + 0.25 * 3).item(), abs=1e-14)
    uneven = p.released_loss(h, t(-6, -60), length_w, 0.1, 0.1, 0.25, torch.Generator().manual_seed(0)).mean()
    assert uneven.item() == pytest.approx((p.dpo(h, beta).mean() + 0.25 * 5.5).item(), abs=1e-14)
