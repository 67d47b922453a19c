"""From the pool to the query set, step by step: every query is either kept or removed with a reason."""

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from PIL import Image

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Query, Record, column

FILTERS = ("unreadable", "unclassed", "duplicate", "leak", "not drawn")


@dataclass(frozen=True, slots=True)
class Removed(Record):
    """One query of the pool that did not get into the query set."""

    VERSION: ClassVar[int] = 1

    query: str = column("id of the query", filled=True)
    step: str = column("filter that removed it", allowed=FILTERS)
    reason: str = column("why, in words", filled=True)
    other: str = column("kept query it repeats, or evaluation picture or query it overlaps with; blank otherwise", "")


def remove(queries: Sequence[Query], step: str, reasons: Mapping[str, tuple[str, str]]) -> tuple[list, list]:
    """(queries that stay, Removed records) of one filter; `reasons` is id -> (reason, other)."""
    stay = [query for query in queries if query.id not in reasons]
    gone = [Removed(query.id, step, *reasons[query.id]) for query in queries if query.id in reasons]
    return stay, gone


def check(pool: Iterable[Query], kept: Iterable[Query], removed: Iterable[Removed]) -> None:
    """Raise unless every query of the pool is kept or removed, once, and nothing else is."""
    before = sorted(query.id for query in pool)
    after = sorted([*(query.id for query in kept), *(row.query for row in removed)])
    if before != after:
        odd = sorted((Counter(before) - Counter(after)) | (Counter(after) - Counter(before)))
        raise ValueError(
            f"The filters do not add up: {len(before)} queries came in and {len(after)} are accounted for; "
            f"the first that does not fit is {odd[0]}. Every filter has to record what it removes."
        )


def table(pool: int, removed: Iterable[Removed]) -> list[tuple[str, int, int]]:
    """(step, queries it removed, queries left) from the pool down, all steps in order."""
    rows, left, counts = [("pool", 0, pool)], pool, Counter(row.step for row in removed)
    for step in FILTERS:
        left -= counts[step]
        rows.append((step, counts[step], left))
    return rows


def write(
    folder: str | Path,
    kept: Sequence[Query],
    removed: Sequence[Removed],
    media: str | Path,
    new: Mapping[str, Image.Image],
) -> None:
    """Write the query set whole or not at all: `queries.parquet`, `removed.parquet` and `media/` with all its pictures.

    Pictures come from the pool's `media`, or from `new` (path -> picture).
    """
    base = storage.path(media)
    with storage.writing(folder) as target:
        records.write(target / "queries.parquet", kept, Query)
        records.write(target / "removed.parquet", removed, Removed)
        for path in sorted({path for query in kept for path in query.media}):
            file = storage.inside(target / "media", path)
            file.parent.mkdir(parents=True, exist_ok=True)
            if path in new:
                new[path].save(file)
            else:
                shutil.copyfile(storage.inside(base, path), file)
