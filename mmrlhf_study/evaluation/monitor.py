"""Looking at a policy while it trains: how long its answers get, and how far they move from the reference.

The numbers a trainer logs are about the responses of the data, which others wrote. These are about the policy's own.
Shapes: B prompts, L tokens at most.
"""

from collections.abc import Sequence

import numpy as np
import torch
import transformers as hf

from mmrlhf_core.models import prompts
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.ranked import batch as ranked
from mmrlhf_core.ranked.attention import prepare
from mmrlhf_core.ranked.logps import response_logps
from mmrlhf_core.rollout import generate


class Watch(hf.TrainerCallback):
    """Every `every` steps, and at both ends, lets the policy answer some prompts once each at temperature 1.

    `rows` gets the step, the mean length of the answers in tokens, and KL(π‖π_ref), the mean over answers y ~ π of
    log π(y|x) − log π_ref(y|x) in nats. The answers come from a random stream of their own: the run stays the same.
    """

    def __init__(
        self, reference: Policy, asked: Sequence[Prompt], names: Sequence[str], every: int, max_new_tokens: int,
        seed: int,
    ) -> None:  # fmt: skip
        self.reference, self.asked, self.every = prepare(reference.model), asked, every
        self.processor, self.rows = reference.processor, []
        streams = [generate.stream(seed, name, 0, max_new_tokens) for name in names]
        self.uniform = torch.from_numpy(np.stack(streams)).to(reference.model.device)
        self.inputs = [prompts.encode(self.processor, [prompt]) for prompt in asked]

    def on_train_begin(self, args, state, control, model, **rest) -> None:
        self.look(model.model, state.global_step)

    def on_step_end(self, args, state, control, model, **rest) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self.look(model.model, state.global_step)

    @torch.no_grad()
    def look(self, model: hf.PreTrainedModel, step: int) -> None:
        """One look at the model in training."""
        training = model.training
        model.eval()
        answers = self._answers(Policy(model, self.processor))
        queries = [self._query(given, answer) for given, answer in zip(self.inputs, answers, strict=True)]
        tree = ranked.build_tree(queries).to(model.device)
        moved = response_logps(model, tree).sums - response_logps(self.reference, tree).sums
        length = sum(map(len, answers)) / len(answers)
        self.rows.append({"step": step, "length": length, "kl": moved.mean().item()})
        model.train(training)

    def _answers(self, policy: Policy) -> list[torch.Tensor]:
        """The tokens of every answer with its end token, or as many as there may be."""
        seen = any(prompt.images or prompt.clip for prompt in self.asked)
        rows = generate.prefill(policy, prompts.encode(self.processor, self.asked), seen)
        end, found = self.processor.tokenizer.eos_token_id, []
        for ids in generate.write(policy, rows, self.uniform, temperature=1.0, top_p=1.0):
            found.append(torch.tensor(ids[: ids.index(end) + 1] if end in ids else ids))
        return found

    def _query(self, given: dict[str, torch.Tensor], answer: torch.Tensor) -> ranked.RankedQuery:
        skip = ("input_ids", "attention_mask", "mm_token_type_ids")
        media = {name: torch.as_tensor(value) for name, value in given.items() if name not in skip}
        return ranked.RankedQuery(given["input_ids"][0], media, [answer], [])
