"""Coverage, entropy and concentration of a drawn set."""

import pytest

from mmrlhf_core.data.records import Query
from mmrlhf_study.curation import effects


def test_entropy_by_hand():
    assert effects.entropy([5]) == 0
    assert effects.entropy([1, 1, 1, 1, 0]) == 2
    assert effects.entropy([2, 1, 1]) == 1.5  # 1/2 · 1 + 2 · 1/4 · 2


def test_measures_by_hand():
    cells, clusters = {"a": "x", "b": "x", "c": "y", "d": "z"}, {"a": 0, "b": 0, "c": 1, "d": 1}
    assert effects.measures(["a", "b", "c"], cells, clusters, 3) == pytest.approx(
        {"coverage": 2 / 3, "entropy": 0.9183, "largest": 2 / 3}, abs=1e-4
    )


def test_drawing_evenly_covers_more_of_a_heavy_tailed_pool():
    # 90 queries of one topic in cluster 0, ten topics of one query each in clusters 1 to 10.
    topics = [0] * 90 + list(range(1, 11))
    rows = [Query(f"q{i:03d}", "p", "image", ("a.png",), topic=f"t{t}") for i, t in enumerate(topics)]
    kinds, clusters = {q.id: "short" for q in rows}, {q.id: t for q, t in zip(rows, topics, strict=True)}
    table = effects.compare(rows, kinds, clusters, [{"short": 11}, {"short": 22}], seeds=range(20))
    assert len(table) == 2 * 2 * 20
    found = effects.intervals(table).set_index(["measure", "drawn", "queries"])
    assert found.loc[("coverage", "even over clusters", 11), "low"] == 1
    assert found.loc[("coverage", "at random", 11), "high"] < 0.5
    assert found.loc[("largest", "even over clusters", 22), "mean"] == pytest.approx(12 / 22)
    assert (found["low"] <= found["mean"] + 1e-9).all()
    assert (found["mean"] <= found["high"] + 1e-9).all()
