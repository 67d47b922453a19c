"""What preference and reward training share: `RankedTrainer`, a `transformers.Trainer` for ranked trees.

Every loss is a weighted sum over the whole optimizer step and all processes, divided by the sum of its weights, so
accumulation and data parallelism do not change it. A NaN stops the run and names the queries of the step.
Shapes: `B` pairs, `M` responses, `N` response tokens.
"""

import math
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import transformers as hf
from accelerate.utils import gather_object
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn

from mmrlhf_core.models.reward import HEAD, ScoreHead, save_head, score_places
from mmrlhf_core.ranked.attention import prepare
from mmrlhf_core.ranked.batch import Tree
from mmrlhf_core.ranked.logps import response_logps
from mmrlhf_core.ranked.vision import vision_tower
from mmrlhf_core.training import checkpoints, dataset
from mmrlhf_core.training.base import ResumingTrainer
from mmrlhf_core.training.dataset import Examples

ITEMS = ("pair", "critique", "tie")
QUANTILES = {"min": 0.0, "p10": 0.1, "p50": 0.5, "p90": 0.9, "max": 1.0}


class NotFinite(RuntimeError):
    """A loss or a gradient is not a finite number; the message names the queries of the step."""


class RankedModel(nn.Module):
    """The module that DDP, DeepSpeed and FSDP wrap: one call is one packed batch.

    `model` went through `ranked.attention.prepare`, and may be a PEFT model. `score` maps the state at each
    critique's end token [M, D] to one score [M].
    """

    accepts_loss_kwargs = True  # stops transformers from dividing the loss by the accumulation steps again

    def __init__(
        self, model: hf.PreTrainedModel | PeftModel, score: ScoreHead | None = None, chunk: int = 1024
    ) -> None:
        super().__init__()
        self.model, self.score, self.chunk = model, score, chunk

    @property
    def config(self) -> hf.PreTrainedConfig:
        """DeepSpeed and the TensorBoard callback read it."""
        return self.model.config

    def forward(self, tree: Tree, calls: int | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Sums [M], log-probabilities of response tokens [N], scores [M] or None."""
        plain = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        logps = response_logps(cast(hf.PreTrainedModel, plain), tree, self.chunk, calls)
        if self.score is None:
            return logps.sums, logps.tokens, None
        places = score_places(tree.targets, tree.response_of, tree.places, tree.n_responses, self.score.form)
        return logps.sums, logps.tokens, self.score(logps.states[places])


def prepared(model: hf.PreTrainedModel, train_tower: bool = False, checkpointing: bool = False) -> hf.PreTrainedModel:
    """A loaded model made ready to train on trees: tree attention, frozen tower, activation checkpointing."""
    vision_tower(prepare(model)).requires_grad_(train_tower)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model


class LossTerm(NamedTuple):
    """One term of the loss: its coefficient, loss and weight of each item, and whose weights it is divided by."""

    coefficient: float
    losses: Tensor
    weights: Tensor
    item: str


class RankedTrainer(ResumingTrainer):
    """A subclass returns the terms of the loss from `parts`."""

    def __init__(
        self, model: RankedModel, args: hf.TrainingArguments, train_dataset: Examples,
        weighting: str = "pair", negative_margin: str = "clamp", eval_dataset: Examples | None = None,
        **others: Any,
    ) -> None:  # fmt: skip
        step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        collate = partial(dataset.collate, weighting=weighting, negative_margin=negative_margin)
        super().__init__(
            model=model, args=args, train_dataset=dataset.Filled(train_dataset, step), eval_dataset=eval_dataset,
            data_collator=collate, **others,
        )  # fmt: skip
        self.statistics = [0.0, 1.0]  # running M_0 and σ of β-DPO
        self._ids: list[str] = []  # queries of the step so far
        self._micro = 0  # micro-batches of the step so far
        self._restart_log()

    def parts(self, batch: dict[str, Any], sums: Tensor, tokens: Tensor, scores: Tensor | None) -> dict[str, LossTerm]:
        """The terms of the loss by name."""
        raise NotImplementedError

    # one optimizer step

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor | None]:
        """The micro-batches of a step, and what its losses are divided by, over all processes: [3].

        ZeRO-3 and FSDP need equally many calls of each module on every process: calls of the head are made equal
        here, calls of the tower have to be equal.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._ids, self._micro = [], 0
        if not batches:
            return batches, None
        chunk = self.accelerator.unwrap_model(self.model).chunk
        heads = torch.tensor([-(-len(batch["tree"].targets) // chunk) for batch in batches])
        towers = torch.tensor([dataset.tower_calls(batch["tree"]) for batch in batches])
        own = torch.cat([dataset.total(batches), heads.double(), towers.double()]).to(device)
        weights, heads, towers = self.accelerator.gather(own[None]).split([len(ITEMS), len(batches), len(batches)], 1)
        if (towers != towers[0]).any():
            raise ValueError(
                f"In a micro-batch of step {self.state.global_step + 1} some processes have pictures or clips and "
                f"others have none (here: {', '.join(batches[0]['ids'])} …). Train queries without media separately."
            )
        for batch, most in zip(batches, heads.amax(0).long().tolist(), strict=True):
            batch["calls"] = most
        return batches, weights.sum(0).clamp(min=1)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:  # fmt: skip
        """This process' share of Σ coefficient · Σ weight · loss / Σ weight, sums over the whole step."""
        tree = inputs["tree"].to(self.args.device)
        self._ids, self._micro = self._ids + inputs["ids"], self._micro + 1
        in_step = isinstance(num_items_in_batch, Tensor)
        items = cast(Tensor, num_items_in_batch) if in_step else dataset.total([inputs]).clamp(min=1)
        sums, tokens, scores = model(tree, inputs.get("calls"))
        parts = self.parts({**inputs, "tree": tree}, sums, tokens, scores)
        loss = torch.stack(
            [p.coefficient * (p.losses * p.weights).sum() / items[ITEMS.index(p.item)] for p in parts.values()]
        ).sum()
        for name, part in parts.items():
            self._count(f"loss/{name}", part.losses, part.weights)
        self._tokens["computed"] += float((tree.query_of >= 0).sum())
        self._tokens["shared"] += float(tree.shared_tokens)
        if not math.isfinite(loss.item()):
            raise NotFinite(self._stopped("loss", {name: self._sums[f"loss/{name}"][0] for name in parts}))
        loss = loss.to(sums.dtype)
        return loss * self.accelerator.num_processes if in_step else loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient norm; one that is not finite ends the run before the optimizer uses it."""
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]  # transformers has no types here
        if norm is not None and not math.isfinite(float(norm)):
            raise NotFinite(self._stopped("gradient norm", float(norm)))
        return norm

    def _stopped(self, what: str, value: Any) -> str:
        kept = checkpoints.last(self.folder)
        return (
            f"The {what} of step {self.state.global_step + 1} is not finite ({value}). Queries of the step so far: "
            f"{', '.join(self._ids)}. The last good checkpoint is {kept.name if kept else 'the starting point'}; "
            "look at these queries, lower the learning rate, or resume from it without them."
        )

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, None, None]:  # fmt: skip
        """Loss of one evaluation batch; its numbers are logged under `eval_`."""
        with torch.no_grad():
            return self.compute_loss(model, self._prepare_inputs(inputs)), None, None

    # what is logged

    def _restart_log(self) -> None:
        """Begin a new logging window."""
        self._since = time.monotonic()
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # weighted sum and sum of weights
        self._values: dict[str, list[float]] = defaultdict(list)  # values whose quantiles are logged
        self._tokens = {"computed": 0.0, "shared": 0.0}

    def _count(self, name: str, values: Tensor, weights: Tensor) -> None:
        """Weighted mean of `values` over the logging window, under `name`."""
        self._sums[name][0] += float((values.detach().double() * weights).sum())
        self._sums[name][1] += float(weights.sum())

    def _count_rewards(self, chosen: Tensor, rejected: Tensor, weights: Tensor) -> None:
        """Mean rewards, their margin, and how often the chosen response has the higher one."""
        self._count("rewards/chosen", chosen, weights)
        self._count("rewards/rejected", rejected, weights)
        self._count("rewards/margin", chosen - rejected, weights)
        self._count("rewards/accuracy", (chosen > rejected).double(), weights)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what was counted since the last call, over all processes."""
        if "loss" in logs or "eval_loss" in logs:
            prefix = "eval_" if "eval_loss" in logs else ""
            logs |= {prefix + name: value for name, value in self._summary().items()}
            self._restart_log()
        super().log(logs, start_time)

    def _summary(self) -> dict[str, float]:
        """Means, quantiles and token counts of the logging window, over all processes."""
        processes = gather_object([(dict(self._sums), dict(self._values), self._tokens)])
        result = {}
        for name in dict.fromkeys(name for sums, _, _ in processes for name in sums):
            value, weight = (sum(sums[name][i] for sums, _, _ in processes if name in sums) for i in (0, 1))
            if weight:
                result[name] = value / weight
        cuts = torch.tensor(list(QUANTILES.values())).double()
        for name in dict.fromkeys(name for _, values, _ in processes for name in values):
            whole = [value for _, values, _ in processes for value in values.get(name, ())]
            quantiles = torch.tensor(whole or [0.0], dtype=torch.double).quantile(cuts).tolist()
            result |= {f"{name}/{cut}": value for cut, value in zip(QUANTILES, quantiles, strict=True)}
        computed, shared = (sum(tokens[kind] for *_, tokens in processes) for kind in ("computed", "shared"))
        result["tokens/per_second"] = computed / (time.monotonic() - self._since)
        return result | {"tokens/shared_share": shared / max(computed + shared, 1)}

    # checkpoints

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write an ordinary checkpoint folder (safetensors, no pickled arguments), whatever the layout."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.folder)
        model = self.accelerator.unwrap_model(self.model)
        state = model.state_dict() if state_dict is None else state_dict
        inner = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
        head = model.model.get_output_embeddings()
        if head.weight is model.model.get_input_embeddings().weight:  # gathered states hold the shared weight twice
            name = next(name for name, module in model.model.named_modules() if module is head)
            inner.pop(f"{name}.weight", None)
        model.model.save_pretrained(folder, state_dict=inner, save_original_format=False)
        if model.score is not None:
            own = {name.removeprefix("score."): v for name, v in state.items() if name.startswith("score.")}
            save_head(folder, own, model.score.form)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.is_deepspeed_enabled:
            checkpoints.save_moments(self.model_wrapped, output_dir, self.args.should_save)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Put a checkpoint's weights, from whatever layout, into the model."""
        folder, target = Path(resume_from_checkpoint), self.accelerator.unwrap_model(self.model)
        if self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        if isinstance(target.model, PeftModel):
            target.model.load_adapter(str(folder), target.model.active_adapter, is_trainable=True)
        else:
            checkpoints.load_weights(target.model, folder)
        if target.score is not None:
            target.score.load_state_dict(load_file(folder / HEAD))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint and not self.is_deepspeed_enabled and (Path(checkpoint) / checkpoints.OPTIMIZER_FILE).is_file():
            scheduler, optimizer = cast(Any, self.lr_scheduler), cast(Any, self.optimizer).optimizer
            scheduler.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))
            model = self.accelerator.unwrap_model(self.model)
            checkpoints.load_moments(model, optimizer, checkpoint, self.state.global_step, scheduler.get_last_lr())
