"""Every row of a pool becomes queries or a reject with its number; no row takes another's place."""

import io
import json
import os
import socket
import threading
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmrlhf_core.data import media, records, rows, storage
from mmrlhf_study.curation import sources
from mmrlhf_study.curation.sources import Source, SourceError


def picture(colour: str = "red", kind: str = "PNG", size: tuple[int, int] = (8, 6)) -> bytes:
    """A small picture as bytes."""
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, kind)
    return stream.getvalue()


def promising(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises a large picture."""
    data = bytearray(picture())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A media folder with good and bad pictures and clips, and one picture outside it."""
    base = tmp_path_factory.mktemp("pool") / "media"
    (base / "deep").mkdir(parents=True)
    (base.parent / "outside.png").write_bytes(picture())
    files = {
        "red.png": picture(),
        "same.png": picture(),
        "blue.jpg": picture("blue", "JPEG"),
        "deep/green.webp": picture("green", "WEBP"),
        "text.png": b"this is no picture",
        "empty.png": b"",
        "cut.png": picture(size=(64, 64))[:90],
        "cut.jpg": picture("blue", "JPEG", (64, 64))[:-200],
        "header.png": picture()[:11] + b"\0" + picture()[12:],
        "chunk.png": picture()[:36] + b"\0" + picture()[37:],
        "tiff.png": picture("blue", "TIFF"),
        "bomb.png": promising(10_000, 10_000),
        "worse.png": promising(60_000, 60_000),
        "film.mp4": b"\0\0\0 ftypisom",
        **{f"clip/frame{number}.png": picture((number, 0, 0)) for number in (10, 2, 1)},
        "torn/frame1.png": picture(),
        "torn/frame2.png": picture()[:40],
        "none/.hidden": b"",
    }
    for name, data in files.items():
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_bytes(data)
    (base / "link.png").symlink_to(base.parent / "outside.png")
    os.mkfifo(base / "pipe.png")
    return base


def talk(*said: Any, **rest: Any) -> dict:
    """A row in LLaVA's form; people and model take turns."""
    turns = [{"from": "gpt" if number % 2 else "human", "value": text} for number, text in enumerate(said)]
    return {"id": "row", "conversations": turns, **rest}


def one_turn(who: Any, value: Any = "hi") -> dict:
    """A row in LLaVA's form with one turn."""
    return {"image": "red.png", "conversations": [{"from": who, "value": value}]}


def line(row: Any) -> bytes:
    return json.dumps(row).encode() + b"\n"


def read(
    base: Path, lines: list[bytes], layout: str = "conversations", share: float = 1, turns: str = "context", **more: Any
) -> sources.Pool:
    """The pool in some JSON lines beside the media folder."""
    file = base.parent / f"rows-{threading.get_ident()}.jsonl"
    file.write_bytes(b"".join(lines))
    source = Source("pool", layout, base, turns=turns)
    return sources.read([file], source, base.parent / "rejects.parquet", share, **more)


GOOD = [
    line(talk("<image>\nWhat colour ?", "Red .", image="red.png")),
    line(talk("Which ?", "Blue .", image="blue.jpg")),
]

BAD = {
    "no media": (talk("hi", "ho"), "no media"),
    "null image": (talk("hi", "ho", image=None), "no media"),
    "blank image": (talk("hi", "ho", image=""), "no media"),
    "no pictures in the list": (talk("hi", "ho", image=[]), "no media"),
    "image and video": (talk("hi", "ho", image="red.png", video="clip"), "two kinds of media: image, video"),
    "missing picture": (talk("hi", "ho", image="nowhere.png"), "missing media: 'nowhere.png'"),
    "second picture missing": (talk("hi", "ho", image=["red.png", "nowhere.png"]), "missing media"),
    "not a picture": (talk("hi", "ho", image="text.png"), "unreadable picture: 'text.png'"),
    "empty file": (talk("hi", "ho", image="empty.png"), "unreadable picture"),
    "truncated PNG": (talk("hi", "ho", image="cut.png"), "unreadable picture"),
    "truncated JPEG": (talk("hi", "ho", image="cut.jpg"), "unreadable picture"),
    "chunk of wrong length": (talk("hi", "ho", image="header.png"), "unreadable picture"),
    "chunk of no name": (talk("hi", "ho", image="chunk.png"), "unreadable picture"),
    "format outside the list": (talk("hi", "ho", image="tiff.png"), "unreadable picture"),
    "100 megapixels": (talk("hi", "ho", image="bomb.png"), "picture too large: 'bomb.png' is 10000 x 10000"),
    "3,600 megapixels": (talk("hi", "ho", image="worse.png"), "picture too large"),
    "a folder as picture": (talk("hi", "ho", image="clip"), "not a picture file"),
    "a pipe as picture": (talk("hi", "ho", image="pipe.png"), "not a picture file"),
    "climbs out": (talk("hi", "ho", image="../outside.png"), "path not inside the media folder"),
    "climbs out in the middle": (talk("hi", "ho", image="deep/../../outside.png"), "path not inside"),
    "absolute path": (talk("hi", "ho", image="/etc/hostname"), "path not inside"),
    "link that leads out": (talk("hi", "ho", image="link.png"), "path not inside"),
    "path with a zero byte": (talk("hi", "ho", image="red.png\0"), "path not inside"),
    "image of wrong type": (talk("hi", "ho", image=7), "wrong type: image is int"),
    "picture of wrong type": (talk("hi", "ho", image=["red.png", None]), "wrong type: a picture is NoneType"),
    "empty picture object": (talk("hi", "ho", image={"bytes": None}), "wrong type: a picture is NoneType"),
    "zero frames": (talk("hi", "ho", video="none"), "zero frames: 'none'"),
    "torn frame": (talk("hi", "ho", video="torn"), "unreadable picture: 'torn/frame2.png'"),
    "clip is a film file": (talk("hi", "ho", video="film.mp4"), "clip is not a folder"),
    "clip is missing": (talk("hi", "ho", video="nowhere"), "missing media"),
    "row is a list": ([1, 2], "wrong type: the row is list"),
    "row is null": (None, "wrong type: the row is NoneType"),
    "conversations of wrong type": ({"image": "red.png", "conversations": "hi"}, "wrong type: conversations is str"),
    "no conversation": ({"image": "red.png"}, "no turns"),
    "turn of wrong type": ({"image": "red.png", "conversations": ["hi"]}, "turns out of order: turn 1 is from 'str'"),
    "model speaks first": (one_turn("gpt"), "turns out of order: turn 1 is from 'gpt'"),
    "text of wrong type": (talk("hi", 4, image="red.png"), "wrong type: value is int"),
    "id of wrong type": (talk("hi", "ho", image="red.png") | {"id": [1]}, "wrong type: id is list"),
    "id true": (talk("hi", "ho", image="red.png") | {"id": True}, "wrong type: id is bool"),
    "empty prompt": (talk("", "ho", image="red.png"), "empty prompt: turn 1"),
    "nothing but a mark": (talk("<image>\n", "ho", image="red.png"), "empty prompt"),
    "empty second prompt": (talk("hi", "ho", " ", "ho", image="red.png"), "empty prompt: turn 2"),
    "two marks, one picture": (talk("<image> or <image> ?", "ho", image="red.png"), "marks do not fit: 2 marks for 1"),
    "one mark, two pictures": (
        talk("<image> ?", "ho", image=["red.png", "blue.jpg"]),
        "marks do not fit: 1 marks for 2",
    ),
    "mark of a clip beside a picture": (
        talk("what does <video> do ?", "ho", image="red.png"),
        "mark without a picture: '<video>' in the text of turn 1",
    ),
    "mark in an answer that becomes context": (
        talk("<image> what ?", "an <image> tag", "why ?", "so", image="red.png"),
        "mark without a picture: '<image>' in the text of turn 2",
    ),
    "speaker of wrong type": (one_turn({"deep": [1]}), "turns out of order: turn 1 is from"),
    "question before its picture": (
        talk("hi", "ho", "<image> ?", "ho", image="red.png"),
        "question before its picture",
    ),
    "half a Unicode pair": (one_turn("human", "\ud800"), "unfit"),
    "broken JSON": (b'{"id": 1, "image": \n', "broken JSON"),
    "not UTF-8": (b'{"id": "caf\xe9", "image": "red.png"}\n', "not UTF-8: byte 0xe9"),
    "endless number": (b"1" * 10_000 + b"\n", "broken JSON"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_row_is_set_aside_with_its_number_and_changes_no_other(folder, fault):
    row, reason = BAD[fault]
    bad = row if type(row) is bytes else line(row)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool = read(folder, [GOOD[0], bad, GOOD[1]])
    without = read(folder, [GOOD[0], b"\n", GOOD[1]])
    assert [(reject.source, reject.row) for reject in pool.rejects] == [("pool", 2)]
    assert pool.rejects[0].reason.startswith(reason)
    assert pool.queries == without.queries
    assert [query.id for query in pool.queries] == ["pool/row@1.1", "pool/row@1.3"]
    assert (pool.rows, without.rows, len(without.rejects)) == (3, 2, 0)
    assert records.read(folder.parent / "rejects.parquet", records.Reject) == []
    read(folder, [bad])
    assert [r.reason for r in records.read(folder.parent / "rejects.parquet", records.Reject)] == [
        pool.rejects[0].reason
    ]


PREFERENCE = {"id": "q", "prompt": "What ?", "image": "red.png", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": "Which ?"}, "duplicate id: an earlier row asks something else as 'pool/q'"),
        ({"image": "blue.jpg"}, "duplicate id"),
        ({"id": "new", "prompt": None}, "empty prompt"),
        ({"id": "new", "prompt": 3}, "wrong type: prompt is int"),
        ({"id": "new", "answer": ["a"]}, "wrong type: answer is list"),
        ({"id": 2.5}, "wrong type: id is float"),
        ({"id": None, "idx": []}, "wrong type: idx is list"),
    ],
)
def test_a_bad_preference_row_is_set_aside(folder, change, reason):
    pool = read(folder, [line(PREFERENCE), line(PREFERENCE | change)], "preferences")
    assert [query.id for query in pool.queries] == ["pool/q"]
    assert [(reject.row, reject.reason.startswith(reason)) for reject in pool.rejects] == [(2, True)]


def test_pairs_of_one_question_are_one_query(folder):
    same_picture = PREFERENCE | {"image": "same.png", "chosen": "c"}
    lines = [PREFERENCE | {"image": "text.png"}, PREFERENCE, PREFERENCE | {"rejected": "c"}, same_picture]
    pool = read(folder, [line(row) for row in lines], "preferences")
    assert [(query.id, query.media) for query in pool.queries] == [("pool/q", ("red.png",))]
    assert (pool.rows, pool.repeats, len(pool.rejects)) == (4, 2, 1)


def test_names_of_preference_rows(folder):
    given = [{"id": 0}, {"id": None, "idx": 12}, {"id": "", "idx": ""}, {"id": "x", "idx": 12}]
    pool = read(folder, [line(PREFERENCE | change) for change in given], "preferences")
    assert [query.id for query in pool.queries] == ["pool/0", "pool/12", "pool/@1.3", "pool/x"]
    asked = [{"idx": 1, "question": "Why ?", "image": "red.png", "answer": "So ."}]
    assert read(folder, [line(row) for row in asked], "preferences").queries[0].answer == "So ."


def test_the_topic_is_the_file_without_its_shard(folder):
    for name, topic in (("vlguard.jsonl", "vlguard"), ("chat-00003-of-00012.jsonl", "chat"), ("a-of-b.json", "a-of-b")):
        file = folder.parent / name
        file.write_bytes(GOOD[0])
        pool = sources.read([file], Source("pool", "conversations", folder), folder.parent / "rejects.parquet")
        assert [query.topic for query in pool.queries] == [topic]


def test_turns_become_queries_that_keep_the_picture_and_the_turns_before(folder):
    rows = [line(talk("<image>\nWhat ?", "A car .", "Which colour ?", "Red .", "Sure ?", image="red.png"))]
    queries = read(folder, rows).queries
    assert [q.id for q in queries] == ["pool/row@1.1#1", "pool/row@1.1#2", "pool/row@1.1#3"]
    assert [q.answer for q in queries] == ["A car .", "Red .", ""]
    assert {(q.media, q.modality, q.group, q.category) for q in queries} == {
        (("red.png",), "image", storage.sha256_bytes(picture())[:16], "")
    }
    before = "User: What ?\nAssistant: A car .\nUser: Which colour ?"
    assert [q.prompt for q in queries] == ["What ?", before, before + "\nAssistant: Red .\nUser: Sure ?"]
    alone = read(folder, rows, turns="alone").queries
    assert [q.prompt for q in alone] == ["What ?", "Which colour ?", "Sure ?"]
    assert [(q.id, q.answer, q.media, q.group) for q in alone] == [(q.id, q.answer, q.media, q.group) for q in queries]


def test_an_answer_that_is_no_context_may_name_a_mark(folder):
    row = line(talk("<image> what ?", "an <image> tag", image="red.png"))
    assert read(folder, [row]).queries[0].answer == "an <image> tag"


def test_dropped_system_texts_and_missing_answers_are_counted(folder):
    spoken = talk("<image> what ?", "a car", "why ?", None, image="red.png")
    first = spoken | {"conversations": [{"from": "system", "value": "Be kind ."}, *spoken["conversations"]]}
    pool = read(folder, [line(first), line(spoken | {"system": "Be kind ."}), line(talk("hi", "ho", image="red.png"))])
    assert pool.left_out == {"system text": 2, "missing answer": 2}
    assert [q.id for q in pool.queries][::2] == ["pool/row@1.1#1", "pool/row@1.2#1", "pool/row@1.3"]
    given = [line(PREFERENCE | {"system": "Be kind ."}), line(PREFERENCE | {"id": "r"})]
    assert read(folder, given, "preferences").left_out == {"system text": 1}


def test_a_turn_sees_the_pictures_shown_so_far(folder):
    row = talk("<image> What ?", "A .", "And <image> here ?", "B .", image=["red.png", "blue.jpg"])
    one, two = read(folder, [line(row)]).queries
    assert (one.prompt, one.media, one.modality) == ("What ?", ("red.png",), "image")
    assert (two.media, two.modality) == (("red.png", "blue.jpg"), "images")
    assert two.prompt == "User: What ?\nAssistant: A .\nUser: And [image 2] here ?"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("What ?", "What ?"),
        (" What ?\n", " What ?\n"),
        ("<image>\nWhat ?", "What ?"),
        ("What ?\n<image>", "What ?"),
        ("<image>\n<image>\nWhich ?", "Which ?"),
        ("the tag <video> ?", "the tag <video> ?"),
        ("In <image>, find v .", "In [image 1], find v ."),
        ("First: <image>\nSecond: <image>\nWhich ?", "First: [image 1]\nSecond: [image 2]\nWhich ?"),
        ("<image> is left of <image> ?", "[image 1] is left of [image 2] ?"),
        ("<image> \n <image>", ""),
        ("<Image> tag", "<Image> tag"),
    ],
)
def test_marks_leave_the_prompt_or_get_a_number(text, plain):
    assert sources.plain_prompt(text) == plain


def test_either_mark_stands_for_a_clip(folder):
    table = [talk(f"{mark}\nWhat ?", "It .", video="clip") for mark in ("<video>", "<image>")]
    assert [query.prompt for query in read(folder, [line(row) for row in table]).queries] == ["What ?"] * 2
    assert sources.plain_prompt("In <video> , what ?", clip=True) == "In [video 1] , what ?"


def test_media_paths_come_back_plain_and_frames_in_natural_order(folder):
    pool = read(folder, [line(talk("<video>\nWhat happens ?", "It moves .", video="clip"))])
    [query] = pool.queries
    assert query.media == ("clip/frame1.png", "clip/frame2.png", "clip/frame10.png")
    assert (query.modality, query.category, query.prompt) == ("video", "video", "What happens ?")
    listed = read(folder, [line(talk("What ?", "It .", video=["clip/frame2.png", "clip/frame1.png"]))])
    assert listed.queries[0].media == ("clip/frame2.png", "clip/frame1.png")
    assert listed.queries[0].group != query.group
    pool = read(folder, [line(talk("hi", "ho", image="./deep/../deep//green.webp"))])
    assert pool.queries[0].media == ("deep/green.webp",)


def test_queries_that_share_a_picture_share_a_group(folder):
    lists = [["red.png"], ["blue.jpg", "deep/green.webp"], ["deep/green.webp"], ["same.png", "blue.jpg"]]
    lists.append(["clip/frame2.png"])
    pool = read(folder, [line(talk("hi", "ho", image=names)) for names in lists])
    groups = [query.group for query in pool.queries]
    assert len(set(groups[:4])) == 1
    assert groups[4] != groups[0]
    assert all(len(group) == 16 for group in groups)
    clips = [talk("hi", "ho", video=["clip/frame1.png", f"clip/frame{number}.png"]) for number in (2, 10)]
    assert len({query.group for query in read(folder, [line(row) for row in clips]).queries}) == 2
    apart = read(folder, [line(talk("hi", "ho", image=lists[number])) for number in (0, 2, 4)])
    assert len({query.group for query in apart.queries}) == 3


def test_a_broken_element_of_an_array_that_is_whole_is_a_reject(folder, tmp_path):
    (tmp_path / "a.json").write_bytes(b"[" + GOOD[0] + b',7,{"id": "\xff"},' + GOOD[1] + b"]\n")
    pool = sources.read([tmp_path / "a.json"], Source("p", "conversations", folder), tmp_path / "r.parquet", 1)
    assert [(r.row, r.reason) for r in pool.rejects] == [(2, "wrong type: the row is int"), (3, "not UTF-8: byte 0xff")]
    assert len(pool.queries) == 2


def test_embedded_pictures_are_stored_by_content(folder, tmp_path):
    red, blue = picture(), picture("blue", "JPEG")
    shapes = [red, {"bytes": red, "path": "old.png"}, [{"bytes": blue, "path": None}, {"bytes": red, "path": None}]]
    for number, shape in enumerate(shapes):
        table = [
            {"idx": 0, "question": "What ?", "image": shape},
            {"idx": 1, "question": "What ?", "image": [{**part, "bytes": part["bytes"][:30]} for part in shape]}
            if type(shape) is list
            else {"idx": 1, "question": "What ?", "image": red[:30] if type(shape) is bytes else {"bytes": red[:30]}},
        ]
        pq.write_table(pa.Table.from_pylist(table), tmp_path / "rows.parquet")
        base = tmp_path / f"media{number}"
        base.mkdir()
        source = Source("rlaif", "preferences", base)
        pool = sources.read([tmp_path / "rows.parquet"], source, tmp_path / "r.parquet", 0.5)
        expected = [blue, red] if number == 2 else [red]
        [query] = pool.queries
        assert [(base / name).read_bytes() for name in query.media] == expected
        assert all(storage.sha256_bytes(data) in name for data, name in zip(expected, query.media, strict=True))
        assert {p for p in base.rglob("*") if p.is_file()} == {base / name for name in query.media}
        assert [(r.row, r.reason) for r in pool.rejects] == [(2, "unreadable picture: embedded bytes")]


def test_a_folder_of_pictures_and_a_folder_of_clips(folder, tmp_path):
    base = tmp_path / "set"
    for number in (1, 2, 10):
        (base / f"clip{number}").mkdir(parents=True)
        for frame in (9, 11):
            (base / f"clip{number}/f{frame}.png").write_bytes(picture((number, frame, 0)))
    (base / "clip2/f11.png").write_bytes(b"torn")
    (base / "clip3").mkdir()
    (base / ".DS_Store").write_bytes(b"")
    source = Source("mine", "preferences", base)
    clips = sources.read_folder("What happens ?", True, source, tmp_path / "r.parquet", 0.5)
    assert [q.id for q in clips.queries] == ["mine/clip1", "mine/clip10"]
    assert clips.queries[1].media == ("clip10/f9.png", "clip10/f11.png")
    assert [(r.file, r.row, r.reason) for r in clips.rejects] == [
        ("set", 2, "unreadable picture: 'clip2/f11.png'"),
        ("set", 3, "zero frames: 'clip3'"),
    ]
    flat = sources.read_folder("What is it ?", False, source, tmp_path / "r.parquet", 0.5)
    names = ["clip1/f9.png", "clip1/f11.png", "clip2/f9.png", "clip10/f9.png", "clip10/f11.png"]
    assert [q.media for q in flat.queries] == [(name,) for name in names]
    assert {(q.category, q.prompt, q.modality) for q in flat.queries} == {("", "What is it ?", "image")}
    assert [(r.row, r.reason) for r in flat.rejects] == [(4, "unreadable picture: 'clip2/f11.png'")]


def test_over_the_share_reading_stops_and_names_the_reasons_and_the_file(folder):
    lines = [GOOD[0]] * 6 + [line(BAD["truncated PNG"][0])] * 3 + [line(BAD["no media"][0])]
    assert sources.faults(read(folder, lines, share=0.4).rejects) == {"unreadable picture": 3, "no media": 1}
    with pytest.raises(SourceError) as caught:
        read(folder, lines, share=0.39)
    named = ("4 of 10", "0.39", "unreadable picture (3), no media (1)", str(folder.parent / "rejects.parquet"))
    assert [part for part in named if part not in str(caught.value)] == []
    assert len(records.read(folder.parent / "rejects.parquet", records.Reject)) == 4


def test_what_is_not_there_or_breaks_off_is_one_sentence(folder, tmp_path):
    source = Source("pool", "conversations", folder)

    def says(words: str, name: str = "rows", data: bytes | None = None, given: Source = source) -> None:
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(SourceError) as caught:
            sources.read([tmp_path / name], given, tmp_path / "r.parquet", 1)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)

    says("nowhere.json is not there", "nowhere.json")
    says("holds no rows", data=b"\n\n")
    says("holds no rows", data=b"[ ]\n")
    says("breaks off in row 2", data=b"[" + GOOD[0] + b"," + GOOD[1][:-9])
    says("'chat'", given=replace(source, layout="chat"))
    says("'both'", given=replace(source, turns="both"))
    says("gone", given=replace(source, media=tmp_path / "gone"))


def test_files_are_found_in_natural_order_and_rows_keep_their_file(folder, tmp_path):
    for name in ("part-10.jsonl", "part-9.jsonl", "deep/part-1.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(GOOD[0] + b"{\n")
    files, _ = sources.row_files(str(tmp_path))
    assert [file.name for file in files] == ["part-1.jsonl", "part-9.jsonl", "part-10.jsonl"]
    source = Source("pool", "conversations", folder)
    pool = sources.read(files, source, tmp_path / "r.parquet", 0.5)
    assert [q.id for q in pool.queries] == ["pool/row@1.1", "pool/row@2.1", "pool/row@3.1"]
    assert [(r.file, r.row) for r in pool.rejects] == [(file.name, 2) for file in files]
    assert sources.read(files, source, tmp_path / "r.parquet", 0.5, limit=3).queries == pool.queries[:2]


def test_of_a_folder_only_files_of_rows_are_read_and_the_others_are_counted(tmp_path):
    (tmp_path / "dvc.yaml").touch()
    others = ("README.md", "a.png", "b/c.png", "LICENSE", ".gitattributes", ".cache/x.json")
    names = ("rows.json", "b/rows.parquet", "rows.jsonl")
    for name in (*names, *others):
        (tmp_path / "pool" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pool" / name).write_bytes(b"[]")
    files, left_out = sources.row_files(str(tmp_path / "pool"))
    assert [file.relative_to(tmp_path / "pool").as_posix() for file in files] == sorted(names)
    assert left_out == {".md file": 1, ".png file": 2, "LICENSE file": 1}
    assert sources.row_files(str(tmp_path / "pool/LICENSE")) == ([tmp_path / "pool/LICENSE"], {})
    for name in names:
        (tmp_path / "pool" / name).unlink()
    with pytest.raises(SourceError, match=r"\.json, \.jsonl, \.parquet .*\.png file \(2\)"):
        sources.row_files(str(tmp_path / "pool"))


def test_a_pool_is_found_locally_or_in_the_hub_cache_or_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "data/mine").mkdir(parents=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("the network was asked"))
    repository = tmp_path / "hub/datasets--some--pool"
    for folder in ("snapshots/0123456789abcdef", "refs"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs/main").write_text("0123456789abcdef")
    assert sources.locate("data/mine") == tmp_path / "data/mine"
    assert sources.locate("some/pool") == repository / "snapshots/0123456789abcdef"
    for absent in ("other/pool", "data/a/b/c", ""):
        with pytest.raises(SourceError) as caught:
            sources.locate(absent)
        assert all(text in str(caught.value) for text in (repr(absent), str(tmp_path / absent), str(tmp_path / "hub")))


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_do_not_change_the_pool(folder, threads):
    table = [line(row) if type(row) is not bytes else row for row, _ in BAD.values()] + GOOD * 40
    one, many = read(folder, table, threads=2), read(folder, table, threads=threads)
    assert one == many
    assert len(one.rejects) == len(BAD)


PATHS = [
    "red.png",
    "blue.jpg",
    "deep/green.webp",
    "text.png",
    "cut.png",
    "../outside.png",
    "clip",
    "torn",
    "nowhere",
    "",
]
texts = st.sampled_from(["What ?", "<image>\nWhy ?", "<image> and <image>", "", "\ud800"]) | st.text(max_size=8)
junk = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.lists(texts, max_size=2)
paths = st.sampled_from(PATHS)
pictures = paths | st.lists(paths, max_size=3) | junk
turn = st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt", "system"]), "value": texts | junk})
talks = st.lists(texts, min_size=1, max_size=4).map(lambda said: talk(*said)["conversations"]) | st.lists(turn | junk)
KEYS = {"id": texts | junk, "conversations": talks, "prompt": texts | junk, "image": pictures, "video": paths | junk}
mostly = {"id": texts, "conversations": talks, "prompt": texts, "image": paths | st.lists(paths, max_size=2)}
generated = (
    st.fixed_dictionaries(mostly) | st.fixed_dictionaries({}, optional=KEYS) | junk | st.dictionaries(texts, junk)
).map(lambda row: json.dumps(row).encode() + b"\n")
raw = st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"") + b"\n").filter(bytes.strip)


@settings(max_examples=60, deadline=None)
@given(st.lists(generated | raw, max_size=6), st.sampled_from(sorted(sources.ROW_FORMATS)), st.randoms())
def test_every_row_is_queries_or_a_repeat_or_one_reject_and_rows_do_not_touch_each_other(folder, lines, layout, random):
    lines.insert(random.randrange(len(lines) + 1), GOOD[0] if layout == "conversations" else line(PREFERENCE))
    blank = [row.decode("utf-8", "replace").strip() == "" for row in lines]
    pool = read(folder, lines, layout)
    rejected = [reject.row for reject in pool.rejects]
    assert rejected == sorted(set(rejected))
    assert pool.rows == len(lines) - sum(blank)
    only_good = [b"\n" if number in rejected else row for number, row in enumerate(lines, 1)]
    again = read(folder, only_good, layout)
    assert again.rejects == ()
    assert (again.queries, again.repeats) == (pool.queries, pool.repeats)
    alone = [read(folder, [b"\n"] * number + [row], layout) for number, row in enumerate(only_good) if row.strip()]
    assert [q.id for p in alone for q in p.queries if layout == "conversations"] == [
        q.id for q in pool.queries if layout == "conversations"
    ]
    assert sum(bool(p.queries) for p in alone) == pool.rows - len(rejected)
    for query in pool.queries:
        assert all((folder / name).is_file() for name in query.media)
    assert len({query.id for query in pool.queries}) == len(pool.queries)


KINDS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
)
def test_a_damaged_picture_is_decoded_or_refused_and_nothing_else(kind, cut, flips):
    data = bytearray(picture("blue", kind, (24, 20)))
    for place, value in flips:
        data[place % len(data)] = value
    data = bytes(data[: 1 + cut % (2 * len(data))])
    with media.quiet():
        try:
            outcome = sources.embedded(data).digest
        except media.MediaError as error:
            outcome = str(error).split(":")[0]
    assert outcome in (storage.sha256_bytes(data), "unreadable picture", "picture too large")


def test_a_picture_that_came_as_bytes_is_stored_once_under_its_content(tmp_path):
    data = picture()
    embedded = sources.embedded(data)
    assert storage.sha256_bytes(data) == embedded.digest
    assert embedded.path == f"embedded/{embedded.digest[:2]}/{embedded.digest}.png"
    sources.keep(tmp_path, [embedded, embedded._replace(data=None)])
    sources.keep(tmp_path, [embedded])
    assert media.stored(tmp_path, embedded.path) == embedded._replace(data=None)
    assert (tmp_path / embedded.path).read_bytes() == data


def test_large_files_do_not_sit_in_memory(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "CHUNK", 4096)
    with open(tmp_path / "rows.json", "wb") as stream:
        stream.write(b"[" + b",".join([GOOD[0]] * 5000) + b"]")
    seen: list[int] = []
    real = json.JSONDecoder.raw_decode

    def watched(self: json.JSONDecoder, text: str, at: int = 0) -> Any:
        seen.append(len(text))
        return real(self, text, at)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", watched)
    assert sum(1 for _ in rows.read(tmp_path / "rows.json")) == 5000
    assert max(seen) < 3 * 4096 < (tmp_path / "rows.json").stat().st_size
    monkeypatch.setattr(rows, "MAX_ROW", 10_000)
    (tmp_path / "rows.json").write_bytes(b'["' + b"x" * 100_000 + b'"]')
    seen.clear()
    with pytest.raises(SourceError, match="breaks off in row 1"):
        list(rows.read(tmp_path / "rows.json"))
    assert max(seen) < 20_000
