"""The published preference files, both ways, and the files other trainers load.

A published row is one pair: `id`, `prompt`, `chosen`, `rejected`, their reasons, and `image`, `images` (several) or
`video` (a folder of frames). Rows with the same id, media and prompt are one query; its distinct texts are its
responses, its rows a preference graph. The class of a question is the first component of its media path.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrlhf_core.data import media, records, rows, storage
from mmrlhf_core.data.graph import Conflict, conflicts
from mmrlhf_core.data.records import Pair, Query, Reject, Response
from mmrlhf_core.data.rows import BadRow, SourceError

MM_RLHF = ("id", "image", "images", "video", "prompt", "chosen", "rejected", "chosen_reason", "rejected_reason")
VL_REWARD = ("id", "prompt", "chosen", "rejected", "image", "images", "video", "chosen_reason", "rejected_reason")
FRAMES = "*"  # stands for all frames of a clip whose folder has not been looked into
_SHARED = re.compile(r" @\d+$")  # ends the name of the second query of an id that two queries share
_TEXTS = ("id", "prompt", "chosen", "rejected")
_REASONS = ("chosen_reason", "rejected_reason")
_MEDIA = {"image": str, "images": list, "video": str}


@dataclass(frozen=True)
class Published:
    """What one file gave: pairs in the order of its rows, and everything that is wrong with it."""

    queries: tuple[Query, ...]
    responses: tuple[Response, ...]
    pairs: tuple[Pair, ...]
    rejects: tuple[Reject, ...]
    conflicts: tuple[Conflict, ...]
    rows: int
    unread: dict[str, int]  # keys that are not part of the format, and how many rows have them


# ---------------------------------------------------------------- one row


def _row(row: Any) -> dict[str, Any]:
    """A row that has what a pair needs, its media under `media`; or BadRow."""
    if type(row) is not dict:
        raise row if type(row) is BadRow else BadRow(f"wrong type: the row is {type(row).__name__}")
    for key in _TEXTS:
        if type(row.get(key)) is not str:
            raise BadRow(f"wrong type: {key} is {type(row[key]).__name__}" if key in row else f"no {key}")
        if key in ("id", "prompt") and not row[key].strip():  # a blank response is a bad one, but a response
            raise BadRow(f"empty: {key}")
    for key in _REASONS:
        if type(row.get(key, "")) is not str:
            raise BadRow(f"wrong type: {key} is {type(row[key]).__name__}")
    for key in (*_TEXTS, *_REASONS):
        if not _is_text(row.get(key, "")):
            raise BadRow(f"not text: {key} holds half of a Unicode pair")
    if row["chosen"] == row["rejected"]:
        raise BadRow("no preference: chosen and rejected are the same text")
    if _SHARED.search(row["id"]):
        raise BadRow(f"reserved id: {row['id']!r} ends like the name of a second query")
    return row | {"media": _media(row)}


def _is_text(value: str) -> bool:
    """Whether it can be written as UTF-8."""
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def _media(row: dict[str, Any]) -> tuple[str, ...]:
    """("image" or "images" or "video", path, ...) of a row."""
    used = [key for key in _MEDIA if row.get(key)]
    if len(used) != 1:
        raise BadRow(f"two kinds of media: {', '.join(used)}" if used else "no media: neither image nor video")
    key, value = used[0], row[used[0]]
    if type(value) is not _MEDIA[key]:
        raise BadRow(f"wrong type: {key} is {type(value).__name__}, not {_MEDIA[key].__name__}")
    paths = value if key == "images" else [value]
    if not all(type(path) is str and path for path in paths):
        raise BadRow(f"wrong type: {key} holds something that is no path")
    return key, *(path.rstrip("/") if key == "video" else path for path in paths)


def _typed(items: Iterable[tuple[int, Any]], rejects: dict[int, str], unread: Counter) -> Iterator[tuple[int, dict]]:
    """The rows that are usable in themselves; the others go to `rejects`, unknown keys to `unread`."""
    for number, item in items:
        try:
            row = _row(item)
        except BadRow as bad:
            rejects[number] = str(bad)
            continue
        if len(row) > len(_TEXTS) + len(_REASONS) + 2:
            unread.update(row.keys() - {*_TEXTS, *_REASONS, *_MEDIA, "media"})
        yield number, row


# ---------------------------------------------------------------- media


def _look(folder: Path, named: tuple[str, ...]) -> tuple[tuple[str, ...], str] | str:
    """(paths in the media folder, name of the picture group) of a row's media, or why they cannot be used."""
    kind, *paths = named
    try:
        found = [media.stored(folder, path) for path in (media.frames(folder, paths[0]) if kind == "video" else paths)]
    except media.MediaError as error:
        return str(error)
    return tuple(p.path for p in found), storage.sha256_bytes(" ".join(p.digest for p in found).encode())[:16]


def _unseen(named: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """The same without a media folder: paths as they are written, grouped by name."""
    kind, *paths = named
    return (f"{paths[0]}/{FRAMES}",) if kind == "video" else tuple(paths), " ".join(paths)


# ---------------------------------------------------------------- gathering


class _Gathering:
    """Queries, responses and pairs as the rows come in."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.queries: dict[tuple, Query] = {}
        self.responses: dict[tuple[str, str], Response] = {}
        self.pairs: dict[tuple[str, str], Pair] = {}
        self.uses: Counter = Counter()  # queries per published id
        self.texts: Counter = Counter()  # responses per query

    def query(self, row: dict, paths: tuple[str, ...], group: str) -> Query:
        """The query of a row; an id that asks something else gets a second name."""
        key = (row["id"], row["prompt"], *row["media"])
        if key not in self.queries:
            use = self.uses[row["id"]] + 1
            kind, path = row["media"][0], paths[0]
            category = path.partition("/")[0]
            self.queries[key] = Query(
                id=row["id"] if use == 1 else f"{row['id']} @{use}",
                prompt=row["prompt"],
                modality=kind,
                media=paths,
                category=category if category in records.CATEGORIES else "",
                source=self.source,
                group=group,
            )
            self.uses[row["id"]] = use
        return self.queries[key]

    def response(self, query: str, text: str) -> str:
        """The id of a text of this query."""
        if (query, text) not in self.responses:
            self.texts[query] += 1
            one = Response(f"{query}/{self.texts[query]}", query, self.source, text)
            self.responses[query, text] = one
        return self.responses[query, text].id

    def add(self, row: dict, paths: tuple[str, ...], group: str) -> None:
        """One more pair, or BadRow when it is there already."""
        query = self.query(row, paths, group).id
        chosen, rejected = (self.response(query, row[key]) for key in ("chosen", "rejected"))
        if (chosen, rejected) in self.pairs:
            raise BadRow(f"repeated pair: an earlier row prefers {chosen!r} to {rejected!r}")
        reasons = (row.get(key, "") for key in _REASONS)
        self.pairs[chosen, rejected] = Pair(query, chosen, rejected, *reasons, origin="published")


def read(file: str | Path, folder: str | Path | None = None, max_reject_share: float = 0.01) -> Published:
    """The pairs of a published file as queries, responses and a preference graph.

    With the media `folder` every picture and frame is decoded and grouped by content; without it media are taken by
    name only. More unusable rows than `max_reject_share` are an error.
    """
    file, base = storage.path(file), None if folder is None else storage.path(folder).resolve()
    if base is not None and not base.is_dir():
        raise SourceError(f"The media folder {base} is not there; create or mount it, or read without it.")
    rejects: dict[int, str] = {}
    unread: Counter = Counter()
    usable = list(_typed(rows.read(file), rejects, unread))
    named = dict.fromkeys(row["media"] for _, row in usable)
    with media.quiet(), ThreadPoolExecutor(2) as workers:
        looked = map(_unseen, named) if base is None else workers.map(lambda one: _look(base, one), named)
        seen = dict(zip(named, looked, strict=True))
    gathering = _Gathering(file.stem)
    for number, row in usable:
        found = seen[row["media"]]
        try:
            if type(found) is str:
                raise BadRow(found)
            gathering.add(row, *found)
        except BadRow as bad:
            rejects[number] = str(bad)
        except records.RecordError as error:
            rejects[number] = f"unfit value: {error}"
    return _finished(file, gathering, rejects, unread, max_reject_share)


def _finished(
    file: Path, gathering: _Gathering, rejects: dict[int, str], unread: Counter, max_reject_share: float
) -> Published:
    """Everything about a file, once its share of unusable rows is known to be small."""
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
    shared = [Conflict("shared id", query.id, ()) for query in gathering.queries.values() if _SHARED.search(query.id)]
    return Published(
        tuple(gathering.queries.values()),
        tuple(gathering.responses.values()),
        pairs,
        tuple(Reject(file.stem, file.name, number, reason[:300]) for number, reason in sorted(rejects.items())),
        (*shared, *conflicts(pairs)),
        total,
        dict(sorted(unread.items())),
    )


# ---------------------------------------------------------------- writing


def original_id(query: str) -> str:
    """The id a query has in a published file."""
    return _SHARED.sub("", query)


def lines(
    queries: Iterable[Query], responses: Iterable[Response], pairs: Iterable[Pair], keys: Sequence[str] = MM_RLHF
) -> Iterator[dict[str, Any]]:
    """The rows of a published file, one per pair, with the keys in the order `keys`."""
    asked, said = {query.id: query for query in queries}, {response.id: response for response in responses}
    for pair in pairs:
        query = asked[pair.query]
        paths = list(query.media)
        shown: str | list[str] = paths if query.modality == "images" else "".join(paths[:1])
        if query.modality == "video":
            shown = str(Path(paths[0]).parent)
        values = {
            "id": original_id(query.id),
            "prompt": query.prompt,
            "chosen": said[pair.chosen].text,
            "rejected": said[pair.rejected].text,
            "chosen_reason": pair.chosen_reason,
            "rejected_reason": pair.rejected_reason,
            query.modality: shown,
        }
        yield {key: values[key] for key in keys if key in values}
