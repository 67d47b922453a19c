"""What the ranked trainers read: pairs as rows on disk, rows as examples in memory, examples as packed batches.

A pair's way through this module: `ranked_rows`, then `encode` (through `Encoded`), then `collate`.
Shapes: `B` pairs of a batch, `M` responses, `N` response tokens.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
import transformers as hf
from torch import Tensor

from mmrlhf_core.data import annotated, records
from mmrlhf_core.data.records import Pair, Query, Record, RecordError, Response, column
from mmrlhf_core.models import prompts
from mmrlhf_core.objectives import preference
from mmrlhf_core.ranked import batch as ranked
from mmrlhf_core.rollout.score import Margin
from mmrlhf_core.training.reference import ReferenceCache

DATA_PARTS = ("train", "dev", "test")
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
        """A row with the texts that occur in `pairs` (keys of `texts`, better first); without pairs, the first text."""
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


def _deltas(margins: Iterable[Margin]) -> dict[tuple[str, str, str], float]:
    """δ of each (query, better, worse); all margins have to come from one reward model."""
    margins = list(margins)
    if len(models := {margin.model for margin in margins}) > 1:
        names = ", ".join(sorted(model[:12] or "one never saved" for model in models))
        raise ValueError(f"The margins come from {len(models)} reward models ({names}). Score all pairs with one.")
    return {(margin.query, margin.chosen, margin.rejected): margin.reward_margin for margin in margins}


def _check_pair(
    pair: Pair, queries: Mapping[str, Query], responses: Mapping[str, Response], deltas: Mapping[Any, float]
) -> None:
    """Refuse a pair with an unknown query or response, without a margin, or outside the three parts of the data."""
    if pair.query not in queries:
        raise RecordError(f"A pair names query {pair.query!r}, which is not among the queries. Annotate again.")
    for name in (pair.chosen, pair.rejected):
        if name not in responses or responses[name].query != pair.query:
            owner = f"a response to {responses[name].query!r}" if name in responses else "not among the responses"
            raise RecordError(f"A pair of query {pair.query!r} names {name!r}, which is {owner}. Annotate again.")
    if pair.split not in DATA_PARTS:
        raise RecordError(f"A pair of query {pair.query!r} has no split; give each one of {', '.join(DATA_PARTS)}.")
    if (pair.query, pair.chosen, pair.rejected) not in deltas:
        raise ValueError(
            f"The pair of {pair.chosen!r} over {pair.rejected!r} of query {pair.query!r} has no margin. Score all "
            "pairs with the reward model (`rollout.score.margins`)."
        )


def ranked_rows(
    queries: Iterable[Query], responses: Iterable[Response], pairs: Sequence[Pair], margins: Iterable[Margin]
) -> dict[str, list[RankedRow]]:
    """The rows of train, dev and test: each query with all its pairs, in the order of the pairs.

    An unknown query or response, a missing margin, and margins of several reward models are errors.
    """
    query_of, response_of = {query.id: query for query in queries}, {response.id: response for response in responses}
    deltas = _deltas(margins)
    for pair in pairs:
        _check_pair(pair, query_of, response_of, deltas)
    rows: dict[str, list[RankedRow]] = {part: [] for part in DATA_PARTS}
    for name, group in annotated.by_query(pairs).items():
        if len(parts := {pair.split for pair in group}) > 1:
            raise RecordError(f"The pairs of query {name!r} are in {', '.join(sorted(parts))}; put them in one part.")
        texts = {response: response_of[response].text for pair in group for response in (pair.chosen, pair.rejected)}
        names = [(pair.chosen, pair.rejected) for pair in group]
        rows[group[0].split].append(RankedRow.of(query_of[name], texts, names, [deltas[name, *pair] for pair in names]))
    return rows


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
    query = Query(id=row.id, prompt=row.prompt, modality=row.modality, media=row.media)
    prefix, media = ranked.split_inputs(prompts.encode(processor, [prompts.of_query(query, folder, frames)]))
    responses = [ranked.encode_response(processor, text) for text in row.responses]
    return ranked.RankedQuery(prefix, media, responses, list(zip(row.winners, row.losers, strict=True)))


class Examples(Protocol):
    """Ranked examples by number: a list, or a data set that encodes them on access."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> RankedExample: ...


class Encoded:
    """Rows as examples, encoded on access, with the reference's log-probabilities when a cache is given."""

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


class Filled:
    """Examples, filled up to whole optimizer steps with copies that have no pairs and so no weight.

    Every step then holds the same number of queries, whatever the number of processes, and no query counts twice.
    """

    def __init__(self, examples: Examples, step: int) -> None:
        self.examples, self.length = examples, -(-len(examples) // step) * step

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> RankedExample:
        if number < len(self.examples):
            return self.examples[number]
        example = self.examples[number % len(self.examples)]
        counted = [torch.zeros_like(response, dtype=torch.bool) for response in example.query.responses]
        empty = None if example.margins is None else example.margins[:0]
        return replace(example, query=replace(example.query, pairs=[], counted=counted), margins=empty, ties=())


def _pair_weights(query_of_pair: Tensor, counts: Tensor, weighting: str) -> Tensor:
    """Weight 1 for each counted pair, or 1/n where the query has n counted pairs. [B], bool [B] → [B]."""
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
    margins = [example.margins for example in examples if example.margins is not None]
    if len(margins) == len(examples):
        batch["margins"] = torch.cat(margins).float()
        counts = preference.kept(batch["margins"], negative_margin)
    references = [example.reference for example in examples if example.reference is not None]
    if len(references) == len(examples):
        batch["reference"] = torch.cat([tokens for reference in references for tokens in reference])
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
