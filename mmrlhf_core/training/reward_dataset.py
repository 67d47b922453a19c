"""What the reward trainer reads: annotated queries as examples, each response with the critique it is trained on."""

from collections.abc import Callable, Sequence
from pathlib import Path

import transformers as hf
from torch import Tensor

from mmrlhf_core.data.annotated import REASON_KINDS, Annotated
from mmrlhf_core.models import prompts, reward
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.models.reward import Form
from mmrlhf_core.ranked.batch import RankedQuery
from mmrlhf_core.training.base import check_choice
from mmrlhf_core.training.dataset import RankedExample

NONE = "none"
CRITIQUE_KINDS = (NONE, *REASON_KINDS)


class PromptCache:
    """Encodes the prompts of queries with their media, and keeps up to `max_bytes` of them for later runs."""

    def __init__(
        self, processor: hf.ProcessorMixin, form: Form, folder: str | Path, frames: int, max_bytes: int = 2**30
    ) -> None:
        self.processor, self.form, self.folder, self.frames, self.left = processor, form, folder, frames, max_bytes
        self._kept: dict[str, tuple[Prompt, Tensor, dict[str, Tensor]]] = {}

    def __call__(self, annotated: Annotated) -> tuple[Prompt, Tensor, dict[str, Tensor]]:
        """Prompt, prefix tokens [P] and media tensors."""
        query = annotated.query
        if query.id in self._kept:
            return self._kept[query.id]
        prompt = prompts.of_query(query, self.folder, self.frames)
        prefix, media = reward.encode_prompt(self.processor, self.form, prompt)
        size = sum(tensor.nbytes for tensor in (prefix, *media.values()))
        if size <= self.left:
            self._kept[query.id] = prompt, prefix, media
            self.left -= size
        return prompt, prefix, media


def taught(annotated: Annotated, critiques: str) -> dict[str, str | None]:
    """The critique that each different response text of a query is trained on; None for none."""
    reasons = annotated.reasons(critiques) if critiques != NONE else {}
    critique_of: dict[str, str | None] = {}
    for name, text in annotated.responses.items():
        critique_of[text] = critique_of.get(text) or reasons.get(name, "").strip() or None
    return critique_of


class RewardExamples:
    """Annotated queries as examples with one kind of critiques, encoded on access.

    `in_loss(query id, response, critique)` returns which tokens of the critique enter its loss, bool [tokens].
    """

    def __init__(
        self, data: Sequence[Annotated], critiques: str, encode_prompt: PromptCache,
        in_loss: Callable[[str, str, str], Tensor] | None = None,
    ) -> None:  # fmt: skip
        check_choice("critiques", critiques, CRITIQUE_KINDS)
        self.data, self.critiques, self.encode_prompt, self.in_loss = data, critiques, encode_prompt, in_loss
        if critiques != NONE and not any(any(taught(annotated, critiques).values()) for annotated in data):
            raise ValueError(f"None of the {len(data)} queries has {critiques} reasons; choose other critiques.")
        self._encoded: dict[int, tuple[list[Tensor], list[Tensor]]] = {}  # text is short; prompts have their own cache

    def __len__(self) -> int:
        return len(self.data)

    def _branches(self, number: int, prompt: Prompt) -> tuple[list[Tensor], list[Tensor]]:
        """Tokens of the query's different responses with their critiques, and which of them enter the loss."""
        if number not in self._encoded:
            annotated, critique_of = self.data[number], taught(self.data[number], self.critiques)
            branches, counted = reward.encode_branches(
                self.encode_prompt.processor, self.encode_prompt.form, prompt, list(critique_of),
                list(critique_of.values()),
            )  # fmt: skip
            for counts, (text, critique) in zip(counted, critique_of.items(), strict=True):
                if critique and self.in_loss:
                    kept = self.in_loss(annotated.query.id, text, critique)
                    first = int(counts.nonzero()[0])
                    counts[first : first + len(kept)] &= kept
            self._encoded[number] = branches, counted
        return self._encoded[number]

    def __getitem__(self, number: int) -> RankedExample:
        annotated = self.data[number]
        prompt, prefix, media = self.encode_prompt(annotated)
        branches, counted = self._branches(number, prompt)
        texts = list(taught(annotated, self.critiques))
        branch_of = {name: texts.index(text) for name, text in annotated.responses.items()}
        pairs = [(branch_of[pair.chosen], branch_of[pair.rejected]) for pair in annotated.pairs]
        ties = tuple(dict.fromkeys((branch_of[a], branch_of[b]) for a, b in annotated.ties))
        return RankedExample(annotated.query.id, RankedQuery(prefix, media, branches, pairs, counted), ties=ties)
