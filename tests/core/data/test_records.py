"""Records are checked when made, and what was written is what is read."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Critique, Pair, Query, Ranking, RecordError, Reject, Response

QUERY = Query("pool/1", "what is it ?", "image", ("a/1.png",), "short", "a dog", "pool", "g1", "pets", "")
ANSWER = Response("pool/1/0", "pool/1", "base", "a dog", 0.7, 0.9, 64, 3)
RANKING = Ranking("pool/1", "ann", ("a", "b", "c", "d"), (2, 1, 2, 3), "b is whole", "", 0)
PAIR = Pair("pool/1", "b", "a", "whole", "a gap", 1, 2.0, 1.0, 1.0, 0.0, "ranked", "train")
REJECT = Reject("pool", "rows.jsonl", 3, "no media: neither image nor video")

OUTSIDE = ("/etc/passwd", "../a.png", "a/../../b.png", "a//b.png", "a\0.png", "")

text = st.text(st.characters(codec="utf-8"), max_size=20)
name = text.filter(str.strip)
part = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1).filter(
    lambda p: p not in (".", "..")
)
paths = st.lists(part, min_size=1, max_size=3).map("/".join)
integer = st.integers(-(2**63), 2**63 - 1)
real = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def queries(draw: st.DrawFn) -> Query:
    modality = draw(st.sampled_from(sorted(records.MODALITIES)))
    least, most = records.MODALITIES[modality]
    media = draw(st.lists(paths, min_size=least, max_size=int(min(most, 3))))
    category = draw(st.sampled_from(records.CATEGORIES))
    return Query(draw(name), draw(name), modality, tuple(media), category, *(draw(text) for _ in range(5)))


@st.composite
def rankings(draw: st.DrawFn) -> Ranking:
    names = draw(st.lists(name, min_size=2, max_size=5, unique=True))
    levels = draw(st.lists(st.integers(0, 4), min_size=len(names), max_size=len(names)))
    ranks = tuple(sorted(set(levels)).index(level) + 1 for level in levels)
    return Ranking(draw(name), draw(name), tuple(names), ranks, draw(text), draw(st.sampled_from(records.REPAIRS)), 1)


point = st.integers(1, 5)
pairs = st.builds(
    Pair, name, name.map("a".__add__), name.map("b".__add__), text, text, point, real, real, real, real,
    st.sampled_from(records.ORIGINS), st.sampled_from(records.SPLITS),
)  # fmt: skip
GENERATED = {
    Ranking: rankings(),
    Critique: st.builds(Critique, name, name, name, text, text, text),
    Pair: pairs,
    Query: queries(),
    Response: st.builds(Response, name, name, name, text, real, real, integer, integer),
    Reject: st.builds(Reject, name, name, integer, name),
}


def exact(rows: list) -> list[str]:
    """Text that differs whenever the rows do, also between 0.0 and -0.0."""
    return [repr(row) for row in rows]


@pytest.mark.parametrize("kind", GENERATED)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_written_is_what_is_read(tmp_path_factory, kind, data):
    rows = data.draw(st.lists(GENERATED[kind], max_size=5))
    file = tmp_path_factory.mktemp("records") / "rows.parquet"
    records.write(file, rows, kind)
    assert exact(records.read(file, kind)) == exact(rows)


def test_the_same_rows_give_the_same_bytes_and_other_rows_give_others(tmp_path):
    many = [replace(QUERY, id=f"pool/{number}") for number in range(2 * records.ROW_GROUP + 1)]
    for file, rows in (("a", many), ("b", list(many)), ("c", many[::-1])):
        records.write(tmp_path / file, iter(rows))
    assert storage.sha256_file(tmp_path / "a") == storage.sha256_file(tmp_path / "b")
    assert storage.sha256_file(tmp_path / "a") != storage.sha256_file(tmp_path / "c")
    assert records.read(tmp_path / "c", Query) == many[::-1]


@pytest.mark.parametrize(
    ("row", "change", "says"),
    [
        (QUERY, {"id": 7}, "id is int '7', not str"),
        (QUERY, {"id": " "}, "id is blank"),
        (QUERY, {"prompt": None}, "prompt is NoneType"),
        (QUERY, {"prompt": "x\ud800"}, "prompt holds half of a Unicode pair"),
        (QUERY, {"modality": "sound"}, "modality is 'sound'; give one of 'text', 'image', 'images', 'video'"),
        (QUERY, {"category": "Long"}, "category is 'Long'; give one of"),
        (QUERY, {"media": ["a.png"]}, "media is list, not a tuple of str"),
        (QUERY, {"media": (b"a.png",)}, "media is bytes"),
        (QUERY, {"media": ()}, "media holds 0 paths, which is not 'image'"),
        (QUERY, {"media": ("a", "b")}, "media holds 2 paths"),
        (QUERY, {"modality": "text"}, "media holds 1 paths"),
        (QUERY, {"modality": "images"}, "media holds 1 paths"),
        *((QUERY, {"media": (path,)}, "inside the folder") for path in OUTSIDE),
        (ANSWER, {"temperature": 1}, "temperature is int '1', not float"),
        (ANSWER, {"temperature": float("nan")}, "temperature is nan"),
        (ANSWER, {"top_p": float("inf")}, "top_p is inf"),
        (ANSWER, {"top_p": 10**5000}, "top_p is int"),
        (ANSWER, {"seed": True}, "seed is bool 'True', not int"),
        (ANSWER, {"seed": 2**63}, "does not fit in 64 bits"),
        (ANSWER, {"seed": 10**5000}, "does not fit in 64 bits"),
        (RANKING, {"responses": ("a", "b", "c", "a")}, "responses holds 4 ids"),
        (RANKING, {"responses": ("a",), "ranks": (1,)}, "responses holds 1 ids"),
        (RANKING, {"ranks": (1, 2)}, "ranks holds 2 ranks for 4 responses"),
        (RANKING, {"ranks": (1, 2, 4, 4)}, "without a gap"),
        (RANKING, {"ranks": (0, 1, 1, 1)}, "without a gap"),
        (RANKING, {"repair": "mended"}, "repair is 'mended'; give one of '', 'written', 'damaged'"),
        (RANKING, {"round": -1}, "round is -1"),
        (PAIR, {"rejected": "b"}, "rejected is 'b', the same as chosen"),
        (PAIR, {"steps": 0}, "steps is 0; give 1 or more"),
        (PAIR, {"origin": ""}, "origin is ''; give one of"),
        (PAIR, {"split": "valid"}, "split is 'valid'; give one of"),
    ],
)
def test_a_record_is_checked_when_made_and_names_its_field(row, change, says):
    with pytest.raises(RecordError) as caught:
        replace(row, **change)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{type(row).__name__}.")
    assert "\n" not in str(caught.value)


def rewritten(file: Path, table: pa.Table, **metadata: str) -> None:
    """`table` as a file of Query records, with some of its metadata changed."""
    pq.write_table(table.replace_schema_metadata({"record": "Query", "version": "1", **metadata}), file)


def test_a_file_that_does_not_fit_says_why(tmp_path):
    file = tmp_path / "q.parquet"
    records.write(file, [QUERY, replace(QUERY, id="pool/2")])
    table, data = pq.read_table(file), file.read_bytes()

    def says(words: str, kind: type = Query) -> None:
        with pytest.raises(RecordError) as caught:
            records.read(file, kind)
        assert words in str(caught.value)
        assert str(file) in str(caught.value)

    says("holds Query records of version 1, not Response of version 1", Response)
    rewritten(file, table, version="2")
    says("holds Query records of version 2, not Query of version 1")
    pq.write_table(table.replace_schema_metadata({}), file)
    says("holds ? records of version ?")
    rewritten(file, table.drop_columns(["group"]))
    says("column 'group' is not there")
    rewritten(file, table.append_column("extra", pa.array([1, 2])))
    says("column 'extra' is int64")
    rewritten(file, table.set_column(1, "prompt", pa.array([1, 2])))
    says("column 'prompt' is int64 and has to be string")
    rewritten(file, table.set_column(1, "prompt", pa.array(["fine", None])))
    says("row 2: Query.prompt is NoneType")
    rewritten(file, table.set_column(3, "media", pa.array([["a.png"], None], pa.list_(pa.string()))))
    says("row 2: Query.media is NoneType")
    for broken in (b"", data[:-9], data[: len(data) // 2], b"no parquet at all", data[:40] + b"\xff" + data[41:]):
        file.write_bytes(broken)
        says("is damaged or cut short")
    file.unlink()
    says("is not there")


def test_writing_refuses_mixed_rows_and_an_untyped_empty_file(tmp_path):
    file = tmp_path / "q.parquet"
    with pytest.raises(RecordError, match=r"Row 2 for q\.parquet is Response, not Query\."):
        records.write(file, [QUERY, ANSWER])
    with pytest.raises(RecordError, match="No rows"):
        records.write(file, [])
    assert not list(tmp_path.iterdir())
    records.write(file, [], Query)
    assert records.read(file, Query) == []


def test_records_are_values():
    assert replace(QUERY) == QUERY
    assert len({QUERY, replace(QUERY), replace(QUERY, id="other")}) == 2
    with pytest.raises(AttributeError):
        REJECT.row = 4  # type: ignore[misc]
