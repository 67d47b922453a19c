"""The reference's log-probabilities, computed once for each response and cached on disk by content.

The key of an entry covers all that its value depends on: the reference checkpoint's files and precision, the pixels,
and the tokens of prompt and response. Entries are in safetensors files named by their SHA-256; a damaged file is
removed and computed again. Another β, epoch or run needs no forward pass and no reference model in memory.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from transformers import PreTrainedModel

from mmrlhf_core.data import storage
from mmrlhf_core.ranked.batch import RankedQuery, build_tree
from mmrlhf_core.ranked.logps import response_logps

DEFINING = {".safetensors", ".json", ".jinja", ".txt", ".model"}
WRITE_EVERY = 64  # forwards between two files


def identity(checkpoint: str | Path, dtype: torch.dtype = torch.float32) -> str:
    """SHA-256 of a checkpoint folder: weights, configuration, tokenizer, processor settings, and the precision."""
    folder = storage.path(checkpoint)
    files = sorted(file for file in folder.glob("*") if file.suffix in DEFINING)
    if not any(file.suffix == ".safetensors" for file in files):
        raise ValueError(f"{folder} holds no .safetensors weights. Give the folder of a saved model.")
    rows = [f"{file.name} {storage.sha256_file(file)}" for file in files]
    return storage.sha256_bytes("\n".join([str(dtype), *rows]).encode())


def _bytes(tensor: Tensor) -> bytes:
    """Type, shape and content of a tensor as bytes."""
    flat = tensor.detach().cpu().contiguous()
    return f"{flat.dtype} {tuple(flat.shape)} ".encode() + flat.view(-1).view(torch.uint8).numpy().tobytes()


def keys(query: RankedQuery) -> list[str]:
    """One key for each response: SHA-256 over the media, the prompt's tokens and the response's tokens."""
    prompt = hashlib.sha256()
    for name in sorted(query.media):
        prompt.update(name.encode() + b" " + _bytes(query.media[name]))
    prompt.update(b"prefix " + _bytes(query.prefix))
    hashes = []
    for response in query.responses:
        sha = prompt.copy()
        sha.update(b"response " + _bytes(response))
        hashes.append(sha.hexdigest())
    return hashes


class ReferenceCache:
    """Log-probabilities of response tokens under one reference, by content; see the module's text."""

    def __init__(self, folder: str | Path, identity: str) -> None:
        self.identity = identity
        self.folder = storage.path(folder) / identity[:16]
        self.entries: dict[str, Tensor] = {}
        self._new: dict[str, Tensor] = {}
        self.reload()

    def reload(self) -> None:
        """Read every entry on disk; a file whose content is not what its name says is removed with a warning."""
        for file in sorted(self.folder.glob("*.safetensors")):
            content = file.read_bytes()
            try:
                entries = load(content) if storage.sha256_bytes(content) == file.stem else None
            except SafetensorError:
                entries = None
            if entries is None:
                warnings.warn(
                    f"Reference cache file {file.name} is damaged; its entries are computed again.", stacklevel=2
                )
                file.unlink(missing_ok=True)
            else:
                self.entries |= entries

    def missing(self, query: RankedQuery) -> list[int]:
        """Numbers of the responses that have no entry."""
        return [number for number, key in enumerate(keys(query)) if key not in self.entries]

    def add(self, query: RankedQuery, tokens: Sequence[Tensor]) -> None:
        """Take the token log-probabilities of each response of `query`; `write` puts them on disk."""
        for key, values in zip(keys(query), tokens, strict=True):
            self._new[key] = values.detach().cpu().contiguous().clone()
        self.entries |= self._new

    def write(self) -> None:
        """Put what was added since the last call into one new file."""
        if self._new:
            content = save(self._new)
            with storage.writing(self.folder / f"{storage.sha256_bytes(content)}.safetensors") as temporary:
                temporary.write_bytes(content)
            self._new = {}

    def tokens(self, query: RankedQuery, name: str) -> list[Tensor]:
        """log π_ref of every response token, K tensors [R_k]. A missing entry is an error that names the query."""
        if gaps := self.missing(query):
            raise ValueError(
                f"Query {name!r}: no reference log-probabilities for responses {gaps} under reference "
                f"{self.identity[:16]}. The cache holds another model's, or the prompt, picture or responses have "
                "changed. Run reference.fill with this reference first."
            )
        return [self.entries[key] for key in keys(query)]


def _compute(model: PreTrainedModel, group: Sequence[RankedQuery], cache: ReferenceCache) -> None:
    """One forward for `group`; its entries go into `cache`."""
    tree = build_tree(group).to(next(model.parameters()).device)
    with torch.no_grad():
        tokens = response_logps(model, tree).tokens
    parts = iter(tokens.split([len(response) for query in group for response in query.responses]))
    for query in group:
        cache.add(query, [next(parts) for _ in query.responses])


def _part(query: RankedQuery, numbers: Sequence[int]) -> RankedQuery:
    """The query with these of its responses."""
    return replace(query, responses=[query.responses[number] for number in numbers], pairs=[], counted=None)


def fill(
    cache: ReferenceCache, queries: Iterable[RankedQuery], load_model: Callable[[], PreTrainedModel], budget: int = 8192
) -> int:
    """Compute what `cache` lacks for `queries` and write it; returns the number of forwards.

    `load_model` gives the prepared reference and is called only when something is missing. `queries` is read as a
    stream; neighbours share a forward of up to `budget` tokens, and a larger query has one of its own.
    """
    model: PreTrainedModel | None = None
    group: list[RankedQuery] = []
    forwards = 0
    for query in chain(queries, [None]):
        gaps = cache.missing(query) if query else []
        part = _part(query, gaps) if query and gaps else None
        full = part and sum(waiting.size for waiting in group) + part.size > budget
        if group and (full or query is None):
            model = model or load_model().eval()
            _compute(model, group, cache)
            group, forwards = [], forwards + 1
            if forwards % WRITE_EVERY == 0:
                cache.write()
        if part:
            group.append(part)
    cache.write()
    return forwards
