"""The published preference files, read as queries, responses and pairs.

A published row is one pair: `id`, `prompt`, `chosen`, `rejected`, their reasons, and `image`, `images` (several) or
`video` (a folder of frames). Rows with the same id, media and prompt are one query; its distinct texts are its
responses, its rows a preference graph. The class of a question is the first component of its media path.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmrlhf_core.data import media, records, rows, storage
from mmrlhf_core.data.records import Pair, Query, Reject, Response
from mmrlhf_core.data.rows import BadRow, SourceError

MM_RLHF = ("id", "image", "images", "video", "prompt", "chosen", "rejected", "chosen_reason", "rejected_reason")
FRAMES = "*"  # placeholder for the frames of a clip when no media folder is given
_SHARED = re.compile(r" @\d+$")  # suffix of a second query with the same published id
_REQUIRED = ("id", "prompt", "chosen", "rejected")
_OPTIONAL = ("chosen_reason", "rejected_reason")
_MEDIA = {"image": str, "images": list, "video": str}


@dataclass(frozen=True)
class Published:
    """The content of one file: pairs in the order of its rows, and the rows that cannot be used."""

    queries: tuple[Query, ...]
    responses: tuple[Response, ...]
    pairs: tuple[Pair, ...]
    rejects: tuple[Reject, ...]
    rows: int
    unread: dict[str, int]  # keys that are not part of the format, and how many rows have them


# ---------------------------------------------------------------- one row


_Usable = dict[str, Any]  # a row that has what a pair needs; its "media" is ("image" or "images" or "video", path, ...)


def _row(row: Any) -> _Usable:
    """The row, or BadRow. A reason or a kind of media that is absent, null or empty does not count."""
    if type(row) is not dict:
        raise row if type(row) is BadRow else BadRow(f"wrong type: the row is {type(row).__name__}")
    usable: _Usable = {key: _text(row, key) for key in (*_REQUIRED, *_OPTIONAL)} | {"media": _media(row)}
    if usable["chosen"] == usable["rejected"]:
        raise BadRow("no preference: chosen and rejected are the same text")
    if _SHARED.search(usable["id"]):
        raise BadRow(f"reserved id: {usable['id']!r} has the ending ' @<number>', which marks repeated ids")
    return usable


def _text(row: dict[str, Any], key: str) -> str:
    """The text under a key; an optional one may be absent or null."""
    value = row.get(key)
    if value is None and key in _OPTIONAL:
        return ""
    if type(value) is not str:
        raise BadRow(f"wrong type: {key} is {type(value).__name__}" if key in row else f"no {key}")
    if key in ("id", "prompt") and not value.strip():  # a blank response is a bad one, but a response
        raise BadRow(f"empty: {key}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"not text: {key} holds half of a Unicode pair") from error
    return value


def _media(row: dict[str, Any]) -> tuple[str, ...]:
    """("image" or "images" or "video", path, ...) of a row."""
    used = [key for key in _MEDIA if row.get(key) not in (None, "", [])]
    if len(used) != 1:
        raise BadRow(f"two kinds of media: {', '.join(used)}" if used else "no media: neither image nor video")
    key, value = used[0], row[used[0]]
    if type(value) is not _MEDIA[key]:
        raise BadRow(f"wrong type: {key} is {type(value).__name__}, not {_MEDIA[key].__name__}")
    paths = value if key == "images" else [value]
    if not all(type(path) is str and path for path in paths):
        raise BadRow(f"wrong type: {key} holds something that is no path")
    return key, *(path.rstrip("/") if key == "video" else path for path in paths)


def _usable(
    items: Iterable[tuple[int, Any]], rejects: dict[int, str], unread: Counter[str]
) -> Iterator[tuple[int, _Usable]]:
    """The rows that are usable in themselves; the others go to `rejects`, unknown keys to `unread`."""
    for number, item in items:
        try:
            row = _row(item)
        except BadRow as bad:
            rejects[number] = str(bad)
            continue
        unread.update(item.keys() - set(MM_RLHF))
        yield number, row


# ---------------------------------------------------------------- media


def _look(folder: Path | None, named: tuple[str, ...]) -> tuple[tuple[str, ...], str] | str:
    """(paths in the media folder, name of the picture group) of a row's media, or why they cannot be used.

    Without a folder the paths are those of the row, and the group is named after them.
    """
    kind, *paths = named
    if folder is None:
        return (f"{paths[0]}/{FRAMES}",) if kind == "video" else tuple(paths), " ".join(paths)
    try:
        paths = media.frames(folder, paths[0]) if kind == "video" else paths
        pictures = [media.stored(folder, path) for path in paths]
    except media.MediaError as error:
        return str(error)
    digests = " ".join(picture.digest for picture in pictures)
    return tuple(picture.path for picture in pictures), storage.sha256_bytes(digests.encode())[:16]


# ---------------------------------------------------------------- gathering


class _Gathering:
    """Queries, responses and pairs as the rows come in."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.queries: dict[tuple[str, ...], Query] = {}
        self.responses: dict[tuple[str, str], Response] = {}
        self.pairs: dict[tuple[str, str], Pair] = {}
        self.counts: Counter[tuple[str, str]] = Counter()  # queries of a published id, responses of a query

    def query(self, row: _Usable, paths: tuple[str, ...], group: str) -> str:
        """The id of a row's query; a published id that asks something else gets a second name."""
        key = (row["id"], row["prompt"], *row["media"])
        if key not in self.queries:
            use = self.counts["queries", row["id"]] + 1
            name, category = row["id"] if use == 1 else f"{row['id']} @{use}", paths[0].partition("/")[0]
            category = category if category in records.CATEGORIES else ""
            query = Query(name, row["prompt"], row["media"][0], paths, category, source=self.source, group=group)
            self.queries[key], self.counts["queries", row["id"]] = query, use
        return self.queries[key].id

    def response(self, query: str, text: str) -> str:
        """The id of a text of this query."""
        if (query, text) not in self.responses:
            self.counts["responses", query] += 1
            name = f"{query}/{self.counts['responses', query]}"
            self.responses[query, text] = Response(name, query, self.source, text)
        return self.responses[query, text].id

    def add(self, row: _Usable, paths: tuple[str, ...], group: str) -> None:
        """One more pair, or BadRow when an earlier row has it."""
        query = self.query(row, paths, group)
        chosen, rejected = self.response(query, row["chosen"]), self.response(query, row["rejected"])
        if (chosen, rejected) in self.pairs:
            raise BadRow(f"repeated pair: an earlier row prefers {chosen!r} to {rejected!r}")
        self.pairs[chosen, rejected] = Pair(
            query, chosen, rejected, row["chosen_reason"], row["rejected_reason"], origin="published"
        )  # fmt: skip


def read(file: str | Path, folder: str | Path | None = None, max_reject_share: float = 0.01) -> Published:
    """The pairs of a published file as queries, responses and a preference graph.

    With the media `folder` every picture and frame is decoded and grouped by content; without it media are taken by
    name only. More unusable rows than `max_reject_share` are an error.
    """
    file, base = storage.path(file), None if folder is None else storage.path(folder).resolve()
    if base is not None and not base.is_dir():
        raise SourceError(f"The media folder {base} is not there; create or mount it, or read without it.")
    rejects: dict[int, str] = {}
    unread: Counter[str] = Counter()
    usable = list(_usable(rows.read(file), rejects, unread))
    named = dict.fromkeys(row["media"] for _, row in usable)
    with media.quiet(), ThreadPoolExecutor(2) as workers:
        each = map if base is None else workers.map
        seen = dict(zip(named, each(partial(_look, base), named), strict=True))
    gathering = _Gathering(file.stem)
    for number, row in usable:
        look = seen[row["media"]]
        try:
            if isinstance(look, str):
                raise BadRow(look)
            gathering.add(row, *look)
        except BadRow as bad:
            rejects[number] = str(bad)
        except records.RecordError as error:
            rejects[number] = f"unfit value: {error}"
    return _finished(file, gathering, rejects, unread, max_reject_share)


def _finished(
    file: Path, gathering: _Gathering, rejects: dict[int, str], unread: Counter[str], max_reject_share: float
) -> Published:
    """The result of reading a file; too many unusable rows are an error."""
    pairs, total = tuple(gathering.pairs.values()), len(gathering.pairs) + len(rejects)
    if not total:
        raise SourceError(f"{file} holds no rows. Check the file.")
    if len(rejects) > max_reject_share * total:
        kinds = Counter(reason.split(":")[0] for reason in rejects.values()).most_common(3)
        mostly = ", ".join(f"{kind} ({count})" for kind, count in kinds)
        raise SourceError(
            f"{file.name}: {len(rejects)} of {total} rows are unusable, over the allowed share of "
            f"{max_reject_share:g}: {mostly}. Repair the file or raise the share."
        )
    return Published(
        tuple(gathering.queries.values()),
        tuple(gathering.responses.values()),
        pairs,
        tuple(Reject(file.stem, file.name, number, reason[:300]) for number, reason in sorted(rejects.items())),
        total,
        dict(sorted(unread.items())),
    )


def original_id(query: str) -> str:
    """The id a query has in a published file."""
    return _SHARED.sub("", query)
