"""Monitoring a policy while it trains: the length of its own answers, and their KL to the reference.

The trainer's own log is only about the responses in the data.
"""

from collections.abc import Sequence

import numpy as np
import torch
import transformers as hf

from mmrlhf_core.models import prompts
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.ranked.attention import prepare
from mmrlhf_core.ranked.batch import RankedQuery, build_tree
from mmrlhf_core.ranked.logps import response_logps
from mmrlhf_core.rollout import generate

TEXT_INPUTS = ("input_ids", "attention_mask", "mm_token_type_ids")  # the other inputs of a model are its media


class OwnAnswersMonitor(hf.TrainerCallback):
    """At the start, at the end and each `every` steps, the policy answers each prompt once at temperature 1.

    `rows` gets the step, the mean length in tokens, and an estimate of KL(π‖π_ref) in nats from one answer y ~ π per
    prompt: the mean of log π(y|x) − log π_ref(y|x). Sampling has its own random stream and does not affect training.
    """

    def __init__(
        self, reference: Policy, shown: Sequence[Prompt], names: Sequence[str], every: int, max_new_tokens: int,
        seed: int,
    ) -> None:  # fmt: skip
        self.reference, self.processor = prepare(reference.model), reference.processor
        self.shown, self.every, self.rows = shown, every, []
        streams = [generate.stream(seed, name, 0, max_new_tokens) for name in names]
        self.uniform = torch.from_numpy(np.stack(streams)).to(reference.model.device)
        self.inputs = [prompts.encode(self.processor, [prompt]) for prompt in shown]

    def on_train_begin(self, args, state, control, model, **rest) -> None:
        self.measure(model.model, state.global_step)

    def on_step_end(self, args, state, control, model, **rest) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self.measure(model.model, state.global_step)

    @torch.no_grad()
    def measure(self, model: hf.PreTrainedModel, step: int) -> None:
        """Add one row about the model in training."""
        training = model.training
        model.eval()
        answers = self._answers(Policy(model, self.processor))
        queries = [self._query(given, answer) for given, answer in zip(self.inputs, answers, strict=True)]
        tree = build_tree(queries).to(model.device)
        moved = response_logps(model, tree).sums - response_logps(self.reference, tree).sums
        length = sum(map(len, answers)) / len(answers)
        self.rows.append({"step": step, "length": length, "kl": moved.mean().item()})
        model.train(training)

    def _answers(self, policy: Policy) -> list[torch.Tensor]:
        """The tokens of every answer, with the end token if present."""
        with_media = any(prompt.images or prompt.clip for prompt in self.shown)
        rows = generate.prefill(policy, prompts.encode(self.processor, self.shown), with_media)
        end = self.processor.tokenizer.eos_token_id
        written = generate.write(policy, rows, self.uniform, temperature=1.0, top_p=1.0)
        return [torch.tensor(ids[: ids.index(end) + 1] if end in ids else ids) for ids in written]

    def _query(self, given: dict[str, torch.Tensor], answer: torch.Tensor) -> RankedQuery:
        media = {name: torch.as_tensor(value) for name, value in given.items() if name not in TEXT_INPUTS}
        return RankedQuery(given["input_ids"][0], media, [answer], [])
