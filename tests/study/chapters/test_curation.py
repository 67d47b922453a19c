"""The sentences of chapter 01 hold its numbers and verdicts; cards and grids show every picture."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmrlhf_core.data.records import Query
from mmrlhf_study.chapters import curation
from mmrlhf_study.evaluation.compare import BETTER, OPEN, WORSE

PLANTS = pd.DataFrame(
    [("crop", 0.6, 0.5, 0.7), ("noise", 0.99, 0.9, 1.0), ("tint", 0.8, 0.7, 0.9)],
    columns=["planted", "recall", "low", "high"],
)


def effect(even, random, sizes=(10, 100, 200)):
    """Every measure is `even` or `random` (mean, low, high) at every size."""
    ways = {"even over clusters": even, "at random": random}
    rows = [(m, how, n, *values) for m in curation.VARIETY for how, values in ways.items() for n in sizes]
    return pd.DataFrame(rows, columns=["measure", "drawn", "queries", "mean", "low", "high"])


def test_best_and_worst_plant_and_where_drops_are_wrong():
    first, second = curation.duplicates(PLANTS, {"sign": 2, "chart": 3}, 50)
    assert first.index("noise (0.99 [0.90, 1.00])") < first.index("crop (0.60 [0.50, 0.70])")
    assert second.startswith("5 of 50 ")
    assert "(chart 3, sign 2)" in second
    assert "0 of 50" in curation.duplicates(PLANTS, {}, 50)[1]
    (only,) = curation.duplicates(PLANTS[:0], {}, 7)
    assert "7" not in only


def test_the_gate_names_byte_equal_pictures_only_where_there_are_some():
    left, exact, canaries = curation.gate({"hash": 2, "exact": 7}, 49, 50)
    assert "9 queries (exact 7, hash 2)" in left
    assert " 7 of them" in exact
    assert "49 of 50" in canaries
    assert "0.98 [0.90, 1.00]" in canaries
    (left,) = curation.gate({}, 0, 0)
    assert "0 queries" in left


@pytest.mark.parametrize(
    ("even", "random", "verdicts"),
    [
        ((0.9, 0.8, 1.0), (0.5, 0.4, 0.6), (BETTER, BETTER, WORSE)),  # a larger largest combination is worse
        ((0.5, 0.4, 0.6), (0.9, 0.8, 1.0), (WORSE, WORSE, BETTER)),
        ((0.5, 0.4, 0.6), (0.6, 0.6, 0.7), (OPEN, OPEN, OPEN)),
    ],
)
def test_a_verdict_needs_intervals_that_do_not_meet(even, random, verdicts):
    first, *middle, last = curation.drawing({"long": (1, 4)}, effect(even, random))
    assert "long 1 of 4" in first
    assert [sentence.rpartition(": ")[2].rstrip(".") for sentence in middle] == list(verdicts)
    assert "From 100 to 200" in last
    assert "+0.000" in last
    assert len(curation.drawing({}, effect(even, random, sizes=(10,)))) == 4


@settings(deadline=None)
@given(st.integers(1, 60), st.data())
def test_the_attack_does_more_only_when_it_does(n, data):
    chance, aimed = (data.draw(st.integers(0, n)) for _ in range(2))
    verdict, taken = curation.attack({"random": chance, "attack": aimed}, n, 3, 5)
    assert {"5", "3"} <= set(taken.split())
    if "more often" in verdict:
        assert aimed > chance
    else:
        assert OPEN in verdict
        assert n <= 20 or (chance, aimed) != (0, n)
    assert curation.attack({"random": 0, "attack": 0}, 0, 0, 0) == []


def test_variety_by_hand():
    cells, clusters = {"a": "x", "b": "x", "c": "y", "d": "z"}, {"a": 0, "b": 0, "c": 1, "d": 1}
    assert curation.variety(["a", "b", "c"], cells, clusters, 3) == pytest.approx(
        {"coverage": 2 / 3, "entropy": 0.9183, "largest": 2 / 3}, abs=1e-4
    )
    assert curation.variety(["a", "c", "d", "b"], cells, dict(zip("abcd", range(4), strict=True)), 3)["entropy"] == 2


def test_drawing_evenly_covers_more_of_a_heavy_tailed_pool():
    # 90 queries of one topic in cluster 0, ten topics of one query each in clusters 1 to 10.
    topics = [0] * 90 + list(range(1, 11))
    rows = [Query(f"q{i:03d}", "p", "image", ("a.png",), topic=f"t{t}") for i, t in enumerate(topics)]
    kinds, clusters = {q.id: "short" for q in rows}, {q.id: t for q, t in zip(rows, topics, strict=True)}
    table = curation.effects(rows, kinds, clusters, [{"short": 11}, {"short": 22}], seeds=range(20))
    assert len(table) == 3 * 2 * 2
    found = table.set_index(["measure", "drawn", "queries"])
    assert found.loc[("coverage", "even over clusters", 11), "low"] == 1
    assert found.loc[("coverage", "at random", 11), "high"] < 0.5
    assert found.loc[("largest", "even over clusters", 22), "mean"] == pytest.approx(12 / 22)
    assert (found["low"] <= found["mean"] + 1e-9).all()
    assert (found["mean"] <= found["high"] + 1e-9).all()


def test_a_card_shows_pictures_or_frames_and_escapes_text(bare):
    names = tuple(f"{number:02d}.png" for number in range(9))
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(bare / name)
    clip = Query("c", "<b> ?", "video", names)
    html = curation.card(clip, "video", bare)
    assert html.count("<img") == curation.GRID_FRAMES
    assert "&lt;b&gt; ?" in html
    one = curation.card(Query("a", "what ?", "image", names[:1], answer="a <i>"), "short", bare)
    assert one.count("<img") == 1
    assert "a &lt;i&gt;" in one


def test_a_grid_has_a_cell_for_every_picture_and_gap():
    picture = Image.new("RGB", (8, 8))
    figure = curation.grid([[picture, None, picture]] * 2, ("a", "b"), above={2: "far"}, below=("x",))
    cells = figure.axes
    assert [len(cell.images) for cell in cells] == [1, 0, 1] * 2
    assert (cells[2].get_title(loc="left"), cells[0].get_ylabel(), cells[3].get_xlabel()) == ("far", "a", "x")
    assert min(cells[0].get_window_extent().size) >= 96
