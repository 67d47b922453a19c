"""Preference and reward-model training on ranked trees, as subclasses of `transformers.Trainer`.

DeepSpeed, FSDP, bf16, checkpointing, LoRA, callbacks, TensorBoard and resume come from there. What is added: every
loss is a weighted sum over the whole optimizer step and all processes divided by the sum of its weights, so
accumulation and data parallelism change nothing; a run that meets a NaN stops and names the queries; a checkpoint
counts only when it is whole. Shapes: `B` pairs, `M` responses, `N` response tokens.
"""

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers as hf
from accelerate.utils import gather_object
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn

from mmrlhf_core.data import storage
from mmrlhf_core.models.reward import HEAD, ScoreHead, save_head, score_places
from mmrlhf_core.objectives import group, preference, reward
from mmrlhf_core.ranked.batch import Tree
from mmrlhf_core.ranked.logps import response_logps
from mmrlhf_core.training import checkpoints, dataset
from mmrlhf_core.training.dataset import RankedExample
from mmrlhf_core.training.losses import NEED_MARGIN, NO_REFERENCE, Objective, Pairs, pair_losses

ITEMS = ("pair", "critique", "tie")


class NotFinite(RuntimeError):
    """A loss or a gradient is not a finite number; the message names the queries of the step."""


class RankedModel(nn.Module):
    """The module that DDP, DeepSpeed and FSDP wrap: one call is one packed batch.

    `model` went through `ranked.attention.prepare`, and may be a PEFT model. `score` maps the state at each
    critique's end token [M, D] to one score [M].
    """

    accepts_loss_kwargs = True  # transformers divides no loss by the accumulation steps again, in any release

    def __init__(self, model: hf.PreTrainedModel | PeftModel, score: ScoreHead | None = None, chunk: int = 1024):
        super().__init__()
        self.model, self.score, self.chunk = model, score, chunk

    @property
    def config(self) -> hf.PreTrainedConfig:
        """DeepSpeed and the TensorBoard callback read it."""
        return self.model.config

    def forward(self, tree: Tree, calls: int | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Sums [M], log-probabilities of response tokens [N], scores [M] or None."""
        plain = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        logps = response_logps(plain, tree, self.chunk, calls)
        if self.score is None:
            return logps.sums, logps.tokens, None
        places = score_places(tree.targets, tree.response_of, tree.places, tree.n_responses, self.score.form)
        return logps.sums, logps.tokens, self.score(logps.states[places])


class LossTerm(NamedTuple):
    """One term of the loss: its weight in the total, a loss and a weight for each item, and which item counts it."""

    coefficient: float
    losses: Tensor
    weights: Tensor
    item: str


def arguments(folder: str | Path, **given: Any) -> hf.TrainingArguments:
    """`TrainingArguments` for the trainers here: nothing dropped from batches, no NaN hidden, no reports unasked."""
    fixed = {"remove_unused_columns": False, "logging_nan_inf_filter": False, "label_names": []}
    usual = {"report_to": [], "logging_steps": 10, "save_strategy": "no", "ddp_find_unused_parameters": False}
    usual["dataloader_pin_memory"] = torch.cuda.is_available()
    return hf.TrainingArguments(output_dir=str(folder), **{**usual, **given, **fixed})


def _name(model: nn.Module, part: nn.Module) -> str:
    """The name of `part` inside `model`."""
    return next(name for name, module in model.named_modules() if module is part)


class RankedTrainer(hf.Trainer):
    """What preference and reward training share; a subclass says what the loss is made of in `parts`."""

    def __init__(
        self, model: RankedModel, args: hf.TrainingArguments, train_dataset: Sequence[RankedExample],
        weighting: str = "pair", negative_margin: str = "clamp", eval_dataset: Sequence[RankedExample] | None = None,
        **others: Any,
    ) -> None:  # fmt: skip
        step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        collate = partial(dataset.collate, weighting=weighting, negative_margin=negative_margin)
        super().__init__(
            model=model, args=args, train_dataset=dataset.Filled(train_dataset, step), eval_dataset=eval_dataset,
            data_collator=collate, **others,
        )  # fmt: skip
        self.statistics = [0.0, 1.0]  # running M_0 and σ of β-DPO
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._values: dict[str, list[float]] = defaultdict(list)
        self._since, self._ids, self._micro = time.monotonic(), [], 0

    def parts(self, batch: dict, sums: Tensor, tokens: Tensor, scores: Tensor | None) -> dict[str, LossTerm]:
        """The terms of the loss by name."""
        raise NotImplementedError

    # one optimizer step

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The micro-batches of a step, and what its losses are divided by, over all processes: [3].

        ZeRO-3 and FSDP need equally many calls of each module on every process: the head's are evened out, the
        tower's have to be equal.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._ids, self._micro = [], 0
        if not batches:
            return batches, None
        chunk = self.accelerator.unwrap_model(self.model).chunk
        heads = torch.tensor([-(-len(batch["tree"].targets) // chunk) for batch in batches])
        towers = torch.tensor([dataset.tower_calls(batch["tree"]) for batch in batches])
        seen = torch.cat([dataset.total(batches), heads.double(), towers.double()]).to(device)
        weights, heads, towers = self.accelerator.gather(seen[None]).split([len(ITEMS), len(batches), len(batches)], 1)
        if (towers != towers[0]).any():
            raise ValueError(
                f"Some processes have pictures or clips in a micro-batch of step {self.state.global_step + 1} and "
                f"others have not (here: {', '.join(batches[0]['ids'])} …). Train queries without media on their own."
            )
        for batch, most in zip(batches, heads.amax(0).long().tolist(), strict=True):
            batch["calls"] = most
        return batches, weights.sum(0).clamp(min=1)

    def compute_loss(
        self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        """This process' share of Σ coefficient · Σ weight · loss / Σ weight, sums over the whole step."""
        tree = inputs["tree"].to(self.args.device)
        self._ids, self._micro = self._ids + inputs["ids"], self._micro + 1
        items = dataset.total([inputs]).clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        sums, tokens, scores = model(tree, inputs.get("calls"))
        parts = self.parts({**inputs, "tree": tree}, sums, tokens, scores)
        loss = torch.stack(
            [p.coefficient * (p.losses * p.weights).sum() / items[ITEMS.index(p.item)] for p in parts.values()]
        ).sum()
        for name, part in parts.items():
            self._count(f"loss/{name}", part.losses, part.weights)
        self._total("tokens/computed", float((tree.query_of >= 0).sum()))
        self._total("tokens/shared", float(tree.shared_tokens))
        if not math.isfinite(loss.item()):
            raise NotFinite(self._stopped("loss", {name: self._sums[f"loss/{name}"][0] for name in parts}))
        loss = loss.to(sums.dtype)
        return loss if num_items_in_batch is None else loss * self.accelerator.num_processes

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient norm; one that is not finite ends the run before the optimizer uses it."""
        norm = super()._get_grad_norm(model, grad_norm)
        if norm is not None and not math.isfinite(float(norm)):
            raise NotFinite(self._stopped("gradient norm", float(norm)))
        return norm

    def _stopped(self, what: str, value: Any) -> str:
        kept = checkpoints.last(self.args.output_dir)
        return (
            f"The {what} of step {self.state.global_step + 1} is not finite ({value}). Queries of the step so far: "
            f"{', '.join(self._ids)}. The last good checkpoint is {kept.name if kept else 'the starting point'}; "
            "look at these queries, lower the learning rate, or resume from it without them."
        )

    def prediction_step(
        self, model: nn.Module, inputs: dict, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, None, None]:
        """Loss of one evaluation batch; its numbers are logged under `eval_`."""
        with torch.no_grad():
            return self.compute_loss(model, self._prepare_inputs(inputs)), None, None

    # what is logged

    def _count(self, name: str, values: Tensor, weights: Tensor) -> None:
        """Weighted mean of `values` over the logging window, under `name`."""
        self._sums[name][0] += float((values.detach().double() * weights).sum())
        self._sums[name][1] += float(weights.sum())

    def _total(self, name: str, value: float) -> None:
        self._sums[name][0] += value

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what was counted since the last call, over all processes, and forget it."""
        if "loss" in logs or "eval_loss" in logs:
            prefix = "eval_" if "eval_loss" in logs else ""
            logs |= {prefix + name: value for name, value in self._summary().items()}
        super().log(logs, start_time)

    def _summary(self) -> dict[str, float]:
        sums, values = defaultdict(lambda: [0.0, 0.0]), defaultdict(list)
        for part_sums, part_values in gather_object([(dict(self._sums), dict(self._values))]):
            for name, (value, weight) in part_sums.items():
                sums[name] = [sums[name][0] + value, sums[name][1] + weight]
            for name, found in part_values.items():
                values[name] += found
        computed, shared = sums.pop("tokens/computed")[0], sums.pop("tokens/shared")[0]
        seconds = time.monotonic() - self._since
        result = {name: value / weight for name, (value, weight) in sums.items() if weight}
        for name, found in values.items():
            cuts = torch.tensor(found or [0.0], dtype=torch.double).quantile(
                torch.tensor([0, 0.1, 0.5, 0.9, 1]).double()
            )
            result |= dict(
                zip([f"{name}/{cut}" for cut in ("min", "p10", "p50", "p90", "max")], cuts.tolist(), strict=True)
            )
        result |= {"tokens/per_second": computed / seconds, "tokens/shared_share": shared / max(computed + shared, 1)}
        self._since, self._sums, self._values = time.monotonic(), defaultdict(lambda: [0.0, 0.0]), defaultdict(list)
        return result

    # checkpoints

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Write an ordinary checkpoint folder (safetensors, no pickled arguments), whatever the layout."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        model = self.accelerator.unwrap_model(self.model)
        state = model.state_dict() if state_dict is None else state_dict
        inner = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
        if model.model.get_output_embeddings().weight is model.model.get_input_embeddings().weight:
            tied = model.model.get_output_embeddings()  # gathered states hold the shared weight twice
            inner = {k: v for k, v in inner.items() if k != _name(model.model, tied) + ".weight"}
        model.model.save_pretrained(folder, state_dict=inner, save_original_format=False)
        if model.score is not None:
            head = {name.removeprefix("score."): v for name, v in state.items() if name.startswith("score.")}
            save_head(folder, head, model.score.form)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    @property
    def layout(self) -> str:
        """How the model is spread, such as NO, MULTI_GPU, FSDP, DEEPSPEED-3."""
        kind = str(self.accelerator.distributed_type.value)
        stage = f"-{self.accelerator.state.deepspeed_plugin.zero_stage}" if self.is_deepspeed_enabled else ""
        return kind + stage

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.is_deepspeed_enabled:
            checkpoints.save_moments(self.model_wrapped, output_dir, self.args.should_save)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint; `complete.json` comes last, when every process has written its part."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            facts = {"step": self.state.global_step, "layout": self.layout, "processes": self.args.world_size}
            storage.write_json(folder.resolve() / checkpoints.COMPLETE, {**facts, "statistics": self.statistics})

    def resume(self) -> Any:
        """Train from the last whole checkpoint in the output folder, or from the start when there is none."""
        with self.accelerator.main_process_first():
            checkpoints.discard_partial(self.args.output_dir)
        found = checkpoints.last(self.args.output_dir)
        if found is None:
            return self.train()
        saved = storage.read_json(found.resolve() / checkpoints.COMPLETE)
        checkpoints.check_layout(saved, self.layout, self.args.world_size)
        self.statistics = saved["statistics"]
        return self.train(resume_from_checkpoint=str(found))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Put a checkpoint's weights, from whatever layout, into the model."""
        folder, target = Path(resume_from_checkpoint), self.accelerator.unwrap_model(self.model)
        if self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        if isinstance(target.model, PeftModel):
            target.model.load_adapter(str(folder), target.model.active_adapter, is_trainable=True)
        else:
            saved = type(target.model).from_pretrained(folder, dtype=target.model.dtype)
            target.model.load_state_dict(saved.state_dict())
        if target.score is not None:
            target.score.load_state_dict(load_file(folder / HEAD))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint and not self.is_deepspeed_enabled and (Path(checkpoint) / checkpoints.OPTIMIZER_FILE).is_file():
            schedule = torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True)
            self.lr_scheduler.load_state_dict(schedule)
            rates = self.lr_scheduler.get_last_lr()
            model = self.accelerator.unwrap_model(self.model)
            checkpoints.load_moments(model, self.optimizer.optimizer, checkpoint, self.state.global_step, rates)


class PreferenceTrainer(RankedTrainer):
    """MM-DPO and the arms it is compared with."""

    def __init__(
        self, model: RankedModel, args: hf.TrainingArguments, train_dataset: Sequence[RankedExample],
        objective: Objective, **others: Any,
    ) -> None:  # fmt: skip
        self.objective = objective
        super().__init__(model, args, train_dataset, objective.pair_weighting, objective.negative_margin, **others)

    def _pairs(self, batch: dict, sums: Tensor) -> Pairs:
        """Numbers of each pair; a missing δ or reference that the arm needs is an error that names the queries."""
        tree, arm, named = batch["tree"], self.objective.arm, ", ".join(batch["ids"])
        if arm in NEED_MARGIN and "margins" not in batch:
            raise ValueError(f"Arm {arm} needs a reward margin δ for each pair; missing among queries {named}.")
        if arm not in NO_REFERENCE and "reference" not in batch:
            raise ValueError(f"Arm {arm} needs reference log-probabilities; missing among queries {named}.")
        reference = torch.zeros_like(sums)
        if "reference" in batch:
            tokens = batch["reference"].to(sums) * tree.counted
            reference = reference.index_add(0, tree.response_of, tokens)
        delta = batch["margins"].to(sums) if "margins" in batch else torch.zeros_like(sums[tree.pairs[:, 0]])
        lengths = batch["lengths"].to(sums)
        both = [column for part in (sums, reference, lengths) for column in part[tree.pairs].unbind(1)]
        return Pairs(*both, delta)

    def _gather(self, values: Tensor) -> tuple[Tensor, slice]:
        """`values` [B] of all processes in order, and where this one's lie."""
        every = gather_object([values.tolist()])
        start = sum(len(part) for part in every[: self.accelerator.process_index])
        whole = torch.tensor([value for part in every for value in part], dtype=values.dtype, device=values.device)
        return whole, slice(start, start + len(values))

    def parts(self, batch: dict, sums: Tensor, tokens: Tensor, scores: Tensor | None) -> dict[str, LossTerm]:
        """The preference term and the auxiliary SFT term on the chosen response of every pair."""
        o, pairs = self.objective, self._pairs(batch, sums)
        seed = (self.args.seed * 1_000_003 + self.state.global_step) * 1009 + self._micro
        losses, beta, factor = pair_losses(o, pairs, self.statistics, self._gather, seed)
        weights = batch["weights"]["pair"].to(losses.device)
        self._measure(batch, pairs, tokens, beta, weights)
        parts = {o.arm: LossTerm(1.0, losses, weights * factor, "pair")}
        if o.sft_weight:
            parts["sft"] = LossTerm(o.sft_weight, preference.sft(pairs.logp_w, pairs.length_w), weights, "pair")
        return parts

    @torch.no_grad()
    def _measure(self, batch: dict, p: Pairs, tokens: Tensor, beta: Tensor, weights: Tensor) -> None:
        """Log-probabilities, rewards with the β that was used, accuracy, margin, δ, β, and KL on these responses."""
        self._count("logps/chosen", p.logp_w, weights)
        self._count("logps/rejected", p.logp_l, weights)
        self._count("logratios/chosen", p.logp_w - p.ref_logp_w, weights)
        self._count("logratios/rejected", p.logp_l - p.ref_logp_l, weights)
        chosen, rejected = beta * (p.logp_w - p.ref_logp_w), beta * (p.logp_l - p.ref_logp_l)
        self._count("rewards/chosen", chosen, weights)
        self._count("rewards/rejected", rejected, weights)
        self._count("rewards/margin", chosen - rejected, weights)
        self._count("rewards/accuracy", (chosen > rejected).double(), weights)
        self._values["beta"] += beta[weights > 0].tolist()
        if "margins" in batch:
            self._values["delta"] += p.delta[weights > 0].tolist()
        if "reference" in batch:
            counted = batch["tree"].counted.double()
            self._count("kl/reference", group.kl(tokens, batch["reference"].to(tokens)), counted)


class RewardTrainer(RankedTrainer):
    """Critique-based reward model: L_critique + L_score, and the release's centring and tie terms (weights 0 off)."""

    def __init__(
        self, model: RankedModel, args: hf.TrainingArguments, train_dataset: Sequence[RankedExample],
        critique_weight: float = 1.0, score_weight: float = 1.0, centre_weight: float = 0.0, tie_weight: float = 0.0,
        **others: Any,
    ) -> None:  # fmt: skip
        if model.score is None:
            raise ValueError("Reward training needs a score head: RankedModel(model, score=...).")
        self.coefficients = (critique_weight, score_weight, centre_weight, tie_weight)
        super().__init__(model, args, train_dataset, **others)

    def parts(self, batch: dict, sums: Tensor, tokens: Tensor, scores: Tensor | None) -> dict[str, LossTerm]:
        """Eq. 2 over critiques, eq. 3 over pairs, (r_w + r_l)² over pairs, (r_a − r_b)² over ties."""
        weights = {name: weight.to(sums.device) for name, weight in batch["weights"].items()}
        r_w, r_l = scores[batch["tree"].pairs].unbind(1)
        tied_a, tied_b = scores[batch["ties"].to(sums.device)].unbind(1)
        critique, score, centre, tie = self.coefficients
        self._count("rewards/chosen", r_w, weights["pair"])
        self._count("rewards/rejected", r_l, weights["pair"])
        self._count("rewards/margin", r_w - r_l, weights["pair"])
        self._count("rewards/accuracy", (r_w > r_l).double(), weights["pair"])
        losses = reward.critique(sums, batch["lengths"].to(sums.device).clamp(min=1))
        parts = {
            "critique": LossTerm(critique, losses, weights["critique"], "critique"),
            "score": LossTerm(score, reward.bradley_terry(r_w, r_l), weights["pair"], "pair"),
            "centre": LossTerm(centre, reward.centre(r_w, r_l), weights["pair"], "pair"),
            "tie": LossTerm(tie, reward.tie(tied_a, tied_b), weights["tie"], "tie"),
        }
        return {name: part for name, part in parts.items() if part.coefficient}
