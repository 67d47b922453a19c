"""Sampling from a policy: one prefill per prompt, its cache repeated for n answers, one random stream per answer.

An answer depends on its prompt, its name and the seed, never on the rest of the batch.
Shapes: B prompts of a batch, n answers each, N = B * n rows, T prompt tokens, V vocabulary.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import transformers as hf
from tqdm import tqdm

from mmrlhf_core.models import prompts
from mmrlhf_core.models.policy import Policy, rotary_axes
from mmrlhf_core.models.prompts import Prompt


def stream(seed: int, name: str, sample: int, length: int) -> np.ndarray:
    """`length` uniform numbers in [0, 1) for answer `sample` to the prompt called `name`."""
    digest = hashlib.sha256(f"{seed}/{name}/{sample}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big")).random(length)


def uniform_rows(policy: Policy, seed: int, names: Sequence[str], n: int, length: int) -> torch.Tensor:
    """Uniform numbers [B * n, L] on the policy's device: a stream for each of n answers to each of B names."""
    streams = [stream(seed, name, sample, length) for name in names for sample in range(n)]
    return torch.from_numpy(np.stack(streams)).to(policy.model.device)


def nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the smallest set of most probable tokens whose mass reaches `top_p`; [N, V] to [N, V], rows sum to 1."""
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    kept = torch.where(ordered.cumsum(-1) - ordered < top_p, ordered, 0.0)
    kept = torch.zeros_like(probabilities).scatter(-1, order, kept)
    return kept / kept.sum(-1, keepdim=True)


def choose(logits: torch.Tensor, temperature: float, top_p: float, uniform: torch.Tensor) -> torch.Tensor:
    """Next token of each row, [N, V] and uniform [N] to [N]: the argmax at temperature 0, else the inverse CDF."""
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits.double() / temperature).softmax(-1)
    if top_p < 1:
        probabilities = nucleus(probabilities, top_p)
    mass = probabilities.cumsum(-1)
    return torch.searchsorted(mass, (uniform.to(mass) * mass[:, -1])[:, None], right=True).squeeze(-1)


def check_decoding(n: int, temperature: float, top_p: float, max_new_tokens: int) -> None:
    """Refuse settings that nothing can be sampled with."""
    if n < 1 or max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
        raise ValueError(
            f"n {n}, temperature {temperature}, top_p {top_p} and max_new_tokens {max_new_tokens} are out of range: "
            "n and max_new_tokens from 1, temperature from 0, top_p above 0 and at most 1."
        )


class Rows(NamedTuple):
    """Unfinished answers: logits [N, V] of the next token, cache, mask [N, T], next position [N]."""

    logits: torch.Tensor
    cache: hf.Cache
    mask: torch.Tensor
    position: torch.Tensor

    def keep(self, rows: torch.Tensor) -> "Rows":
        """Only these rows, in this order; a row may be repeated."""
        self.cache.batch_select_indices(rows)
        return Rows(self.logits[rows], self.cache, self.mask[rows], self.position[rows])


def prefill(policy: Policy, inputs: dict[str, torch.Tensor], seen: bool) -> Rows:
    """Read B encoded prompts once; `seen` is whether any of them has a picture or a clip."""
    model = policy.model
    inputs = {key: value.to(model.device) for key, value in inputs.items()}
    mask = inputs["attention_mask"]
    if rotary_axes(model) == 1:
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    output = model(**inputs, use_cache=True, logits_to_keep=1)
    position = mask.sum(-1)
    if rotary_axes(model) == 3:  # positions continue after the picture's largest position
        position = position + model.model.rope_deltas.view(-1) if seen else torch.full_like(position, mask.shape[1])
    return Rows(output.logits[:, -1], output.past_key_values, mask, position)


def extend(model: hf.PreTrainedModel, rows: Rows, tokens: torch.Tensor, real: torch.Tensor) -> Rows:
    """Append tokens [N, L] to the rows; `real` [N, L] is 0 at padding, which stands on the left."""
    mask = torch.cat([rows.mask, real.to(rows.mask)], -1)
    place = rows.position[:, None] + (real.cumsum(-1) - 1).clamp(min=0)
    axes = place.expand(3, -1, -1) if rotary_axes(model) == 3 else place
    output = model(
        input_ids=tokens, attention_mask=mask, position_ids=axes, past_key_values=rows.cache, use_cache=True,
        logits_to_keep=1,
    )  # fmt: skip
    return Rows(output.logits[:, -1], output.past_key_values, mask, rows.position + real.sum(-1))


def write(policy: Policy, rows: Rows, uniform: torch.Tensor, temperature: float, top_p: float) -> list[list[int]]:
    """At most L further tokens of each row, drawn with its row of `uniform` [N, L]; ended rows leave the batch.

    A row without the end token among its L tokens was cut off.
    """
    end = policy.processor.tokenizer.eos_token_id
    tokens = torch.full(uniform.shape, end, device=uniform.device)
    going = torch.arange(len(uniform), device=uniform.device)
    for step in range(uniform.shape[1]):
        token = choose(rows.logits, temperature, top_p, uniform[going, step])
        tokens[going, step] = token
        left = (token != end).nonzero().squeeze(-1)
        if len(left) == 0 or step + 1 == uniform.shape[1]:
            break
        if len(left) < len(token):
            rows, token, going = rows.keep(left), token[left], going[left]
        rows = extend(policy.model, rows, token[:, None], torch.ones_like(token[:, None]))
    return tokens.tolist()


@torch.inference_mode()
def decode(
    policy: Policy, batch: Sequence[Prompt], uniform: torch.Tensor, temperature: float, top_p: float
) -> tuple[list[list[int]], list[int]]:
    """Tokens of n answers per prompt, one row of `uniform` [B * n, L] each, and the number of tokens of each prompt."""
    inputs = prompts.encode(policy.processor, batch)
    rows = prefill(policy, inputs, any(prompt.images or prompt.clip for prompt in batch))
    each = torch.arange(len(batch), device=uniform.device).repeat_interleave(len(uniform) // len(batch))
    return write(policy, rows.keep(each), uniform, temperature, top_p), inputs["attention_mask"].sum(-1).tolist()


def sample(
    policy: Policy,
    asked: Sequence[Prompt],
    names: Sequence[str],
    n: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_new_tokens: int = 64,
    seed: int = 0,
    batch: int = 64,
    desc: str = "answers",
) -> list[list[str]]:
    """n answers to each prompt, as text, in the order of the prompts.

    `names` are the ids of the prompts: together with `seed` they fix each answer's random stream, so that batch
    size and order change nothing. Temperature 0 is greedy; `batch` counts prompts; a blank `desc` shows no bar.
    """
    if len(names) != len(asked) or len(set(names)) != len(names):
        raise ValueError(f"{len(asked)} prompts need as many different names; {len(set(names))} were given.")
    check_decoding(n, temperature, top_p, max_new_tokens)
    order = sorted(range(len(asked)), key=lambda i: (len(asked[i].clip), len(asked[i].images), len(asked[i].text), i))
    answers: dict[int, list[str]] = {}
    with tqdm(total=len(order), desc=desc, unit="prompt", disable=not desc) as bar:
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            uniform = uniform_rows(policy, seed, [names[i] for i in chosen], n, max_new_tokens)
            ids, _ = decode(policy, [asked[i] for i in chosen], uniform, temperature, top_p)
            texts = [prompts.answer_text(policy.processor, row) for row in ids]
            answers |= {i: texts[k * n : (k + 1) * n] for k, i in enumerate(chosen)}
            bar.update(len(chosen))
    return [answers[i] for i in range(len(asked))]
