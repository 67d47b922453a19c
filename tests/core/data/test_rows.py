"""Rows of every format with their numbers, and broken files and rows in one sentence."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrlhf_core.data import rows
from mmrlhf_core.data.rows import BadRow, SourceError


@pytest.fixture
def read(tmp_path):
    """The rows of a file with this content; a bad row stands as its reason."""

    def call(data: bytes, name: str = "rows.json") -> list:
        (tmp_path / name).write_bytes(data)
        return [(number, str(row) if isinstance(row, BadRow) else row) for number, row in rows.read(tmp_path / name)]

    return call


VALUES = [{"text": f"ünï “{n}” {'?' * 7 * n}", "n": [n, None]} for n in range(30)]


def test_every_format_gives_the_same_rows(read, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "CHUNK", 64)
    expected = list(enumerate(VALUES, 1))
    assert read(b"\n".join(json.dumps(value).encode() for value in VALUES), "rows.jsonl") == expected
    for array in (json.dumps(VALUES), json.dumps(VALUES, indent=1, ensure_ascii=False)):
        assert read(array.encode()) == read(b"\xef\xbb\xbf" + array.encode()) == expected
    pq.write_table(pa.Table.from_pylist(VALUES), tmp_path / "rows.parquet", row_group_size=7)
    assert list(rows.read(tmp_path / "rows.parquet")) == expected
    assert read(b"[]") == read(b"[ \n]") == read(b"") == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": ', "broken JSON"),
        (b"[" * 100_000, "broken JSON"),
        (b'{"rewards": [1' + b"0" * 400 + b", 1]}", "401 digits"),
        (b'{"reward": 1_0}', "broken JSON"),
        (b'"caf\xe9"', "not UTF-8: byte 0xe9"),
    ],
)
def test_a_broken_line_is_a_bad_row_that_says_why_and_costs_no_other(read, line, reason):
    (one, (number, text), three) = read(b"1\n" + line + b"\n3\n", "rows.jsonl")
    assert (one, three, number) == ((1, 1), (3, 3), 2)
    assert reason in text


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (b"[1 2]", "lacks the comma before row 2"),
        (b'[{"a": 1}\n{"a": 2}]', "lacks the comma before row 2"),
        (b"[, 1]", "has a comma before row 1"),
        (b"[1, 2,]", "breaks off in row 3"),
        (b"[1,, 2]", "breaks off in row 2"),
        (b"[1, 2", "breaks off in row 2"),
        (b"[1] 2", "goes on after its JSON array"),
        (b"[1, " + b"[" * 100_000, "breaks off in row 2"),
        (b"[1, 1" + b"0" * 400 + b"]", "401 digits"),
    ],
)
def test_a_broken_array_is_one_sentence_with_its_file_and_row(read, array, reason, monkeypatch):
    for chunk in (3, 2**20):
        monkeypatch.setattr(rows, "CHUNK", chunk)
        with pytest.raises(SourceError, match=r"rows\.json .*" + reason) as caught:
            read(array)
        assert "\n" not in str(caught.value)


def test_a_damaged_parquet_file_and_an_absent_one_are_named(read, tmp_path):
    pq.write_table(pa.Table.from_pylist(VALUES), tmp_path / "whole.parquet")
    with pytest.raises(SourceError, match="breaks off after row 0"):
        read((tmp_path / "whole.parquet").read_bytes()[:-9], "rows.parquet")
    texts = pa.Array.from_buffers(pa.string(), 2, pa.array([b"fine", b"caf\xe9"], pa.binary()).buffers())
    pq.write_table(pa.table({"text": texts}), tmp_path / "text.parquet")
    assert read((tmp_path / "text.parquet").read_bytes()) == [(1, {"text": "fine"}), (2, "not UTF-8: byte 0xe9")]
    with pytest.raises(SourceError, match="is not there"):
        rows.read(tmp_path / "none.json")
