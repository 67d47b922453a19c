"""Published files: rows in, queries and preference graphs out, and the same rows back."""

import json
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_project import ROOT

from mmrlhf_core.data import annotated, published
from mmrlhf_core.data.published import MM_RLHF
from mmrlhf_core.data.rows import SourceError
from mmrlhf_study.annotation import graph
from mmrlhf_study.annotation.graph import Conflict
from mmrlhf_study.tools import exports

VL_REWARD = ("id", "prompt", "chosen", "rejected", "image", "images", "video", "chosen_reason", "rejected_reason")
REAL = ROOT.parent / "shared/data"
ROW = {
    "id": "q1",
    "image": "long/1.png",
    "prompt": "what is it ?",
    "chosen": "a dog",
    "rejected": "a cat",
    "chosen_reason": "right",
    "rejected_reason": "wrong animal",
}


def written(file: Path, rows: list) -> Path:
    """Rows as JSON Lines; bytes are written as they are."""
    data = [row if type(row) is bytes else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    file.write_bytes(b"\n".join(data) + b"\n")
    return file


def without(*keys: str, **changes) -> dict:
    return {key: value for key, value in ROW.items() if key not in keys} | changes


def back(found: published.Published, keys=MM_RLHF) -> list[dict]:
    return list(exports.published_rows(found.queries, found.responses, found.pairs, keys))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A media folder with pictures, clips, and things that are neither."""
    media = tmp_path / "media"
    for place in ("long", "video/clip-Scene-1", "video/empty", "video/torn"):
        (media / place).mkdir(parents=True)
    for number, colour in enumerate(("red", "blue", "green"), 1):
        Image.new("RGB", (8, 8), colour).save(media / f"long/{number}.png")
    for number in (1, 2, 10):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(media / f"video/clip-Scene-1/f{number}.png")
    Image.new("RGB", (8, 8), "red").save(media / "long/same.png")
    (media / "long/broken.png").write_bytes((media / "long/1.png").read_bytes()[:40])
    (media / "video/torn/f1.png").write_bytes(b"no picture")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "outside.png")
    return media


# ---------------------------------------------------------------- the real rows


@pytest.mark.parametrize(
    ("name", "keys", "counts"),
    [("mm_reward_bench", MM_RLHF, (10, 39, 40)), ("vl_reward_bench", VL_REWARD, (31, 62, 31))],
)
def test_the_published_samples_come_back_byte_for_byte(tmp_path, name, keys, counts):
    file = REAL / f"{name}.sample.jsonl"
    if not file.is_file():
        pytest.skip("the published samples are not here")
    found = published.read(file)
    assert (len(found.queries), len(found.responses), len(found.pairs)) == counts
    assert (found.rejects, found.unread, graph.conflicts(found.queries, found.pairs)) == ((), {}, [])
    exports.write_lines(tmp_path / "back.jsonl", back(found, keys))
    assert (tmp_path / "back.jsonl").read_bytes() == file.read_bytes()


# ---------------------------------------------------------------- good rows


def test_rows_of_one_query_are_gathered(tmp_path, folder):
    rows = [
        ROW,
        without(rejected="a bird", rejected_reason="no bird"),
        without(chosen="a cat", rejected="a bird", chosen_reason="wrong animal", rejected_reason="no bird"),
        without("image", id="q2", video="video/clip-Scene-1", chosen="it moves"),
        without("image", id="q3", images=["long/2.png", "long/3.png"]),
        without("chosen_reason", id="q4", image="long/same.png", rejected=""),
    ]
    found = published.read(written(tmp_path / "rows.jsonl", rows), folder)
    assert not found.rejects
    assert [query.id for query in found.queries] == ["q1", "q2", "q3", "q4"]
    assert [query.modality for query in found.queries] == ["image", "video", "images", "image"]
    assert [query.category for query in found.queries] == ["long", "video", "long", "long"]
    assert found.queries[1].media == tuple(f"video/clip-Scene-1/f{n}.png" for n in (1, 2, 10))
    assert found.queries[0].group == found.queries[3].group  # the same picture under two names
    assert len({query.group for query in found.queries}) == 3
    assert [(one.id, one.text) for one in found.responses[:3]] == [
        ("q1/1", "a dog"),
        ("q1/2", "a cat"),
        ("q1/3", "a bird"),
    ]
    assert graph.ranking(found.pairs[:3]).ranks == (1, 2, 3)
    assert back(found)[:5] == rows[:5]
    assert back(found)[5] == rows[5] | {"chosen_reason": ""}


@pytest.mark.parametrize("empty", [{}, None, ""])
def test_absent_null_and_empty_mean_the_same_in_optional_fields(tmp_path, empty):
    given = {} if empty == {} else dict.fromkeys(("chosen_reason", "rejected_reason", "images", "video"), empty)
    found = published.read(written(tmp_path / "rows.jsonl", [without("chosen_reason", "rejected_reason") | given]))
    assert (found.rejects, found.unread) == ((), {})
    assert back(found) == [ROW | {"chosen_reason": "", "rejected_reason": ""}]


def test_without_the_folder_media_are_names(tmp_path):
    rows = [ROW, without("image", id="q2", video="video/v_x-Scene-016")]
    found = published.read(written(tmp_path / "rows.jsonl", rows))
    assert found.queries[1].media == ("video/v_x-Scene-016/*",)
    assert back(found) == rows


def test_an_id_that_asks_two_things_is_two_queries_and_said_so(tmp_path):
    rows = [ROW, without(prompt="what colour ?", image="vl_reward/1.jpg"), without(rejected="a bird")]
    found = published.read(written(tmp_path / "rows.jsonl", rows))
    assert [query.id for query in found.queries] == ["q1", "q1 @2"]
    assert [query.category for query in found.queries] == ["long", ""]
    assert graph.conflicts(found.queries, found.pairs) == [Conflict("shared id", "q1 @2", ())]
    assert [pair.query for pair in found.pairs] == ["q1", "q1 @2", "q1"]
    assert back(found) == rows


def test_rows_that_contradict_each_other_are_kept(tmp_path):
    wins = [("a", "b"), ("b", "a"), ("a", "c"), ("b", "c"), ("c", "a")]
    rows = [without(chosen=one, rejected=other) for one, other in wins]
    assert back(published.read(written(tmp_path / "rows.jsonl", rows))) == rows


# ---------------------------------------------------------------- bad rows

BAD = [
    (b'{"id": "q9", "prompt"', "broken JSON:"),
    (json.dumps(ROW | {"id": "q9"}).encode().replace(b"a dog", b"a \xff dog"), "not UTF-8: byte 0xff"),
    (b"[1, 2]", "wrong type: the row is list"),
    (b"null", "wrong type: the row is NoneType"),
    (without("id"), "no id"),
    (without(id=7), "wrong type: id is int"),
    (without(id=" "), "empty: id"),
    (without(id="q1 @2"), "reserved id: 'q1 @2'"),
    (without("prompt"), "no prompt"),
    (without(prompt="\n"), "empty: prompt"),
    (without("chosen"), "no chosen"),
    (without(chosen=None), "wrong type: chosen is NoneType"),
    (without(chosen=["a dog"]), "wrong type: chosen is list"),
    (without("rejected"), "no rejected"),
    (without(rejected=None), "wrong type: rejected is NoneType"),
    (without(rejected="a dog"), "no preference: chosen and rejected are the same text"),
    (json.dumps(ROW).encode().replace(b'"a dog"', b"9" * 400), "broken JSON:"),
    (b"[" * 100_000, "broken JSON:"),
    (without(image=0), "wrong type: image is int, not str"),
    (without(rejected_reason=3), "wrong type: rejected_reason is int"),
    (json.dumps(without(id="q9", rejected="a \ud800 cat")).encode(), "not text: rejected holds half of a Unicode pair"),
    (without("image"), "no media: neither image nor video"),
    (without(image=None), "no media: neither image nor video"),
    (without(video="video/clip-Scene-1"), "two kinds of media: image, video"),
    (without(image=["long/1.png"]), "wrong type: image is list, not str"),
    (without("image", images=["long/1.png", 2]), "wrong type: images holds something that is no path"),
    (without(image="long/none.png"), "missing media: 'long/none.png'"),
    (without(image="../outside.png"), "path not inside the media folder:"),
    (without(image="/etc/hostname"), "path not inside the media folder:"),
    (without(image="long/\0.png"), "path not inside the media folder:"),
    (without(image="long"), "not a picture file: 'long'"),
    (without(image="long/broken.png"), "unreadable picture: 'long/broken.png'"),
    (without("image", video="long/1.png"), "clip is not a folder: 'long/1.png'"),
    (without("image", video="video/empty"), "zero frames: 'video/empty'"),
    (without("image", video="video/torn"), "unreadable picture: 'video/torn/f1.png'"),
    (ROW | {"chosen_reason": "again"}, "repeated pair: an earlier row prefers 'q1/1' to 'q1/2'"),
]


def test_every_kind_of_bad_row_is_set_aside_with_its_number_and_reason(tmp_path, folder):
    good = [ROW, *(without(id=f"good{number}", image="long/2.png") for number in range(3))]
    file = written(tmp_path / "rows.jsonl", [*good, *(row for row, _ in BAD)])
    found = published.read(file, folder, max_reject_share=1.0)
    assert back(found) == good
    assert found.rows == len(good) + len(BAD)
    assert [reject.row for reject in found.rejects] == list(range(5, 5 + len(BAD)))
    for reject, (row, says) in zip(found.rejects, BAD, strict=True):
        assert reject.reason.startswith(says), row
    assert {(reject.source, reject.file) for reject in found.rejects} == {("rows", "rows.jsonl")}


@pytest.mark.parametrize("path", ["../a.png", "/a.png", "long//a.png", "a\0.png", "long/./a.png"])
def test_bad_paths_are_refused_without_the_folder_too(tmp_path, path):
    found = published.read(written(tmp_path / "rows.jsonl", [ROW, without(id="q2", image=path)]), None, 1.0)
    assert [(reject.row, reject.reason.split(":")[0]) for reject in found.rejects] == [(2, "unfit value")]


def test_too_many_bad_rows_an_empty_file_and_a_missing_folder_stop_the_reading(tmp_path):
    file = written(tmp_path / "rows.jsonl", [ROW, *(without("id") for _ in range(3)), without(prompt="")])
    with pytest.raises(
        SourceError, match=r"4 of 5 rows are unusable, over the allowed share of 0.5: no id \(3\), empty"
    ):
        published.read(file, None, 0.5)
    with pytest.raises(SourceError, match="holds no rows"):
        published.read(written(tmp_path / "none.jsonl", []))
    with pytest.raises(SourceError, match=r"media folder .* is not there"):
        published.read(file, tmp_path / "nowhere")
    with pytest.raises(SourceError, match="is not there"):
        published.read(tmp_path / "nothing.jsonl")


def test_keys_outside_the_format_are_counted(tmp_path):
    bare = without("chosen_reason", "rejected_reason", id="q3", ls_factor=0.2)
    rows = [without(ls_factor=0.3), without(id="q2", ls_factor=0.1, is_tie=False), bare]
    found = published.read(written(tmp_path / "rows.jsonl", rows))
    assert found.unread == {"is_tie": 1, "ls_factor": 3}
    assert len(found.pairs) == 3


# ---------------------------------------------------------------- properties


@st.composite
def files(draw: st.DrawFn) -> list[dict]:
    """Rows of a few queries in random order: each query's responses have ranks, each pair of different rank a row."""
    word = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(str.strip)
    rows = []
    for number in range(draw(st.integers(1, 4))):
        texts = draw(st.lists(word, min_size=2, max_size=5, unique=True))
        ranks = draw(st.lists(st.integers(1, 3), min_size=len(texts), max_size=len(texts)))
        prompt, reasons = draw(word), draw(st.lists(word, min_size=5, max_size=5))
        for i, j in combinations(range(len(texts)), 2):
            if ranks[i] != ranks[j]:
                a, b = (i, j) if ranks[i] < ranks[j] else (j, i)
                head = {"id": f"q{number}", "image": f"long/{number}.png", "prompt": prompt}
                said = {"chosen": texts[a], "rejected": texts[b]}
                rows.append(head | said | {"chosen_reason": reasons[a], "rejected_reason": reasons[b]})
    return draw(st.permutations(rows))


@settings(max_examples=60, deadline=None)
@given(rows=files())
def test_gathering_keeps_every_pair_and_finds_the_ranking(tmp_path_factory, rows):
    if not rows:
        return
    found = published.read(written(tmp_path_factory.mktemp("rows") / "rows.jsonl", rows))
    assert back(found) == rows
    assert len(found.responses) == len({(row["id"], row[key]) for row in rows for key in ("chosen", "rejected")})
    assert not graph.conflicts(found.queries, found.pairs)
    for group in annotated.by_query(found.pairs).values():
        order = graph.ranking(group)
        rank = dict(zip(order.responses, order.ranks, strict=True))
        assert {(a, b) for a in rank for b in rank if rank[a] < rank[b]} == {(p.chosen, p.rejected) for p in group}
