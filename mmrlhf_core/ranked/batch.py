"""A query with K ranked responses as one packed sequence: every prefix once, followed by its responses.

Shapes: `T` packed tokens, `P` tokens of one prefix, `R` tokens of one response, `N` response tokens of the batch,
`M` responses of the batch, `E` preference pairs of the batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from transformers import ProcessorMixin

from mmrlhf_core.models import prompts


@dataclass(frozen=True)
class RankedQuery:
    """One prompt with its media, K responses, and the ordered pairs between them.

    prefix: [P] token ids, media placeholders expanded, up to and including the generation prompt.
    media: processor tensors of the pictures and clips (`pixel_values`, grids, sizes); empty for text.
    responses: K tensors [R_k] of token ids, each with its end token.
    pairs: (winner, loser) indices into `responses`; any graph, also empty.
    counted: K masks [R_k], true where a token enters the sums; None counts every token.
    """

    prefix: Tensor
    media: dict[str, Tensor]
    responses: list[Tensor]
    pairs: list[tuple[int, int]]
    counted: list[Tensor] | None = None

    def __post_init__(self) -> None:
        if not len(self.prefix) or not self.responses or not all(len(response) for response in self.responses):
            raise ValueError(
                f"A query needs a prefix and at least one response, none of them empty; got {len(self.prefix)} prefix "
                f"tokens and responses of {[len(response) for response in self.responses]} tokens."
            )
        for pair in self.pairs:
            if len(set(pair)) != 2 or not all(0 <= index < len(self.responses) for index in pair):
                raise ValueError(f"Pair {pair} must name two different responses out of 0..{len(self.responses) - 1}.")
        if self.counted is not None and [len(m) for m in self.counted] != [len(r) for r in self.responses]:
            raise ValueError("`counted` needs one mask per response, of the same length as the response.")

    @property
    def size(self) -> int:
        """Tokens of the query in a tree: P + R_1 + … + R_K."""
        return len(self.prefix) + sum(len(response) for response in self.responses)


def split_inputs(inputs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Token ids [P] and media tensors of processor inputs for one prompt (`prompts.encode`)."""
    skip = ("input_ids", "attention_mask", "mm_token_type_ids")
    return inputs["input_ids"][0], {key: torch.as_tensor(value) for key, value in inputs.items() if key not in skip}


def encode_response(processor: ProcessorMixin, text: str) -> Tensor:
    """Token ids [R] of a response and the end token. Text that looks like a special token stays text."""
    return torch.tensor(prompts.answer_ids(processor, text))


@dataclass(frozen=True)
class Tree:
    """A packed batch. Every index tensor below points into the packed sequence or into the list of responses.

    ids [T]; query_of [T] (−1: padding); branch_of [T] (0: prefix, k: k-th response);
    offset [T] position in the prefix, or in the response;
    state_index [N] position of the state that predicts a response token; targets [N] that token;
    response_of [N] the response it belongs to; counted [N] whether it enters the sums;
    ends [M] position of each response's last token; query_of_response [M];
    pairs [E, 2] (winner, loser) responses; query_of_pair [E].
    prefix_lengths, response_lengths: the same structure as plain numbers. media: one dictionary per query.
    """

    ids: Tensor
    query_of: Tensor
    branch_of: Tensor
    offset: Tensor
    state_index: Tensor
    targets: Tensor
    response_of: Tensor
    counted: Tensor
    ends: Tensor
    query_of_response: Tensor
    pairs: Tensor
    query_of_pair: Tensor
    prefix_lengths: tuple[int, ...]
    response_lengths: tuple[tuple[int, ...], ...]
    media: tuple[dict[str, Tensor], ...]

    @property
    def n_responses(self) -> int:
        """M, the responses of all queries together."""
        return len(self.ends)

    @property
    def places(self) -> Tensor:
        """Positions of the response tokens in the packed sequence, [N]."""
        return (self.branch_of > 0).nonzero().flatten()

    @property
    def shared_tokens(self) -> int:
        """Tokens saved, compared with a prefix of its own for each response: Σ (K − 1) P."""
        pairs = zip(self.prefix_lengths, self.response_lengths, strict=True)
        return sum((len(lengths) - 1) * prefix for prefix, lengths in pairs)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Tree":
        """The same batch with every tensor on `device`."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self) if field.type is Tensor}
        moved = {name: tensor.to(device, non_blocking=non_blocking) for name, tensor in tensors.items()}
        media = tuple({k: v.to(device, non_blocking=non_blocking) for k, v in one.items()} for one in self.media)
        return replace(self, **moved, media=media)


def _one(query: RankedQuery, number: int, start: int, responses: int) -> dict[str, Tensor]:
    """The tensors of one query that begins at token `start`, with `responses` responses packed before it."""
    lengths = torch.tensor([len(response) for response in query.responses])
    parts = torch.cat([torch.tensor([len(query.prefix)]), lengths])
    first = start + parts.cumsum(0)[:-1]
    offset = torch.cat([torch.arange(part) for part in parts.tolist()])
    branch = torch.repeat_interleave(torch.arange(len(parts)), parts)
    place = start + torch.arange(query.size)
    answer = branch > 0
    prefix_end = start + len(query.prefix) - 1
    counted = query.counted or [torch.ones(len(r), dtype=torch.bool) for r in query.responses]
    return {
        "ids": torch.cat([query.prefix, *query.responses]),
        "query_of": torch.full((query.size,), number),
        "branch_of": branch,
        "offset": offset,
        "state_index": torch.where(offset == 0, prefix_end, place - 1)[answer],
        "targets": torch.cat(query.responses),
        "response_of": responses + branch[answer] - 1,
        "counted": torch.cat(counted),
        "ends": first + lengths - 1,
        "query_of_response": torch.full((len(lengths),), number),
        "pairs": torch.tensor(query.pairs, dtype=torch.long).reshape(-1, 2) + responses,
        "query_of_pair": torch.full((len(query.pairs),), number),
    }


def build_tree(queries: Sequence[RankedQuery], multiple: int = 1) -> Tree:
    """Pack queries into one sequence, padded at the end to a multiple of `multiple` tokens."""
    if not queries:
        raise ValueError("A batch needs at least one query.")
    start, responses, parts = 0, 0, []
    for number, query in enumerate(queries):
        parts.append(_one(query, number, start, responses))
        start, responses = start + query.size, responses + len(query.responses)
    tensors = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    fill = {"ids": 0, "query_of": -1, "branch_of": 0, "offset": 0}
    for key, value in fill.items():
        tensors[key] = torch.nn.functional.pad(tensors[key], (0, -start % multiple), value=value)
    return Tree(
        **tensors,
        prefix_lengths=tuple(len(query.prefix) for query in queries),
        response_lengths=tuple(tuple(len(response) for response in query.responses) for query in queries),
        media=tuple(query.media for query in queries),
    )
