"""Preference pairs as the files that other trainers load as they are: TRL, ms-swift, LLaMA-Factory.

All three take one row per pair. Media paths are written below the folder they are given, so a file can be loaded from
any working directory when that folder is absolute.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmrlhf_core.data import published, storage
from mmrlhf_core.data.records import Pair, Query, Response

Joined = Iterator[tuple[Query, str, str]]


def _joined(queries: Iterable[Query], responses: Iterable[Response], pairs: Iterable[Pair]) -> Joined:
    """(query, better text, worse text) of every pair."""
    asked, said = {query.id: query for query in queries}, {response.id: response.text for response in responses}
    for pair in pairs:
        yield asked[pair.query], said[pair.chosen], said[pair.rejected]


def _below(folder: str | Path, query: Query) -> list[str]:
    """The media of a query as paths below `folder`."""
    return [(Path(folder) / path).as_posix() for path in query.media]


def write_lines(target: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """JSON Lines as the published files have them: UTF-8, no escapes, one row per line."""
    with storage.writing(target) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


# ---------------------------------------------------------------- TRL


def _message(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


_CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_CHAT_FEATURE = {
    "feature": {"role": {"dtype": "string", "_type": "Value"}, "content": {"dtype": "string", "_type": "Value"}},
    "_type": "List",
}
_TRL = pa.schema(
    [
        ("prompt", _CHAT),
        ("chosen", _CHAT),
        ("rejected", _CHAT),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
    ],
    {  # what makes `datasets.load_dataset("parquet", ...)` open the pictures
        "huggingface": json.dumps(
            {
                "info": {
                    "features": {
                        **dict.fromkeys(("prompt", "chosen", "rejected"), _CHAT_FEATURE),
                        "images": {"feature": {"_type": "Image"}, "_type": "List"},
                    }
                }
            }
        )
    },
)


def write_trl(
    target: str | Path,
    queries: Sequence[Query],
    responses: Sequence[Response],
    pairs: Sequence[Pair],
    folder: str | Path,
) -> None:
    """Parquet for `trl.DPOTrainer`: conversations `prompt`, `chosen`, `rejected`, and `images` that open themselves.

    TRL knows no clips: their frames are written as pictures.
    """
    rows = [
        {
            "prompt": _message("user", query.prompt),
            "chosen": _message("assistant", better),
            "rejected": _message("assistant", worse),
            "images": [{"bytes": None, "path": path} for path in _below(folder, query)],
        }
        for query, better, worse in _joined(queries, responses, pairs)
    ]
    with storage.writing(target) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, _TRL), temporary, compression="zstd")


# ---------------------------------------------------------------- ms-swift and LLaMA-Factory


def _marked(query: Query) -> str:
    """The prompt with one mark per picture, or one for a clip, in front."""
    marks = "<video>" if query.modality == "video" else "<image>" * len(query.media)
    return marks + query.prompt


def swift_rows(
    queries: Iterable[Query], responses: Iterable[Response], pairs: Iterable[Pair], folder: str | Path
) -> Iterator[dict[str, Any]]:
    """Rows for `swift rlhf --rlhf_type dpo`: `messages` ends with the better answer; a clip is its folder of frames."""
    for query, better, worse in _joined(queries, responses, pairs):
        messages = _message("user", _marked(query)) + _message("assistant", better)
        row: dict[str, Any] = {"messages": messages, "rejected_response": worse}
        paths = _below(folder, query)
        if query.modality == "video":
            row["videos"] = [str(Path(paths[0]).parent)]
        elif paths:
            row["images"] = paths
        yield row


LLAMA_FACTORY = {  # one entry of dataset_info.json
    "formatting": "sharegpt",
    "ranking": True,
    "columns": {
        "messages": "conversations",
        "chosen": "chosen",
        "rejected": "rejected",
        "images": "images",
        "videos": "videos",
    },
}


def llama_factory_rows(
    queries: Iterable[Query], responses: Iterable[Response], pairs: Iterable[Pair], folder: str | Path
) -> Iterator[dict[str, Any]]:
    """Rows for LLaMA-Factory's `sharegpt` form with `ranking`; a clip is a list of frames."""
    for query, better, worse in _joined(queries, responses, pairs):
        clip, paths = query.modality == "video", _below(folder, query)
        yield {
            "conversations": [{"from": "human", "value": _marked(query)}],
            "chosen": {"from": "gpt", "value": better},
            "rejected": {"from": "gpt", "value": worse},
            "images": [] if clip else paths,
            "videos": [paths] if clip else [],
        }


def write_all(
    target: str | Path,
    queries: Sequence[Query],
    responses: Sequence[Response],
    pairs: Sequence[Pair],
    folder: str | Path,
) -> None:
    """A folder with the pairs in every form: the published one, TRL, ms-swift, LLaMA-Factory with its index."""
    rows = (queries, responses, pairs)
    with storage.writing(target) as temporary:
        temporary.mkdir()
        write_lines(temporary / "dpo_pairs.jsonl", published.lines(*rows))
        write_trl(temporary / "trl.parquet", *rows, folder)
        write_lines(temporary / "swift.jsonl", swift_rows(*rows, folder))
        write_lines(temporary / "llama_factory.jsonl", llama_factory_rows(*rows, folder))
        index = {"mm_rlhf": {"file_name": "llama_factory.jsonl", **LLAMA_FACTORY}}
        storage.write_json(temporary / "dataset_info.json", index)
