"""Group objectives: GRPO and the grouped comparison of Generative RLHF-V (arXiv 2505.18531).

Shape legend: `G` responses of one prompt, `T` tokens, `n` responses compared with one another, `B` pairs.
Symbols in `symbols.SYMBOLS`.
"""

import torch
from torch import Tensor

SCALE_FLOOR = 1e-6


def advantages(r: Tensor) -> Tensor:
    """GRPO (2402.03300): A = (r − mean) / (std + 1e-6) within the group, std over G − 1. [..., G] → [..., G].

    A group whose rewards are all equal has advantage 0 everywhere.
    """
    if r.shape[-1] < 2:
        raise ValueError(f"A group needs at least 2 responses to compare and has {r.shape[-1]}. Sample more of them.")
    return (r - r.mean(-1, keepdim=True)) / (r.std(-1, keepdim=True) + SCALE_FLOOR)


def clipped(logp: Tensor, logp_old: Tensor, advantage: Tensor, clip_ratio: float) -> Tensor:
    """Clipped surrogate of PPO and GRPO, per token: −min(ρA, clip(ρ, 1−ε, 1+ε)A), ρ = e^(logp − logp_old). [..., T]."""
    ratio = torch.exp(logp - logp_old.detach())
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip_ratio, 1 + clip_ratio) * advantage)


def kl(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """Per-token estimate of KL(π‖π_ref), never negative: e^d − 1 − d with d = ref_logp − logp. [..., T] → [..., T].

    Unbiased on tokens sampled from π; on other tokens it only tells how far the two models differ there.
    """
    d = ref_logp - logp
    return torch.expm1(d) - d


def preference_reward(s_w: Tensor, s_l: Tensor) -> Tensor:
    """Stage 1: 1 when the preferred response scores strictly higher, else 0; unreadable (NaN) gives 0. [B] → [B]."""
    return (s_w > s_l).to(s_w.dtype)


def _scores(judgements: Tensor, complete: Tensor) -> Tensor:
    """Mean of the readable scores of y_i against other complete responses; 0 if there is none. [n, n, m] → [n]."""
    others = ~torch.eye(len(complete), dtype=torch.bool, device=complete.device)
    usable = (complete[:, None] & complete[None, :] & others)[..., None] & ~judgements.isnan()
    return torch.where(usable, judgements, 0).sum((1, 2)) / usable.sum((1, 2)).clamp(min=1)


def grouped_comparison(s: Tensor, complete: Tensor) -> Tensor:
    """Stage 2, §2.2: S(y_i) = 1/(2(n−1)) Σ_{j≠i} [s(y_i|y_i,y_j) + s(y_i|y_j,y_i)]. [n, n, 2], [n] → [n].

    `s[i, j]` holds the judge's two scores with y_i shown first; both orders count, which cancels a preference for
    a position. Incomplete responses get 0 and take no part; an unreadable judgement (NaN) leaves the mean. A lone
    complete response was compared with nobody and gets 0, so its group gives no signal (the paper's listing
    divides by zero there).
    """
    return _scores(torch.stack([s[..., 0], s[..., 1].transpose(0, 1)], -1), complete)


def grouped_comparison_appendix(s: Tensor, complete: Tensor) -> Tensor:
    """The variant of the appendix listing: each pair judged once, the earlier response first. [n, n, 2], [n] → [n].

    Only `s[i, j]` with i < j are read, so a preference for a position is not cancelled.
    """
    upper = torch.ones(s.shape[:2], dtype=torch.bool, device=s.device).triu(1)
    return _scores(torch.where(upper, s[..., 0], s[..., 1].transpose(0, 1))[..., None], complete)
