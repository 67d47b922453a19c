"""Reward-model training: `RewardTrainer`, and one run from a base policy to a model that scores.

The base policy is copied, so a run leaves it unchanged.
"""

import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import transformers as hf
from torch import Tensor

from mmrlhf_core.models import prompts
from mmrlhf_core.models import reward as reward_model
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.models.prompts import Wording
from mmrlhf_core.models.reward import RewardModel
from mmrlhf_core.objectives import reward
from mmrlhf_core.training.base import DTYPES, ProgressBar, arguments, check_choice
from mmrlhf_core.training.dataset import Examples
from mmrlhf_core.training.optimizer import Mixed
from mmrlhf_core.training.reward_dataset import NONE, RewardExamples
from mmrlhf_core.training.trainer import LossTerm, RankedModel, RankedTrainer, prepared

OPTIMIZERS = ("adamw", "muon")
CURVE_COLUMNS = {
    "loss": "loss", "critique": "loss/critique", "score": "loss/score", "accuracy": "rewards/accuracy",
    "margin": "rewards/margin",
}  # fmt: skip


class RewardTrainer(RankedTrainer):
    """Critique-based reward model: L_critique + L_score, and the release's centring and tie terms (weights 0 off)."""

    def __init__(
        self, model: RankedModel, args: hf.TrainingArguments, train_dataset: Examples,
        critique_weight: float = 1.0, score_weight: float = 1.0, centre_weight: float = 0.0, tie_weight: float = 0.0,
        **others: Any,
    ) -> None:  # fmt: skip
        if model.score is None:
            raise ValueError("Reward training needs a score head: RankedModel(model, score=...).")
        self.coefficients = (critique_weight, score_weight, centre_weight, tie_weight)
        super().__init__(model, args, train_dataset, **others)

    def parts(self, batch: dict[str, Any], sums: Tensor, tokens: Tensor, scores: Tensor | None) -> dict[str, LossTerm]:
        """Eq. 2 over critiques, eq. 3 over pairs, (r_w + r_l)² over pairs, (r_a − r_b)² over ties."""
        assert scores is not None  # __init__ refuses a model without a score head
        weights = {name: weight.to(sums.device) for name, weight in batch["weights"].items()}
        r_w, r_l = scores[batch["tree"].pairs].unbind(1)
        tied_a, tied_b = scores[batch["ties"].to(sums.device)].unbind(1)
        critique, score, centre, tie = self.coefficients
        self._count_rewards(r_w, r_l, weights["pair"])
        losses = reward.critique(sums, batch["lengths"].to(sums.device).clamp(min=1))
        parts = {
            "critique": LossTerm(critique, losses, weights["critique"], "critique"),
            "score": LossTerm(score, reward.bradley_terry(r_w, r_l), weights["pair"], "pair"),
            "centre": LossTerm(centre, reward.centre(r_w, r_l), weights["pair"], "pair"),
            "tie": LossTerm(tie, reward.tie(tied_a, tied_b), weights["tie"], "tie"),
        }
        return {name: part for name, part in parts.items() if part.coefficient}


@dataclass(frozen=True)
class RewardSettings:
    """One training run; `batch` counts queries of a micro-batch, and a step takes `accumulation` micro-batches.

    With `precision` bfloat16 only matrix products are in bfloat16; the model's weights and the scores are not.
    """

    steps: int
    batch: int
    lr: float
    accumulation: int = 1
    optimizer: str = "adamw"
    schedule: str = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.0
    critique_weight: float = 1.0
    score_weight: float = 1.0
    centre_weight: float = 0.01
    tie_weight: float = 0.0
    train_tower: bool = False
    checkpointing: bool = False
    precision: str = "float32"
    wording: Wording = prompts.BRIEF

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("precision", self.precision, DTYPES)


class Trained(NamedTuple):
    """The trained model, and its curve: rows of step, loss, accuracy and so on over the training batches."""

    model: RewardModel
    curve: list[dict[str, float]]


def start(base: Policy, critiques: str, how: RewardSettings, seed: int) -> RewardModel:
    """A copy of the base policy with a new score head, as every run begins; the seed decides the head's weights."""
    model = prepared(deepcopy(base.model), how.train_tower, how.checkpointing)
    return reward_model.create(Policy(model, base.processor), how.wording, critiques != NONE, seed)


def _arguments(folder: str, how: RewardSettings, seed: int) -> hf.TrainingArguments:
    """The settings as `transformers` names them."""
    return arguments(
        folder, max_steps=how.steps, per_device_train_batch_size=how.batch, learning_rate=how.lr,
        gradient_accumulation_steps=how.accumulation, lr_scheduler_type=how.schedule,
        warmup_steps=round(how.warmup * how.steps), weight_decay=how.weight_decay, seed=seed,
        bf16=how.precision == "bfloat16", logging_steps=max(1, min(10, how.steps // 4)),
        use_cpu=not torch.cuda.is_available(), disable_tqdm=True,
    )  # fmt: skip


def train(base: Policy, data: RewardExamples, how: RewardSettings, seed: int, desc: str = "reward model") -> Trained:
    """Train one reward model. The seed decides the head's weights and the order of the queries."""
    model = start(base, data.critiques, how, seed)
    learner = RankedModel(model.policy.model.train(), model.head.train())
    muon = None
    if how.optimizer == "muon":
        muon = Mixed(learner.named_parameters(), how.lr, how.weight_decay, DTYPES[how.precision])
    weights = (how.critique_weight, how.score_weight, how.centre_weight, how.tie_weight)
    with tempfile.TemporaryDirectory() as folder:
        trainer = RewardTrainer(
            learner, _arguments(folder, how, seed), data, *weights, optimizers=(muon, None),
            callbacks=[ProgressBar(desc)],
        )  # fmt: skip
        trainer.remove_callback(hf.PrinterCallback)
        trainer.train()
    learner.eval()
    return Trained(model, _curve(trainer.state.log_history))


def _curve(history: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """The numbers of `CURVE_COLUMNS` at every logged step; a term that is off is 0."""
    rows = [row for row in history if "loss" in row]
    return [{"step": row["step"], **{name: row.get(key, 0.0) for name, key in CURVE_COLUMNS.items()}} for row in rows]
