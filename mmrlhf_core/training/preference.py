"""Preference training: MM-DPO, the losses it is compared with, and what is logged about every pair.

Shapes: `B` pairs, `M` responses, `N` response tokens of the micro-batch.
"""

from typing import Any

import torch
import transformers as hf
from accelerate.utils import gather_object
from torch import Tensor

from mmrlhf_core.objectives import group, preference
from mmrlhf_core.training.dataset import Examples
from mmrlhf_core.training.losses import NEED_MARGIN, NO_REFERENCE, Objective, Pairs, pair_losses
from mmrlhf_core.training.trainer import LossTerm, RankedModel, RankedTrainer


class PreferenceTrainer(RankedTrainer):
    """Trains a policy on ranked examples with the loss that `objective` names."""

    def __init__(
        self, model: RankedModel, args: hf.TrainingArguments, train_dataset: Examples,
        objective: Objective, **others: Any,
    ) -> None:  # fmt: skip
        self.objective: Objective = objective
        super().__init__(model, args, train_dataset, objective.pair_weighting, objective.negative_margin, **others)

    def _pairs(self, batch: dict[str, Any], sums: Tensor) -> Pairs:
        """Numbers of each pair; a missing δ or reference that the loss needs is an error that names the queries."""
        tree, loss, queries = batch["tree"], self.objective.loss, ", ".join(batch["ids"])
        if loss in NEED_MARGIN and "margins" not in batch:
            raise ValueError(f"Loss {loss} needs a reward margin δ for each pair; missing among queries {queries}.")
        if loss not in NO_REFERENCE and "reference" not in batch:
            raise ValueError(f"Loss {loss} needs reference log-probabilities; missing among queries {queries}.")
        reference = torch.zeros_like(sums)
        if "reference" in batch:
            tokens = batch["reference"].to(sums) * tree.counted
            reference = reference.index_add(0, tree.response_of, tokens)
        delta = batch["margins"].to(sums) if "margins" in batch else torch.zeros_like(sums[tree.pairs[:, 0]])
        logp_w, logp_l = sums[tree.pairs].unbind(1)
        ref_logp_w, ref_logp_l = reference[tree.pairs].unbind(1)
        length_w, length_l = batch["lengths"].to(sums)[tree.pairs].unbind(1)
        return Pairs(logp_w, logp_l, ref_logp_w, ref_logp_l, length_w, length_l, delta)

    def _gather(self, values: Tensor) -> tuple[Tensor, slice]:
        """`values` [B] of all processes in order, and the slice that belongs to this process."""
        every = gather_object([values.tolist()])
        start = sum(len(part) for part in every[: self.accelerator.process_index])
        whole = torch.tensor([value for part in every for value in part], dtype=values.dtype, device=values.device)
        return whole, slice(start, start + len(values))

    def parts(self, batch: dict[str, Any], sums: Tensor, tokens: Tensor, scores: Tensor | None) -> dict[str, LossTerm]:
        """The preference term and the auxiliary SFT term on the chosen response of every pair."""
        o, pairs = self.objective, self._pairs(batch, sums)
        seed = (self.args.seed * 1_000_003 + self.state.global_step) * 1009 + self._micro
        losses, beta, factor = pair_losses(o, pairs, self.statistics, self._gather, seed)
        weights = batch["weights"]["pair"].to(losses.device)
        self._measure(batch, pairs, tokens, beta, weights)
        parts = {o.loss: LossTerm(1.0, losses, weights * factor, "pair")}
        if o.sft_weight:
            parts["sft"] = LossTerm(o.sft_weight, preference.sft(pairs.logp_w, pairs.length_w), weights, "pair")
        return parts

    @torch.no_grad()
    def _measure(self, batch: dict[str, Any], p: Pairs, tokens: Tensor, beta: Tensor, weights: Tensor) -> None:
        """Log-probabilities, rewards with the β that was used, accuracy, margin, δ, β, and KL on these responses."""
        self._count("logps/chosen", p.logp_w, weights)
        self._count("logps/rejected", p.logp_l, weights)
        self._count("logratios/chosen", p.logp_w - p.ref_logp_w, weights)
        self._count("logratios/rejected", p.logp_l - p.ref_logp_l, weights)
        self._count_rewards(beta * (p.logp_w - p.ref_logp_w), beta * (p.logp_l - p.ref_logp_l), weights)
        self._values["beta"] += beta[weights > 0].tolist()
        if "margins" in batch:
            self._values["delta"] += p.delta[weights > 0].tolist()
        if "reference" in batch:
            counted = batch["tree"].counted.double()
            self._count("kl/reference", group.kl(tokens, batch["reference"].to(tokens)), counted)
