"""Every preference loss by name: the one place that turns the settings of an objective into per-pair losses.

Shapes: `B` pairs of the micro-batch on this process; `A` pairs of the micro-batch on all processes together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmrlhf_core.objectives import preference
from mmrlhf_core.training.base import check_choice
from mmrlhf_core.training.dataset import PAIR_WEIGHTING

LOSSES = ("mm_dpo", "dpo", "odpo", "conservative_dpo", "robust_dpo", "ipo", "simpo", "beta_dpo", "released", "sft")
NEED_MARGIN = ("mm_dpo", "odpo")
NO_REFERENCE = ("simpo", "sft")


@dataclass(frozen=True)
class Objective:
    """Settings of a preference run; symbols as in `objectives.symbols`, the paper's values as defaults."""

    loss: str = "mm_dpo"
    beta_ori: float = 0.1
    w: float = 0.5
    k: float = 0.5
    negative_margin: str = "clamp"
    sft_weight: float = 0.0
    pair_weighting: str = "pair"
    alpha: float = 0.6  # odpo, beta_dpo
    epsilon: float = 0.1  # conservative_dpo, robust_dpo
    tau: float = 0.1  # ipo
    gamma: float = 0.5  # simpo
    rho: float = 0.8  # beta_dpo
    momentum: float = 0.9  # beta_dpo

    def __post_init__(self) -> None:
        check_choice("loss", self.loss, LOSSES)
        check_choice("negative_margin", self.negative_margin, preference.NEGATIVE_MARGIN)
        check_choice("pair_weighting", self.pair_weighting, PAIR_WEIGHTING)
        if self.loss == "sft" and self.sft_weight:
            raise ValueError(f"sft_weight is {self.sft_weight}, but the loss sft is the SFT term alone; leave it at 0.")
        rules = {
            "beta_ori": self.beta_ori > 0, "w": self.w >= 0, "k": self.k >= 0, "sft_weight": self.sft_weight >= 0,
            "alpha": self.alpha >= 0, "epsilon": 0 <= self.epsilon < 0.5, "tau": self.tau > 0,
            "rho": 0 < self.rho <= 1, "momentum": 0 <= self.momentum < 1,
        }  # fmt: skip
        for name, good in rules.items():
            if not good:
                raise ValueError(f"{name} is {getattr(self, name)}, outside its range; see objectives.symbols.")


@dataclass(frozen=True)
class Pairs:
    """Numbers of the B pairs of a micro-batch, each [B]; the reference is 0 for a loss without one."""

    logp_w: Tensor
    logp_l: Tensor
    ref_logp_w: Tensor
    ref_logp_l: Tensor
    length_w: Tensor
    length_l: Tensor
    delta: Tensor

    @property
    def h(self) -> Tensor:
        return preference.log_ratio_margin(self.logp_w, self.logp_l, self.ref_logp_w, self.ref_logp_l)


def _whole_batch(
    o: Objective, p: Pairs, statistics: list[float], gather: Callable[[Tensor], tuple[Tensor, slice]], seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses with one β for the micro-batch of all processes: the losses, the β, and a factor on each weight."""
    h_all, own = gather(p.h.detach())
    if not len(h_all):
        return p.h, p.h, p.h
    generator = torch.Generator().manual_seed(seed)
    if o.loss == "released":
        beta = preference.released_beta(h_all, o.beta_ori, o.w, generator)
        return preference.dpo(p.h, beta), beta.expand_as(p.h), torch.ones_like(p.h)
    m_0, sigma = statistics
    beta, mask = preference.beta_dpo(h_all, o.beta_ori, o.alpha, m_0, sigma, o.rho, generator)
    statistics[:] = preference.beta_dpo_statistics(h_all, o.beta_ori, m_0, sigma, o.momentum)
    return preference.dpo(p.h, beta), beta.expand_as(p.h), mask[own] * (len(h_all) / mask.sum())


def pair_losses(
    o: Objective, p: Pairs, statistics: list[float], gather: Callable[[Tensor], tuple[Tensor, slice]], seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Per-pair losses [B], the β each pair was trained with [B], and a factor on its weight [B].

    `statistics` holds M_0 and σ of β-DPO and is updated by it; `gather` gives a [B] tensor of all processes [A] and
    this process' part of it; `seed` fixes the draws of the two losses that sample.
    """
    ones = torch.ones_like(p.logp_w)
    beta = o.beta_ori * ones
    match o.loss:
        case "mm_dpo":
            beta = preference.dynamic_beta(p.delta, o.beta_ori, o.w, o.k, o.negative_margin)
            losses = preference.dpo(p.h, beta)
        case "dpo":
            losses = preference.dpo(p.h, o.beta_ori)
        case "odpo":
            losses = preference.dpo_with_offset(p.h, o.beta_ori, preference.offset_of_margin(p.delta, o.alpha))
        case "conservative_dpo":
            losses = preference.conservative_dpo(p.h, o.beta_ori, o.epsilon)
        case "robust_dpo":
            losses = preference.robust_dpo(p.h, o.beta_ori, o.epsilon)
        case "ipo":
            means = (p.logp_w - p.ref_logp_w) / p.length_w - (p.logp_l - p.ref_logp_l) / p.length_l
            losses = preference.ipo(means, o.tau)
        case "simpo":
            losses = preference.simpo(p.logp_w, p.logp_l, p.length_w, p.length_l, o.beta_ori, o.gamma)
        case "sft":
            losses = preference.sft(p.logp_w, p.length_w)
        case _:
            return _whole_batch(o, p, statistics, gather, seed)
    return losses, beta, ones
