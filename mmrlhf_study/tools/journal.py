"""Judgements of people, appended to one file; work is confirmed only after it is on disk.

One line is one annotator's work on one query. Tabs, kernels and machines that share the file take turns through a lock,
so no work is saved twice. A crash can cut the last line; it was never confirmed, and the next line replaces it.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from mmrlhf_core.data.records import Ranking, RecordError
from mmrlhf_study.annotation.records import Judgement


class JournalError(ValueError):
    """A journal holds a line that is no annotation, or work does not fit together."""


@contextmanager
def _locked(file: Path) -> Iterator[BinaryIO]:
    """The journal, opened under a lock; a new file is recorded in its folder on disk first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.exists()
    with open(file, "ab+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if new:
            folder = os.open(file.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        yield stream


def _lines(data: bytes, file: Path) -> list[dict[str, Any]]:
    """The complete lines of a journal; text after the last line end was never confirmed."""
    rows = []
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            row = json.loads(line)
            row["annotator"], row["query"], row["judgements"], row["ranking"]
        except (ValueError, KeyError, TypeError) as error:
            raise JournalError(
                f"{file}, line {number} is no annotation ({error}). Repair or remove the line."
            ) from None
        rows.append(row)
    return rows


def append(file: str | Path, judgements: list[Judgement], ranking: Ranking) -> bool:
    """Write one annotator's work on one query and wait for the disk; False when it is there already."""
    file, row = Path(file), {"annotator": ranking.annotator, "query": ranking.query}
    if {(row.annotator, row.query) for row in judgements} != {(ranking.annotator, ranking.query)}:
        raise JournalError("The judgements and the ranking are not of the same annotator and query.")
    if sorted(row.response for row in judgements) != sorted(ranking.responses):
        raise JournalError("The judgements and the ranking are not of the same responses.")
    row |= {"judgements": [asdict(judgement) for judgement in judgements], "ranking": asdict(ranking)}
    with _locked(file) as stream:
        stream.seek(0)
        data = stream.read()
        if (row["annotator"], row["query"]) in {(old["annotator"], old["query"]) for old in _lines(data, file)}:
            return False
        stream.truncate(data.rfind(b"\n") + 1)
        stream.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    return True


def read(file: str | Path) -> tuple[list[Judgement], list[Ranking]]:
    """All work in a journal; nothing when there is none yet."""
    file = Path(file)
    if not file.exists():
        return [], []
    judgements, rankings = [], []
    for number, row in enumerate(_lines(file.read_bytes(), file), 1):
        try:
            judgements += [Judgement(**fields) for fields in row["judgements"]]
            order = row["ranking"]
            rankings.append(Ranking(**order | {name: tuple(order[name]) for name in ("responses", "ranks")}))
        except (RecordError, TypeError, KeyError) as error:
            raise JournalError(f"{file}, line {number}: {error}") from None
    return judgements, rankings


def done(file: str | Path, annotator: str) -> set[str]:
    """The queries this annotator has finished."""
    return {ranking.query for ranking in read(file)[1] if ranking.annotator == annotator}
