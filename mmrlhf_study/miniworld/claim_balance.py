"""Balanced verdicts in the critique loss: MiniWorld's critiques look claims up, and one verdict is more frequent.

A model that always writes the frequent verdict does well without looking at the picture. `ClaimBalance` leaves some
claims of the frequent verdict out of the loss (not out of the text).
"""

import re
from collections import Counter
from collections.abc import Iterable
from random import Random

import torch
import transformers as hf
from torch import Tensor

from mmrlhf_core.data.annotated import Annotated
from mmrlhf_core.training import reward_dataset

_LOOKUP = re.compile(r"[^?:.]*\?[^:.]*: (right|wrong) \.")  # `what is there ? claim : verdict .`


def lookups(critiques: Iterable[str]) -> Counter[str]:
    """How many claims the critiques look up with the verdict `right`, and with `wrong`."""
    return Counter(verdict for text in critiques for verdict in _LOOKUP.findall(text))


def balanced_shares(critiques: Iterable[str], balance: float) -> dict[str, float]:
    """The share of the claims of each verdict that enter the loss: 1 for the rarer verdict, less for the other.

    With `balance` 0 all claims enter the loss; with 1 equally many of both verdicts.
    """
    counts = lookups(critiques)
    fewest = min(counts["right"], counts["wrong"])
    return {verdict: 1 - balance * (1 - fewest / max(counts[verdict], 1)) for verdict in ("right", "wrong")}


def thinned(processor: hf.ProcessorMixin, critique: str, shares: dict[str, float], name: str) -> Tensor:
    """Which tokens of a critique enter the loss, bool [tokens]; `name` seeds which claims are left out."""
    settings = {"add_special_tokens": False, "split_special_tokens": True, "return_offsets_mapping": True}
    ends = torch.tensor([end for _, end in processor.tokenizer(critique, **settings).offset_mapping])
    kept, rng = torch.ones(len(ends), dtype=torch.bool), Random(f"claims {name}")
    for claim in _LOOKUP.finditer(critique):
        if rng.random() >= shares[claim[1]]:
            kept &= (ends <= claim.start()) | (ends > claim.end())
    return kept


class ClaimBalance:
    """Which tokens of a critique enter the loss, as `RewardExamples` asks for it; `shares` by verdict."""

    def __init__(
        self, processor: hf.ProcessorMixin, data: Iterable[Annotated], critiques: str, balance: float, seed: int
    ) -> None:
        self.processor, self.seed = processor, seed
        texts = (text for annotated in data for text in reward_dataset.taught(annotated, critiques).values() if text)
        self.shares = balanced_shares(texts, balance)

    def __call__(self, query: str, response: str, critique: str) -> Tensor:
        return thinned(self.processor, critique, self.shares, f"{self.seed} {query} {response}")
