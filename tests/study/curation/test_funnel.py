"""No query is lost without a reason."""

import pytest
from PIL import Image

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Query
from mmrlhf_study.curation import funnel
from mmrlhf_study.curation.funnel import Removed


def query(name):
    return Query(name, "p", "image", ("a.png",))


def test_table_and_reasons_by_hand():
    removed = [Removed("a", "leak", "exact", "e"), Removed("b", "duplicate", "same", "d"), Removed("c", "leak", "x")]
    assert funnel.table(10, removed) == [
        ("pool", 0, 10),
        ("unreadable", 0, 10),
        ("unclassed", 0, 10),
        ("duplicate", 1, 9),
        ("leak", 2, 7),
        ("not drawn", 0, 7),
    ]
    pool = [query("a"), query("b")]
    funnel.check(pool, [query("a")], [Removed("b", "leak", "exact")])
    with pytest.raises(ValueError, match=r"2 .* 1 .* b"):
        funnel.check(pool, [query("a")], [])
    with pytest.raises(ValueError, match=r"2 .* 3 .* a"):
        funnel.check(pool, [query("a")], [Removed("a", "leak", "exact"), Removed("b", "leak", "exact")])


def test_what_is_removed_keeps_its_reason():
    rows = funnel.remove([query("a"), query("b")], "leak", {"b": ("exact", "e.png")})
    assert rows == ([query("a")], [Removed("b", "leak", "exact", "e.png")])
    with pytest.raises(records.RecordError, match="step is 'lost'"):
        Removed("a", "lost", "why")


def test_the_query_set_holds_its_own_pictures(media, tmp_path):
    rows = [Query("a", "p", "image", ("p01.png",)), Query("a~adversarial", "p", "image", ("made/x.png",))]
    image = Image.new("RGB", (4, 4), "red")
    gone = [Removed("b", "leak", "exact")]
    for name in ("one", "two"):
        funnel.write(tmp_path / name, rows, gone, media, {"made/x.png": image})
    assert records.read(tmp_path / "one/queries.parquet", Query) == rows
    assert records.read(tmp_path / "one/removed.parquet", Removed) == gone
    assert (tmp_path / "one/media/p01.png").read_bytes() == (media / "p01.png").read_bytes()
    assert Image.open(tmp_path / "one/media/made/x.png").tobytes() == image.tobytes()
    assert storage.sha256_tree(tmp_path / "one") == storage.sha256_tree(tmp_path / "two")
