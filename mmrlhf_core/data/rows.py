"""Rows of Parquet, JSON and JSON Lines files, one at a time, each with its number; a bad row comes with its reason."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MAX_DIGITS = 300  # digits of a whole number; more do not fit into a float
CHUNK = 2**20  # characters read at a time from a JSON array
MAX_ROW = 2**28  # characters of one row of a JSON array


class SourceError(ValueError):
    """A source does not exist, cannot be read, or has too many unusable rows."""


class BadRow(ValueError):
    """One row is unusable; the text is its reason: the kind of fault, a colon, the details."""


def _utf8(value: Any, text: str) -> Any:
    """`value`, or a BadRow when its text holds bytes that are no UTF-8 (kept as lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return BadRow(f"not UTF-8: byte 0x{ord(text[error.start]) & 0xFF:02x}")
    return value


def _integer(digits: str) -> int:
    """A whole number of a JSON text; one that no float can hold is refused, so that readers can convert the others."""
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits, over {MAX_DIGITS}")
    return int(digits)


_DECODER = json.JSONDecoder(parse_int=_integer)
_GAP = re.compile(r"[ \t\r\n]*(,?)[ \t\r\n]*")  # between two elements of a JSON array


def _json_lines(file: Path) -> Iterator[tuple[int, Any]]:
    """Line number and value (or BadRow) of every line that is not blank."""
    with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, _utf8(_DECODER.decode(line), line)
                except (ValueError, RecursionError) as error:
                    yield number, _utf8(BadRow(f"broken JSON: {error}"), line)


def _json_array(file: Path) -> Iterator[tuple[int, Any]]:
    """Number and value of every element of one JSON array, read piece by piece."""
    with open(file, encoding="utf-8-sig", errors="surrogateescape") as stream:
        text, at, number, problem = stream.read(CHUNK).lstrip()[1:], 0, 0, ""
        while True:
            gap = _GAP.match(text, at)
            assert gap  # an empty gap matches, too
            comma, begin = bool(gap[1]), gap.end()
            if text.startswith("]", begin) and not comma:
                if (text[begin + 1 :] + stream.read(CHUNK)).strip():
                    raise SourceError(f"{file} goes on after its JSON array; repair it or save it as JSON Lines.")
                return
            if begin < len(text) and comma != (number > 0):
                raise SourceError(f"{file} {'has a' if comma else 'lacks the'} comma before row {number + 1}.")
            try:
                value, end = _DECODER.raw_decode(text, begin)
            except (ValueError, RecursionError) as error:
                problem, end = str(error), len(text)
            if end < len(text):
                number, at = number + 1, end
                yield number, _utf8(value, text[begin:end])
            elif len(text) - at < MAX_ROW and (more := stream.read(max(CHUNK, len(text) - at))):
                text, at = text[at:] + more, 0
            else:
                where = f"{file} breaks off in row {number + 1} ({problem or 'no end'})"
                raise SourceError(f"{where}; repair it or save it as JSON Lines.")


def _parquet(file: Path) -> Iterator[tuple[int, Any]]:
    """Number and value of every Parquet row."""
    number = 0
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=64):
                for place in range(batch.num_rows):
                    number += 1
                    yield number, _parquet_row(batch.slice(place, 1))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{file} breaks off after row {number}; fetch or write it again.") from error


def _parquet_row(batch: pa.RecordBatch) -> Any:
    """The value of a batch of one row, or BadRow."""
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError as error:
        return BadRow(f"not UTF-8: byte 0x{error.object[error.start]:02x}")


def read(file: Path) -> Iterator[tuple[int, Any]]:
    """Row number (from 1; the line in JSON Lines) and value, or BadRow, of every row.

    `.jsonl` is JSON Lines; for other files the first bytes decide between Parquet, a JSON array and JSON Lines.
    """
    if not file.is_file():
        raise SourceError(f"{file} is not there. Check the path of the source.")
    with open(file, "rb") as stream:
        head = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"PAR1"):
        return _parquet(file)
    return _json_array(file) if head.startswith(b"[") and file.suffix != ".jsonl" else _json_lines(file)
