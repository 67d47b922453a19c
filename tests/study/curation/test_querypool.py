"""The pool by name: drawn or read, written once, read back the same."""

import pytest
from PIL import Image

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Reject
from mmrlhf_study.curation import querypool


def test_a_drawn_pool_is_whole_reproducible_and_leaves_seen_scenes_out(bare):
    first = querypool.build("miniworld", "data/pool", size=40, seed=2)
    before = storage.sha256_tree(bare / "data")
    querypool.build("miniworld", "data/pool", size=40, seed=2)
    assert storage.sha256_tree(bare / "data") == before
    queries, media = querypool.read("data/pool")
    assert tuple(queries) == first.queries
    assert all((media / path).is_file() for query in queries for path in query.media)
    assert records.read("data/pool/rejects.parquet", Reject) == []
    hashes = querypool.scene_hashes(queries)
    assert hashes
    other = querypool.build("miniworld", "data/other", seen=frozenset(hashes), size=40, seed=2)
    assert not hashes & querypool.scene_hashes(other.queries)


def test_a_folder_of_pictures_is_a_pool_with_its_rejects(bare):
    for number in range(4):
        (bare / "album").mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (number, 0, 0)).save(bare / f"album/{number}.png")
    (bare / "album/broken.png").write_bytes(b"no picture")
    pool = querypool.build("pictures", "data/pool", media="album", prompt="what is it ?", max_reject_share=0.5)
    queries, media = querypool.read("data/pool")
    assert (len(queries), len(pool.rejects), pool.rows) == (4, 1, 5)
    assert media == bare / "album"
    assert querypool.scene_hashes(queries) == set()
    assert not (bare / "data/pool/media").exists()


def test_a_folder_may_hold_rows_beside_media_and_texts(bare):
    turns = [("human", "<image> what ?"), ("gpt", "a square"), ("human", "why ?"), ("gpt", "so")]
    row = {"image": "a.png", "system": "Be kind .", "conversations": [{"from": a, "value": b} for a, b in turns]}
    storage.write_json("mix/rows.json", [row])
    Image.new("RGB", (64, 64)).save(bare / "mix/a.png")
    storage.write_text("mix/README.md", "# Rows")
    pool = querypool.build("conversations", "data/pool", files=("mix",), media="mix", max_reject_share=0)
    assert [query.prompt for query in pool.queries] == ["what ?", "User: what ?\nAssistant: a square\nUser: why ?"]
    assert pool.left_out == {".md file": 1, ".png file": 1, "system text": 1}
    alone = querypool.build("conversations", "data/pool", files=("mix",), media="mix", turns="alone")
    assert [query.prompt for query in alone.queries] == ["what ?", "why ?"]


def test_a_pool_that_does_not_say_where_its_media_are(bare):
    for content in (None, [], {"folder": None}):
        storage.write_json("data/pool/media.json", content)
        with pytest.raises(ValueError, match="media"):
            querypool.read("data/pool")


def test_an_unknown_kind_is_named(bare):
    with pytest.raises(ValueError, match="'llava'"):
        querypool.build("llava", "data/pool")
