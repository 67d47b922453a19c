"""What the ranked trainers read: rows on disk, examples in memory, batches as packed trees.

Shapes: `B` pairs of a batch, `M` responses, `N` response tokens.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers as hf
from torch import Tensor

from mmrlhf_core.data import records
from mmrlhf_core.data.records import Record, column
from mmrlhf_core.models import prompts
from mmrlhf_core.objectives import preference
from mmrlhf_core.ranked import batch as ranked
from mmrlhf_core.training.reference import ReferenceCache

PAIR_WEIGHTING = ("pair", "query")


@dataclass(frozen=True, slots=True)
class RankedRow(Record):
    """One query with its ranked responses."""

    VERSION: ClassVar[int] = 1

    id: str = column("id of the query, used once in a file", filled=True)
    prompt: str = column("the question as it was asked, without picture marks", filled=True)
    modality: str = column("what the question is about", allowed=records.MODALITIES)
    media: tuple[str, ...] = column("pictures, or the frames of a clip in order, inside the media folder")
    responses: tuple[str, ...] = column("texts of the responses")
    winners: tuple[int, ...] = column("for each pair, number of the better response")
    losers: tuple[int, ...] = column("for each pair, number of the worse response")
    margins: tuple[float, ...] = column("for each pair, the reward model's margin δ; empty when nothing scored it", ())

    @classmethod
    def of(
        cls, query: records.Query, texts: Mapping[Any, str], pairs: Sequence[tuple[Any, Any]],
        margins: Sequence[float] = (),
    ) -> "RankedRow":  # fmt: skip
        """A query with those of its `texts` (by any key) that are in some (better, worse) pair; if none is, the first.

        `margins` holds a δ for each pair, or nothing.
        """
        used = list(dict.fromkeys(key for pair in pairs for key in pair)) or list(texts)[:1]
        place = {key: number for number, key in enumerate(used)}
        responses = tuple(texts[key] for key in used)
        winners, losers = tuple(place[better] for better, _ in pairs), tuple(place[worse] for _, worse in pairs)
        return cls(query.id, query.prompt, query.modality, query.media, responses, winners, losers, tuple(margins))

    def _check(self) -> None:
        if len(self.winners) != len(self.losers) or len(self.margins) not in (0, len(self.winners)):
            counts = f"{len(self.winners)} winners, {len(self.losers)} losers, {len(self.margins)} margins"
            raise self._error("winners", f"of query {self.id!r} does not fit: {counts}; give one of each for a pair")
        for pair in zip(self.winners, self.losers, strict=True):
            for number in pair:
                if not 0 <= number < len(self.responses):
                    known = f"0 to {len(self.responses) - 1}"
                    raise self._error("winners", f"of query {self.id!r} name response {number}; there are {known}")


@dataclass(frozen=True)
class RankedExample:
    """One query ready for a batch. `margins` [pairs]; `reference` K tensors [R_k]; `ties` pairs of equal rank."""

    id: str
    query: ranked.RankedQuery
    margins: Tensor | None = None
    reference: Sequence[Tensor] | None = None
    ties: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.margins is not None and len(self.margins) != len(self.query.pairs):
            raise ValueError(f"Query {self.id!r} has {len(self.query.pairs)} pairs and {len(self.margins)} margins.")
        if self.margins is not None and not self.margins.isfinite().all():
            raise ValueError(
                f"Query {self.id!r} has margins {self.margins.tolist()}. Every δ has to be a finite number; "
                "score the query again or leave it out."
            )


def encode(processor: hf.ProcessorMixin, row: RankedRow, folder: str | Path, frames: int = 8) -> ranked.RankedQuery:
    """The query of a row: one prompt, its media from `folder`, and each response with its end token."""
    asked = records.Query(id=row.id, prompt=row.prompt, modality=row.modality, media=row.media)
    batch = prompts.encode(processor, [prompts.of_query(asked, folder, frames)])
    skip = ("input_ids", "attention_mask", "mm_token_type_ids")
    media = {name: torch.as_tensor(value) for name, value in batch.items() if name not in skip}
    responses = [ranked.encode_response(processor, text) for text in row.responses]
    return ranked.RankedQuery(batch["input_ids"][0], media, responses, list(zip(row.winners, row.losers, strict=True)))


class Encoded(torch.utils.data.Dataset):
    """Rows as examples, encoded when asked for, with the reference's log-probabilities when a cache is given."""

    def __init__(
        self, rows: Sequence[RankedRow], processor: hf.ProcessorMixin, folder: str | Path, frames: int = 8,
        cache: ReferenceCache | None = None,
    ) -> None:  # fmt: skip
        self.rows, self.processor, self.folder, self.frames, self.cache = rows, processor, folder, frames, cache

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> RankedExample:
        row = self.rows[number]
        query = encode(self.processor, row, self.folder, self.frames)
        reference = self.cache.tokens(query, row.id) if self.cache else None
        return RankedExample(row.id, query, torch.tensor(row.margins) if row.margins else None, reference)


class Filled(torch.utils.data.Dataset):
    """Examples, filled up to whole optimizer steps with copies that have no pairs and so no weight.

    Every step then holds the same number of queries, whatever the number of processes, and no query counts twice.
    """

    def __init__(self, examples: Sequence[RankedExample] | torch.utils.data.Dataset, step: int) -> None:
        self.examples, self.length = examples, -(-len(examples) // step) * step

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> RankedExample:
        if number < len(self.examples):
            return self.examples[number]
        one = self.examples[number % len(self.examples)]
        counted = [torch.zeros_like(response, dtype=torch.bool) for response in one.query.responses]
        empty = None if one.margins is None else one.margins[:0]
        return replace(one, query=replace(one.query, pairs=[], counted=counted), margins=empty, ties=())


def _pair_weights(query_of_pair: Tensor, counts: Tensor, weighting: str) -> Tensor:
    """1 for every pair that counts, or one over the query's number of such pairs. [B], bool [B] → [B]."""
    weights = counts.double()
    if weighting == "pair":
        return weights
    same = query_of_pair[:, None] == query_of_pair
    return weights / (same * weights).sum(1).clamp(min=1)


def collate(
    examples: Sequence[RankedExample], weighting: str = "pair", negative_margin: str = "clamp"
) -> dict[str, Any]:
    """One micro-batch: the packed tree, query ids, δ [B], reference [N], ties [n, 2], and the weights that count.

    `weights`: `pair` [B], `critique` [M] (responses with counted tokens), `tie` [n]. Their sums over the whole
    optimizer step and all processes are what losses are divided by.
    """
    tree = ranked.build_tree([example.query for example in examples])
    first = torch.tensor([0, *(len(example.query.responses) for example in examples)]).cumsum(0)
    ties = [torch.tensor(e.ties, dtype=torch.long).reshape(-1, 2) + at for e, at in zip(examples, first, strict=False)]
    batch: dict[str, Any] = {"tree": tree, "ids": [example.id for example in examples], "ties": torch.cat(ties)}
    counts = torch.ones(len(tree.pairs), dtype=torch.bool)
    if all(example.margins is not None for example in examples):
        batch["margins"] = torch.cat([example.margins for example in examples]).float()
        counts = preference.kept(batch["margins"], negative_margin)
    if all(example.reference is not None for example in examples):
        batch["reference"] = torch.cat([tokens for example in examples for tokens in example.reference])
    lengths = torch.zeros(tree.n_responses, dtype=torch.long).index_add(0, tree.response_of, tree.counted.long())
    batch["lengths"] = lengths
    batch["weights"] = {
        "pair": _pair_weights(tree.query_of_pair, counts, weighting),
        "critique": (lengths > 0).double(),
        "tie": torch.ones(len(batch["ties"]), dtype=torch.double),
    }
    return batch


def total(batches: Iterable[dict[str, Any]]) -> Tensor:
    """Sums of the weights over micro-batches: [pair, critique, tie]."""
    return torch.stack([torch.stack([part.sum() for part in batch["weights"].values()]) for batch in batches]).sum(0)


def tower_calls(tree: ranked.Tree) -> int:
    """How often the vision tower runs for a batch: once for its pictures, once for each length of its clips."""
    pictures = any("pixel_values" in media for media in tree.media)
    clips = [media["pixel_values_videos"] for media in tree.media if "pixel_values_videos" in media]
    return pictures + len({clip.shape[1] if clip.dim() == 5 else 0 for clip in clips})
