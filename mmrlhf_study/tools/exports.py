"""Preference pairs as files that other trainers load as they are: TRL, ms-swift, LLaMA-Factory.

Every file has one row per pair. Media paths are written below the given folder; when that folder is absolute, the files
load from any working directory. `datasets` takes the columns and types of a JSON Lines file from its first 10 MB: the
first row of each kind of media therefore leads, and all other rows keep their order.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmrlhf_core.data import published, storage
from mmrlhf_core.data.published import MM_RLHF
from mmrlhf_core.data.records import Pair, Query, Response

_MARK = re.compile("<(image|video|audio)>")


def _kinds_first(queries: Iterable[Query], pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with the first one of each kind of media in front."""
    kind, first = {query.id: query.modality for query in queries}, {}
    for place, pair in enumerate(pairs):
        first.setdefault(kind[pair.query], place)
    leading = set(first.values())
    return [pairs[i] for i in first.values()] + [pair for i, pair in enumerate(pairs) if i not in leading]


def _plain(text: str) -> str:
    """The text with `< image >` for a literal `<image>`, because these marks have no escape.

    LLaMA-Factory refuses a row whose texts hold more marks than the row has media. ms-swift puts media in the place of
    the first marks and passes the others on; processors such as LLaVA's take each of them for a picture.
    """
    return _MARK.sub(r"< \1 >", text)


def _joined(
    queries: Sequence[Query], responses: Iterable[Response], pairs: Sequence[Pair], folder: str | Path
) -> Iterator[tuple[Query, list[str], str, str, str]]:
    """(query, media paths, prompt, better text, worse text) of every pair, the texts without marks."""
    by_id, text = {query.id: query for query in queries}, {response.id: response.text for response in responses}
    for pair in _kinds_first(queries, pairs):
        query = by_id[pair.query]
        paths = [(Path(folder) / path).as_posix() for path in query.media]
        yield query, paths, *map(_plain, (query.prompt, text[pair.chosen], text[pair.rejected]))


def published_rows(
    queries: Iterable[Query], responses: Iterable[Response], pairs: Iterable[Pair], keys: Sequence[str] = MM_RLHF
) -> Iterator[dict[str, Any]]:
    """The rows of a published file, one per pair, with the keys in the order `keys`."""
    by_id, text = {query.id: query for query in queries}, {response.id: response.text for response in responses}
    for pair in pairs:
        query = by_id[pair.query]
        paths = list(query.media)
        shown: str | list[str] = paths if query.modality == "images" else "".join(paths[:1])
        if query.modality == "video":
            shown = str(Path(paths[0]).parent)
        values = {
            "id": published.original_id(query.id),
            "prompt": query.prompt,
            "chosen": text[pair.chosen],
            "rejected": text[pair.rejected],
            "chosen_reason": pair.chosen_reason,
            "rejected_reason": pair.rejected_reason,
            query.modality: shown,
        }
        yield {key: values[key] for key in keys if key in values}


def write_lines(target: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """JSON Lines as the published files have them: UTF-8, no escapes, one row per line."""
    with storage.writing(target) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _message(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


# ---------------------------------------------------------------- TRL

_CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_PICTURES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
_FEATURES = {"images": [{"_type": "Image"}]}  # makes `datasets` open the pictures; this form is read by 3.x and later
_TRL = pa.schema(
    {"prompt": _CHAT, "chosen": _CHAT, "rejected": _CHAT, "images": _PICTURES},
    {"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


def write_trl(
    target: str | Path, queries: Sequence[Query], responses: Iterable[Response], pairs: Sequence[Pair],
    folder: str | Path,
) -> None:  # fmt: skip
    """Parquet for `trl.DPOTrainer`: conversations `prompt`, `chosen`, `rejected`, and `images` that open themselves.

    TRL has no column for clips: their frames are written as pictures.
    """
    rows = [
        {
            "prompt": _message("user", prompt),
            "chosen": _message("assistant", better),
            "rejected": _message("assistant", worse),
            "images": [{"bytes": None, "path": path} for path in paths],
        }
        for _, paths, prompt, better, worse in _joined(queries, responses, pairs, folder)
    ]
    with storage.writing(target) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, _TRL), temporary, compression="zstd")


# ---------------------------------------------------------------- ms-swift and LLaMA-Factory


def _media(query: Query, paths: list[str]) -> tuple[str, dict[str, list]]:
    """(the marks to put before the prompt, the columns `images` and `videos`); a clip is a list of frame files."""
    if query.modality == "video":
        return "<video>", {"images": [], "videos": [paths]}
    return "<image>" * len(paths), {"images": paths, "videos": []}


def swift_rows(
    queries: Sequence[Query], responses: Iterable[Response], pairs: Sequence[Pair], folder: str | Path
) -> Iterator[dict[str, Any]]:
    """Rows for `swift rlhf --rlhf_type dpo`: `messages` ends with the better answer."""
    for query, paths, prompt, better, worse in _joined(queries, responses, pairs, folder):
        marks, media = _media(query, paths)
        messages = _message("user", marks + prompt) + _message("assistant", better)
        yield {"messages": messages, "rejected_response": worse, **media}


LLAMA_FACTORY = {  # one entry of dataset_info.json
    "formatting": "sharegpt",
    "ranking": True,
    "columns": {"messages": "conversations"} | {name: name for name in ("chosen", "rejected", "images", "videos")},
}


def llama_factory_rows(
    queries: Sequence[Query], responses: Iterable[Response], pairs: Sequence[Pair], folder: str | Path
) -> Iterator[dict[str, Any]]:
    """Rows for LLaMA-Factory's `sharegpt` form with `ranking`."""
    for query, paths, prompt, better, worse in _joined(queries, responses, pairs, folder):
        marks, media = _media(query, paths)
        yield {
            "conversations": [{"from": "human", "value": marks + prompt}],
            "chosen": {"from": "gpt", "value": better},
            "rejected": {"from": "gpt", "value": worse},
            **media,
        }


def write_all(
    target: str | Path, queries: Sequence[Query], responses: Sequence[Response], pairs: Sequence[Pair],
    folder: str | Path,
) -> None:  # fmt: skip
    """A folder with the pairs in every form: the published one, TRL, ms-swift, LLaMA-Factory with its index.

    The published form has only the key of the media that a row has, as its readers expect, and its texts as they are.
    """
    rows = (queries, responses, pairs)
    with storage.writing(target) as temporary:
        temporary.mkdir()
        lines = published_rows(queries, responses, _kinds_first(queries, pairs))
        write_lines(temporary / "dpo_pairs.jsonl", lines)
        write_trl(temporary / "trl.parquet", *rows, folder)
        write_lines(temporary / "swift.jsonl", swift_rows(*rows, folder))
        write_lines(temporary / "llama_factory.jsonl", llama_factory_rows(*rows, folder))
        index = {"mm_rlhf": {"file_name": "llama_factory.jsonl", **LLAMA_FACTORY}}
        storage.write_json(temporary / "dataset_info.json", index)
