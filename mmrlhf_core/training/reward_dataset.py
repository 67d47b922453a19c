"""Annotated queries as examples for the reward model: what each arm is taught to write, and what it is scored after.

The arms share queries, pairs and prompts; they differ in the critique behind each response alone.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from random import Random

import torch
import transformers as hf
from torch import Tensor

from mmrlhf_core.data.annotated import REASON_KINDS, Annotated
from mmrlhf_core.models import prompts, reward
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.models.reward import Form
from mmrlhf_core.ranked.batch import RankedQuery, build_tree
from mmrlhf_core.training.dataset import RankedExample

NONE = "none"
CRITIQUE_ARMS = (NONE, *REASON_KINDS)
_LOOKUP = re.compile(r"[^?:.]*\?[^:.]*: (right|wrong) \.")  # `what is there ? claim : verdict .`


class PromptCache:
    """Prompts of queries with their pictures read in and encoded, kept up to `max_bytes` for the runs to come."""

    def __init__(
        self, processor: hf.ProcessorMixin, form: Form, folder: str | Path, frames: int, max_bytes: int = 2**30
    ) -> None:
        self.processor, self.form, self.folder, self.frames, self.left = processor, form, folder, frames, max_bytes
        self._kept: dict[str, tuple[Prompt, Tensor, dict[str, Tensor]]] = {}

    def __call__(self, one: Annotated) -> tuple[Prompt, Tensor, dict[str, Tensor]]:
        """Prompt, prefix tokens [P] and media tensors."""
        if one.query.id in self._kept:
            return self._kept[one.query.id]
        prompt = prompts.of_query(one.query, self.folder, self.frames)
        found = prompt, *reward.encode_prompt(self.processor, self.form, prompt)
        size = sum(tensor.nbytes for tensor in (found[1], *found[2].values()))
        if size <= self.left:
            self._kept[one.query.id] = found
            self.left -= size
        return found


def lookups(critiques: Iterable[str]) -> Counter:
    """How many claims critiques look up with the verdict `right`, and with `wrong`."""
    return Counter(verdict for text in critiques for verdict in _LOOKUP.findall(text))


def balanced_shares(critiques: Iterable[str], balance: float) -> dict[str, float]:
    """The share of the claims of each verdict that enter the loss: 1 for the rarer, less for the other.

    With `balance` 0 all do; with 1 as many right as wrong ones.
    """
    found = lookups(critiques)
    fewest = min(found["right"], found["wrong"])
    return {verdict: 1 - balance * (1 - fewest / max(found[verdict], 1)) for verdict in ("right", "wrong")}


def thinned(processor: hf.ProcessorMixin, critique: str, shares: dict[str, float], name: str) -> Tensor:
    """Which tokens of a critique enter the loss, [tokens]: not those of claims drawn to be left out, by `name`."""
    given = {"add_special_tokens": False, "split_special_tokens": True, "return_offsets_mapping": True}
    ends = torch.tensor([end for _, end in processor.tokenizer(critique, **given).offset_mapping])
    kept, rng = torch.ones(len(ends), dtype=torch.bool), Random(f"claims {name}")
    for claim in _LOOKUP.finditer(critique):
        if rng.random() >= shares[claim[1]]:
            kept &= (ends <= claim.start()) | (ends > claim.end())
    return kept


class RewardExamples(torch.utils.data.Dataset):
    """Annotated queries as examples of one arm, encoded when asked for."""

    def __init__(
        self, data: Sequence[Annotated], arm: str, asked: PromptCache, balance: float = 0.0, seed: int = 0,
    ) -> None:  # fmt: skip
        if arm not in CRITIQUE_ARMS:
            raise ValueError(f"No arm {arm!r}. Give one of {', '.join(CRITIQUE_ARMS)}.")
        self.data, self.arm, self.asked, self.seed = data, arm, asked, seed
        taught = [text for one in data for text in self._taught(one).values() if text]
        if arm != NONE and not taught:
            raise ValueError(f"None of the {len(data)} queries has {arm} reasons; leave the arm {arm!r} out.")
        self.shares = balanced_shares(taught, balance)
        self._encoded: dict[int, tuple[list[Tensor], list[Tensor]]] = {}  # responses are short; pictures `asked` keeps

    def _taught(self, one: Annotated) -> dict[str, str | None]:
        """The critique that each different text of a query is taught; None for none."""
        reasons = one.reasons(self.arm) if self.arm != NONE else {}
        found: dict[str, str | None] = {}
        for name, text in one.responses.items():
            found[text] = found.get(text) or reasons.get(name, "").strip() or None
        return found

    def __len__(self) -> int:
        return len(self.data)

    def _branches(self, number: int, prompt: Prompt) -> tuple[list[Tensor], list[Tensor]]:
        """Tokens of the query's different responses with their critiques, and which of them enter the loss."""
        if number not in self._encoded:
            one, processor, form = self.data[number], self.asked.processor, self.asked.form
            taught = self._taught(one)
            branches, counted = reward.encode_branches(processor, form, prompt, list(taught), list(taught.values()))
            for counts, (text, critique) in zip(counted, taught.items(), strict=True):
                if critique:
                    kept = thinned(processor, critique, self.shares, f"{self.seed} {one.query.id} {text}")
                    first = int(counts.nonzero()[0])
                    counts[first : first + len(kept)] &= kept
            self._encoded[number] = branches, counted
        return self._encoded[number]

    def __getitem__(self, number: int) -> RankedExample:
        one = self.data[number]
        prompt, prefix, media = self.asked(one)
        branches, counted = self._branches(number, prompt)
        texts = list(self._taught(one))
        at = {name: texts.index(text) for name, text in one.responses.items()}
        pairs = [(at[pair.chosen], at[pair.rejected]) for pair in one.pairs]
        ties = tuple(dict.fromkeys((at[a], at[b]) for a, b in one.ties))
        return RankedExample(one.query.id, RankedQuery(prefix, media, branches, pairs, counted), ties=ties)


# ---------------------------------------------------------------- shown


def pieces(processor: hf.ProcessorMixin, form: Form, query: RankedQuery) -> list[list[tuple[str, str]]]:
    """The prompt, then each response, decoded back to (text, kind): "" for plain, "loss", or "score" where it is read.

    Equal neighbours are given once with their number.
    """
    tree = build_tree([query])
    scored = set(reward.score_places(tree.targets, tree.response_of, tree.places, tree.n_responses, form).tolist())
    parts, start = [], 0
    counted = [torch.zeros(len(query.prefix), dtype=torch.bool), *query.counted]
    for tokens, counts in zip([query.prefix, *query.responses], counted, strict=True):
        kinds = ["score" if start + n in scored else "loss" if count else "" for n, count in enumerate(counts.tolist())]
        found = []
        for (token, kind), group in groupby(zip(tokens.tolist(), kinds, strict=True)):
            number = len(list(group))
            found.append((processor.tokenizer.decode([token]) + (f"×{number} " if number > 1 else ""), kind))
        parts.append(found)
        start += len(tokens)
    return parts


def marked(processor: hf.ProcessorMixin, form: Form, query: RankedQuery) -> str:
    """`pieces` as HTML: tokens of the critique's loss on a coloured ground, the token whose state is scored framed."""
    style = {"": "", "loss": "background:#ffe2a8", "score": "background:#ffe2a8;outline:2px solid #0b6e6e"}
    lines = []
    for part in pieces(processor, form, query):
        spans = (f"<span style='{style[kind]}'>{escape(text)}</span>" for text, kind in part)
        lines.append(f"<p style='font-family:monospace;white-space:pre-wrap;margin:.4em 0'>{''.join(spans)}</p>")
    return "".join(lines)
