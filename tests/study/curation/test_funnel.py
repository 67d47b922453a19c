"""No query is lost without a reason, from end to end."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Query
from mmrlhf_study.curation import cluster, dedup, funnel, sample
from mmrlhf_study.curation.funnel import Removed


def query(name):
    return Query(name, "p", "image", ("a.png",))


def test_table_by_hand():
    removed = [Removed("a", "leak", "exact", "e"), Removed("b", "duplicate", "same", "d"), Removed("c", "leak", "x")]
    assert funnel.table(10, removed) == [
        ("pool", 0, 10),
        ("unreadable", 0, 10),
        ("unclassed", 0, 10),
        ("duplicate", 1, 9),
        ("leak", 2, 7),
        ("not drawn", 0, 7),
    ]


def test_what_does_not_add_up_is_named():
    pool = [query("a"), query("b")]
    funnel.check(pool, [query("a")], [Removed("b", "leak", "exact")])
    with pytest.raises(ValueError, match=r"2 queries came in and 1 are accounted for.* is b"):
        funnel.check(pool, [query("a")], [])
    with pytest.raises(ValueError, match=r"3 are accounted for.* is a"):
        funnel.check(pool, [query("a")], [Removed("a", "leak", "exact"), Removed("b", "leak", "exact")])


def test_reasons_are_records(tmp_path):
    rows = funnel.remove([query("a"), query("b")], "leak", {"b": ("exact", "e.png")})
    assert rows == ([query("a")], [Removed("b", "leak", "exact", "e.png")])
    records.write(tmp_path / "removed.parquet", rows[1], Removed)
    assert records.read(tmp_path / "removed.parquet", Removed) == rows[1]
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


def curate(pool, embeddings, threshold, counts, seed):
    """The chapter's filters on ready embeddings, one row per picture name."""
    queries = sorted(pool, key=lambda q: q.id)
    names = sorted(embeddings)
    kinds = {q.id: sample.category(q) for q in queries}
    queries, removed = funnel.remove(queries, "unclassed", {i: ("no answer", "") for i, k in kinds.items() if not k})
    x = np.stack([embeddings[name] for name in names])
    pairs = dedup.near_pairs(x, threshold, 1, seed)
    dropped = dedup.keep_first(queries, dedup.neighbours(names, pairs))
    queries, gone = funnel.remove(queries, "duplicate", {i: ("repeats", other) for i, other in dropped.items()})
    labels = dict(zip(names, cluster.kmeans(x, 4, seed).labels.tolist(), strict=True))
    clusters = {q.id: labels[q.media[0]] for q in queries}
    there = {kind: sum(kinds[q.id] == kind for q in queries) for kind in counts}
    drawn = sample.draw(queries, kinds, clusters, {k: min(n, there[k]) for k, n in counts.items()}, seed)
    rest = {q.id: ("not drawn", "") for q in queries if q.id not in drawn}
    kept, late = funnel.remove(queries, "not drawn", rest)
    return kept, [*removed, *gone, *late]


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 40), st.integers(0, 10**6), st.randoms())
def test_the_filters_add_up_and_order_changes_nothing(n, seed, dice):
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((max(n // 2, 4), 8))
    vectors = np.repeat(base, 3, 0)[:n] + 0.1 * rng.standard_normal((n, 8))
    embeddings = {f"p{i:02d}": (v / np.linalg.norm(v)).astype(np.float16) for i, v in enumerate(vectors)}
    prompts = ("how many ?", "which ? (a) x (b) y", "tell me")
    answers = ("", "2", "x" * 200)
    pool = [
        Query(f"q{i:02d}", prompts[rng.integers(3)], "image", (f"p{i:02d}",), answer=answers[rng.integers(3)])
        for i in range(n)
    ]
    kept, removed = curate(pool, embeddings, 0.95, {"long": 3, "short": 4, "mcq": 1}, seed)
    funnel.check(pool, kept, removed)
    assert funnel.table(n, removed)[-1][2] == len(kept)
    assert all(row.reason for row in removed)
    assert curate(dice.sample(pool, n), embeddings, 0.95, {"long": 3, "short": 4, "mcq": 1}, seed) == (kept, removed)
