"""Preference objectives: per-pair tensors in, per-pair losses out. No reduction, no logging, no state.

Shape legend: `B` pairs. Every symbol is explained once, in `symbols.SYMBOLS`. "eq. 4" and "§4" are MM-RLHF's
(arXiv 2502.10391); the losses it is compared with name their own papers.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

NEGATIVE_MARGIN = ("clamp", "paper", "drop")
RELEASED_KEEP, RELEASED_FLOOR = 0.8, 1e-3


def log_ratio_margin(logp_w: Tensor, logp_l: Tensor, ref_logp_w: Tensor, ref_logp_l: Tensor) -> Tensor:
    """The bracket of eq. 4: h = log π_θ(y_w)/π_ref(y_w) − log π_θ(y_l)/π_ref(y_l). [B] each → [B]."""
    return (logp_w - ref_logp_w) - (logp_l - ref_logp_l)


def dpo(h: Tensor, beta: Tensor | float) -> Tensor:
    """DPO, eq. 4: −log σ(β h). `h` [B], `beta` a number or [B] → [B]; ln 2 at h = 0."""
    return -F.logsigmoid(beta * h)


def dynamic_beta(reward_margin: Tensor, beta_ori: float, w: float, k: float, negative_margin: str = "clamp") -> Tensor:
    """Dynamic reward scaling, §4: β(δ) = β_ori (1 + w (1 − e^(−kδ))), detached. δ [B] → β [B].

    The paper states β ∈ [β_ori, (1+w) β_ori], which holds for δ ≥ 0 only. For a pair the reward model orders
    the other way round (δ < 0), `negative_margin` decides:
    - `clamp`: δ is read as 0, so β stops at its floor β_ori and the stated interval holds for every pair;
    - `paper`: the equation as written; β reaches 0 at δ = −ln(1 + 1/w)/k (−2.197 at w = k = 0.5) and then turns
      negative, which teaches the opposite order;
    - `drop`: β = 0, no gradient; leave the pair out of the count as well, see `kept`.
    """
    delta = reward_margin.detach()
    growth = -torch.expm1(-k * (delta if negative_margin == "paper" else delta.clamp(min=0)))
    beta = beta_ori * (1 + w * growth)
    return beta * kept(delta, negative_margin)


def kept(reward_margin: Tensor, negative_margin: str) -> Tensor:
    """Which pairs count: all of them, or with `drop` those with δ ≥ 0. δ [B] → bool [B]."""
    if negative_margin not in NEGATIVE_MARGIN:
        raise ValueError(f"negative_margin is {negative_margin!r}; it has to be one of {', '.join(NEGATIVE_MARGIN)}.")
    return reward_margin >= 0 if negative_margin == "drop" else torch.ones_like(reward_margin, dtype=torch.bool)


def mm_dpo(
    h: Tensor, reward_margin: Tensor, beta_ori: float, w: float, k: float, negative_margin: str = "clamp"
) -> Tensor:
    """MM-DPO, §4: eq. 4 with β(δ) of `dynamic_beta` for each pair. [B], [B] → [B]. w = 0 is DPO."""
    return dpo(h, dynamic_beta(reward_margin, beta_ori, w, k, negative_margin))


def sft(logp_w: Tensor, length_w: Tensor) -> Tensor:
    """The auxiliary SFT term, §5.1: mean negative log-likelihood of the chosen response's tokens. [B], [B] → [B]."""
    return -logp_w / length_w


# Losses to compare with


def offset_of_margin(reward_margin: Tensor, alpha: float) -> Tensor:
    """Offset of ODPO (2402.10571): Δ_r = α log δ, detached. δ ≤ 0 gives −∞: no margin is asked for. [B] → [B]."""
    return alpha * reward_margin.detach().clamp(min=0).log()


def dpo_with_offset(h: Tensor, beta: Tensor | float, offset: Tensor) -> Tensor:
    """DPO with an offset (2402.10571): −log σ(β h − Δ_r). [B] → [B]."""
    return -F.logsigmoid(beta * h - offset)


def conservative_dpo(h: Tensor, beta: Tensor | float, epsilon: float) -> Tensor:
    """Conservative DPO: labels flipped with probability ε, −(1−ε) log σ(β h) − ε log σ(−β h). [B] → [B]."""
    return (1 - epsilon) * dpo(h, beta) + epsilon * dpo(-h, beta)


def robust_dpo(h: Tensor, beta: Tensor | float, epsilon: float) -> Tensor:
    """Robust DPO (2403.00409), unbiased under flips with probability ε. [B] → [B]; may be negative."""
    return ((1 - epsilon) * dpo(h, beta) - epsilon * dpo(-h, beta)) / (1 - 2 * epsilon)


def ipo(h: Tensor, tau: float) -> Tensor:
    """IPO (2310.12036), eq. 17: (h − 1/(2τ))². [B] → [B]. Its authors take `h` from per-token means."""
    return (h - 1 / (2 * tau)).square()


def simpo(logp_w: Tensor, logp_l: Tensor, length_w: Tensor, length_l: Tensor, beta: float, gamma: float) -> Tensor:
    """SimPO (2405.14734): −log σ(β/|y_w| log π(y_w) − β/|y_l| log π(y_l) − γ), no reference. [B] → [B]."""
    return -F.logsigmoid(beta * (logp_w / length_w - logp_l / length_l) - gamma)


def _draw(weights: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw `count` of `weights` [B] without replacement, likelier where the weight is larger → bool [B]."""
    chosen = torch.multinomial(weights.double().cpu(), count, replacement=False, generator=generator)
    mask = torch.zeros(weights.shape, dtype=torch.bool)
    mask[chosen] = True
    return mask.to(weights.device)


def beta_dpo(
    h: Tensor, beta_ori: float, alpha: float, m_0: float, sigma: float, rho: float,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """β-DPO (2407.08639): one β for the batch from the policy's own margins, after a filter. `h` [B] of the batch.

    With M = β_ori h: keep ⌊ρB⌋ pairs (at least one), drawn without replacement with weight N(M; M_0, σ); then
    β = β_ori (1 + α (mean of the kept M − M_0)), never under 1e-3 β_ori. Returns β [] and the kept pairs [B] bool.
    """
    m = beta_ori * h.detach()
    weights = torch.exp(-0.5 * ((m - m_0) / sigma).square()).clamp(min=torch.finfo(m.dtype).tiny)
    mask = _draw(weights, max(1, math.floor(rho * len(m))), generator)
    beta = beta_ori * (1 + alpha * (m[mask].mean() - m_0))
    return beta.clamp(min=1e-3 * beta_ori), mask


def beta_dpo_statistics(h: Tensor, beta_ori: float, m_0: float, sigma: float, momentum: float) -> tuple[float, float]:
    """Running M_0 and σ of β-DPO after a batch: past · m + batch · (1 − m). `h` [B], B ≥ 2 to move σ."""
    m = beta_ori * h.detach()
    deviation = float(m.std(correction=0)) if len(m) > 1 else sigma
    return momentum * m_0 + (1 - momentum) * float(m.mean()), momentum * sigma + (1 - momentum) * deviation


# What the authors' released trainer computes (commit 7c8af1d), for comparison


def released_beta(h: Tensor, beta_ori: float, w: float, generator: torch.Generator | None = None) -> Tensor:
    """The one β for all pairs of a step that the released code uses whatever the reward model says. `h` [B] → [].

    Weights e^(−z²/2) on the standardised `h`; ⌊0.8 B⌋ pairs drawn without replacement; β = β_ori (1 + w (mean of
    the drawn − mean of all)), at least 1e-3. No δ and no k enter. One pair alone has no deviation: refused.
    """
    h = h.detach()
    if len(h) < 2:
        raise ValueError(
            f"The released code's β needs at least 2 pairs in a step and got {len(h)}: the deviation of one number "
            "is undefined. Use a larger batch or `dynamic_beta`."
        )
    spread = h.std().clamp(min=torch.finfo(h.dtype).tiny)
    weights = torch.exp(-0.5 * ((h - h.mean()) / spread).square()).clamp(min=torch.finfo(h.dtype).tiny)
    drawn = _draw(weights, int(RELEASED_KEEP * len(h)), generator)
    return (beta_ori * (1 + w * (h[drawn].mean() - h.mean()))).clamp(min=RELEASED_FLOOR)


def released_loss(
    h: Tensor, logp_w: Tensor, length_w: Tensor, beta_ori: float, w: float, gamma: float,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Released total: −log σ(β h) + γ · SFT, β of `released_beta`. [B] → [B]; its mean is the released loss.

    The SFT term there is a mean over all chosen tokens of the micro-batch, so each pair carries its share of it.
    """
    token_mean = -logp_w * len(logp_w) / length_w.sum()
    return dpo(h, released_beta(h, beta_ori, w, generator)) + gamma * token_mean
