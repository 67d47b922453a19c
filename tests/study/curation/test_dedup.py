"""Near-duplicates: against all-pairs search, and the keep-first rule."""

from dataclasses import replace

import numpy as np
import pytest
from drawings import drawing
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmrlhf_core.data.records import Query
from mmrlhf_study.curation import dedup


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)


def planted(n=1000, twins=100, d=64, seed=0, cosine=0.97):
    """n clumped points and `twins` more at this cosine to the first ones."""
    rng = np.random.default_rng(seed)
    x = unit(rng.standard_normal((20, d))[rng.integers(0, 20, n)] + 0.7 * rng.standard_normal((n, d)))
    away = rng.standard_normal((twins, d))
    base = x[:twins].astype(np.float64)
    away -= (away * base).sum(1, keepdims=True) / (base * base).sum(1, keepdims=True) * base
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    return np.concatenate([x, unit(cosine * base + (1 - cosine**2) ** 0.5 * away)])


def all_pairs(x, threshold):
    wide = x.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    i, j = np.nonzero(np.triu(wide @ wide.T >= threshold, 1))
    return {(int(a), int(b)) for a, b in zip(i, j, strict=True)}


def test_one_cell_finds_exactly_what_all_pairs_finds(monkeypatch):
    monkeypatch.setattr(dedup, "SIMILARITIES_HELD", 37)
    x = planted(300, 40)
    found = dedup.near_pairs(x, 0.9, probes=3, seed=0)
    assert {tuple(pair) for pair in found.tolist()} == all_pairs(x, 0.9)
    assert len(found) >= 40


def test_a_finer_partition_finds_the_planted_pairs_and_nothing_wrong():
    x = planted()
    found = {tuple(pair) for pair in dedup.near_pairs(x, 0.95, probes=3, seed=0, cells=30).tolist()}
    truth = all_pairs(x, 0.95)
    assert found <= truth
    assert len(found) >= 0.99 * len(truth)
    assert sum((i, 1000 + i) in found for i in range(100)) >= 99


def test_more_probes_find_more():
    x = planted(800, 200, cosine=0.9)
    counts = [len(dedup.near_pairs(x, 0.85, probes, seed=0, cells=80)) for probes in (1, 3, 80)]
    assert counts[0] < counts[1] <= counts[2] == len(all_pairs(x, 0.85))


def test_the_threshold_counts_as_near_and_zero_is_refused():
    x = unit(np.array([[1, 0], [1, 0], [0, 1]]))
    assert dedup.near_pairs(x, 1, probes=1, seed=0).tolist() == [[0, 1]]
    assert dedup.near_pairs(unit(np.eye(8)), 0.9, 1, 0).shape == (0, 2)
    with pytest.raises(ValueError, match="threshold of 0"):
        dedup.near_pairs(planted(10, 2), 0, probes=1, seed=0)


def query(name, prompt="how many ?", media=("a.png",)):
    kind = "image" if len(media) == 1 else "video"
    return Query(name, prompt, kind, tuple(media), answer="2")


CHAIN = [query(name, media=(name,)) for name in "abc"]
CLIPS = [query(name, media=(f"{name}1", f"{name}2")) for name in "abc"]
BEGIN_ALIKE = {"a1": {"b1", "c1"}, "b1": {"a1", "c1"}, "c1": {"a1", "b1"}, "a2": {"c2"}, "c2": {"a2"}}
QUESTIONS = [query("a"), query("b", "what colour ?"), query("c", "How  many ?"), query("d", media=("b.png",))]


@pytest.mark.parametrize(
    ("rows", "near", "dropped"),
    [
        (QUESTIONS, {"a.png": {"b.png"}, "b.png": {"a.png"}}, {"c": "a", "d": "a"}),  # another question stays
        (CLIPS, BEGIN_ALIKE, {"c": "a"}),  # clips that only begin alike stay
        # a ~ b ~ c but a and c differ: b goes, c stays, because no kept query repeats it
        (CHAIN, {"a": {"b"}, "b": {"a", "c"}, "c": {"b"}}, {"b": "a"}),
    ],
)
def test_the_first_query_is_kept_and_its_repeats_go(rows, near, dropped):
    assert dedup.keep_first(rows, near) == dropped


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 14), st.sets(st.tuples(st.integers(0, 13), st.integers(0, 13))), st.randoms())
def test_what_is_kept_is_maximal_and_free_of_repeats_in_any_order(n, edges, dice):
    rows = [query(f"q{i:02d}", media=(f"p{i:02d}",)) for i in range(n)]
    pairs = np.array([(i, j) for i, j in edges if i < j < n], np.int64).reshape(-1, 2)
    near = dedup.neighbours([q.media[0] for q in rows], pairs)
    dropped = dedup.keep_first(rows, near)
    other = dice.sample(rows, n)
    assert dedup.keep_first(other, near) == dropped
    kept = {q.media[0] for q in rows if q.id not in dropped}
    assert not any(near.get(name, set()) & kept for name in kept)
    assert all(target not in dropped and target < name for name, target in dropped.items())
    assert all(f"p{target[1:]}" in near[f"p{name[1:]}"] for name, target in dropped.items())


def test_planted_shares_by_hand():
    rows = [query("a"), replace(query("a~crop"), plant="a"), query("b"), replace(query("b~tint"), plant="b")]
    assert dedup.planted_shares(rows, {"a~crop": "a", "b": "a"}) == (1, 2, 1)
    near = {"a.png": {"b.png"}, "b.png": {"a.png"}}
    assert dedup.planted_shares(rows, dedup.keep_first(rows, near)) == (2, 2, 1)


def test_thumbnails_agree_through_tint_and_noise_and_not_between_pictures(media):
    with Image.open(media / "p00.png") as picture:
        first, changed = picture.convert("RGB"), picture.point(lambda value: min(value + 20, 255))
    noisy = np.asarray(first).astype(int) + np.random.default_rng(0).integers(-12, 13, (64, 64, 3))
    noisy = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    own = dedup.thumbnail(first)
    assert np.linalg.norm(own) == pytest.approx(1, abs=1e-5)
    assert own @ dedup.thumbnail(noisy) > 0.98
    assert own @ dedup.thumbnail(changed) > 0.95
    assert own @ dedup.thumbnail(drawing(3)[0]) < 0.5
    assert not dedup.thumbnail(Image.new("RGB", (9, 9), "red")).any()


def test_agreement_and_cosines_of_pairs(media):
    paths, pairs = [f"p{i:02d}.png" for i in range(9)], np.array([[0, 6], [2, 8]])
    found = dedup.agreement(pairs, paths, media)
    thumbs = [dedup.thumbnail(drawing(i)[0]) for i in range(9)]
    assert found == pytest.approx([thumbs[0] @ thumbs[6], thumbs[2] @ thumbs[8]], abs=1e-5)
    x = unit(np.random.default_rng(0).standard_normal((9, 4)))
    assert dedup.pair_cosines(x, pairs) == pytest.approx([x[0] @ x[6], x[2] @ x[8]], abs=2e-3)
