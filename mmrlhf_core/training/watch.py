"""Looking at a policy while it trains: how long its answers get, and how far they move from the reference.

The numbers a trainer logs are about the responses of the data, which others wrote. These are about the policy's own.
"""

from collections.abc import Sequence

import torch
import transformers as hf

from mmrlhf_core.inference import generate
from mmrlhf_core.models import prompts
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.ranked import batch as ranked
from mmrlhf_core.ranked.attention import prepare
from mmrlhf_core.ranked.logps import response_logps


class Watch(hf.TrainerCallback):
    """Every `every` steps, and at both ends, lets the policy answer some prompts once each at temperature 1.

    `rows` gets the step, the mean length of the answers in tokens, and KL(π‖π_ref), the mean over answers y ~ π of
    log π(y|x) − log π_ref(y|x) in nats. The answers come from a random stream of their own: the run stays the same.
    """

    def __init__(
        self, reference: Policy, asked: Sequence[Prompt], names: Sequence[str], every: int, max_new_tokens: int,
        seed: int,
    ) -> None:  # fmt: skip
        self.reference = Policy(prepare(reference.model), reference.processor)
        self.asked, self.names, self.every = asked, names, every
        self.how = {"temperature": 1.0, "max_new_tokens": max_new_tokens, "seed": seed, "desc": ""}
        self.rows: list[dict[str, float]] = []

    def on_train_begin(self, args, state, control, model, **rest) -> None:
        self.look(model.model, state.global_step)

    def on_step_end(self, args, state, control, model, **rest) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self.look(model.model, state.global_step)

    @torch.no_grad()
    def look(self, model: hf.PreTrainedModel, step: int) -> None:
        """One look at the model in training."""
        training, processor = model.training, self.reference.processor
        model.eval()
        texts = [text for (text,) in generate.sample(Policy(model, processor), self.asked, self.names, **self.how)]
        queries = [self._query(prompt, text) for prompt, text in zip(self.asked, texts, strict=True)]
        tree = ranked.build_tree(queries).to(model.device)
        moved = response_logps(model, tree).sums - response_logps(self.reference.model, tree).sums
        length = sum(len(query.responses[0]) for query in queries) / len(queries)
        self.rows.append({"step": step, "length": length, "kl": moved.mean().item()})
        model.train(training)

    def _query(self, prompt: Prompt, text: str) -> ranked.Query:
        processor = self.reference.processor
        batch = prompts.encode(processor, [prompt])
        skip = ("input_ids", "attention_mask", "mm_token_type_ids")
        media = {name: torch.as_tensor(value) for name, value in batch.items() if name not in skip}
        return ranked.Query(batch["input_ids"][0], media, [ranked.encode_response(processor, text)], [])
