"""One training run of the reward model, from a base policy to a model that scores; the base is left as it is."""

import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

import torch
import transformers as hf

from mmrlhf_core.models import prompts, reward
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.models.prompts import Wording
from mmrlhf_core.models.reward import RewardModel
from mmrlhf_core.ranked.attention import prepare
from mmrlhf_core.ranked.vision import vision_tower
from mmrlhf_core.training.optimizer import Mixed
from mmrlhf_core.training.reward_dataset import NONE, RewardExamples
from mmrlhf_core.training.sft import PRECISIONS, Bar
from mmrlhf_core.training.trainer import RankedModel, RewardTrainer, arguments

OPTIMIZERS = ("adamw", "muon")
CURVE_COLUMNS = {"loss": "loss", "critique": "loss/critique", "score": "loss/score", "accuracy": "rewards/accuracy",
          "margin": "rewards/margin"}  # fmt: skip


@dataclass(frozen=True)
class RewardSettings:
    """How every arm is trained; `batch` counts queries, of which a step takes `accumulation` batches.

    The weights are those of L_critique, L_score, the centring and the tie term. With `precision` bfloat16 products are
    made in it; the model's weights and the scores stay as they are.
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
        for name, allowed in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it has to be one of {', '.join(allowed)}.")


class Trained(NamedTuple):
    """The model, and how its numbers moved: rows of step, loss, accuracy and so on over the training batches."""

    model: RewardModel
    curve: list[dict[str, float]]


def start(base: Policy, arm: str, how: RewardSettings, seed: int) -> RewardModel:
    """A copy of the base with a fresh head, as every run begins; the seed decides the head."""
    model = prepare(deepcopy(base.model))
    vision_tower(model).requires_grad_(how.train_tower)
    if how.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return reward.create(Policy(model, base.processor), how.wording, arm != NONE, seed)


def _arguments(folder: str, how: RewardSettings, seed: int) -> hf.TrainingArguments:
    """The settings in the words of transformers."""
    return arguments(
        folder, max_steps=how.steps, per_device_train_batch_size=how.batch, learning_rate=how.lr,
        gradient_accumulation_steps=how.accumulation, lr_scheduler_type=how.schedule,
        warmup_steps=round(how.warmup * how.steps), weight_decay=how.weight_decay, seed=seed,
        bf16=how.precision == "bfloat16", logging_steps=max(1, min(10, how.steps // 4)),
        use_cpu=not torch.cuda.is_available(), disable_tqdm=True,
    )  # fmt: skip


def train(base: Policy, data: RewardExamples, how: RewardSettings, seed: int, desc: str = "reward model") -> Trained:
    """Train one arm. The seed decides the head and the order of the queries, the same in every arm."""
    model = start(base, data.arm, how, seed)
    learner = RankedModel(model.policy.model.train(), model.head.train())
    muon = None
    if how.optimizer == "muon":
        muon = Mixed(learner.named_parameters(), how.lr, how.weight_decay, getattr(torch, how.precision))
    weights = (how.critique_weight, how.score_weight, how.centre_weight, how.tie_weight)
    with tempfile.TemporaryDirectory() as folder:
        trainer = RewardTrainer(
            learner, _arguments(folder, how, seed), data, *weights, optimizers=(muon, None), callbacks=[Bar(desc)]
        )
        trainer.remove_callback(hf.PrinterCallback)
        trainer.train()
    learner.eval()
    return Trained(model, _curve(trainer.state.log_history))


def _curve(history: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """The numbers of `CURVES` at every logged step; a term that is off is 0."""
    rows = [row for row in history if "loss" in row]
    return [{"step": row["step"], **{name: row.get(key, 0.0) for name, key in CURVE_COLUMNS.items()}} for row in rows]
