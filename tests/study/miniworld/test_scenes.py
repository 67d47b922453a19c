"""Scenes are reproducible, well formed, told apart by content and disjoint over the splits."""

from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from mmrlhf_study.miniworld import scenes
from mmrlhf_study.miniworld.scenes import FAMILIES, NOTHING, PLACES, Fact, Scene

DRAWN = {family: [scenes.draw(seed, family) for seed in range(300)] for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_is_the_same_scene(family: str) -> None:
    assert [scenes.draw(seed, family) for seed in range(300)] == DRAWN[family]
    assert len({scene.hash for scene in DRAWN[family]}) > 280


def test_a_scene_is_pinned() -> None:
    """A change of the grammar changes every stored id, so it has to be made on purpose."""
    assert str(scenes.draw(7, "shapes").facts[0]) == "at a1 a large blue triangle"
    assert [str(fact) for fact in scenes.draw(7, "chart").facts] == [
        "at first a purple bar of 1",
        "at second a blue bar of 7",
        "at fourth a yellow bar of 8",
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_place_holds_one_thing_in_reading_order(family: str) -> None:
    for scene in DRAWN[family]:
        order = [PLACES[family].index(fact.place) for fact in scene.facts]
        assert order == sorted(set(order))
        assert all(scene.at(fact.place) == fact.thing for fact in scene.facts)
        assert scene.at("z9") == NOTHING


def test_charts_have_one_answer_clips_move_and_pairs_differ_in_one_thing() -> None:
    for chart in DRAWN["chart"]:
        words = [fact.thing.split() for fact in chart.facts]
        assert len({w[1] for w in words}) == len({w[-1] for w in words}) == len(words)
    for clip in DRAWN["clip"]:
        path = [clip.at(moment).split()[-2:] for moment in ("start", "halfway", "end")]
        assert path[0] != path[1] or path[1] != path[2]
        assert clip.at("rest").split()[-2:] not in path
    kinds = Counter()
    for scene in DRAWN["pair"]:
        halves = [{(f.place[4:], f.thing) for f in scene.facts if f.place[:3] == name} for name in ("one", "two")]
        kinds[len(halves[0] - halves[1]), len(halves[1] - halves[0])] += 1
    assert set(kinds) == {(0, 0), (1, 1), (1, 0), (0, 1)}


def test_a_varied_thing_differs_in_one_word() -> None:
    for fact in (fact for family in FAMILIES for scene in DRAWN[family][:100] for fact in scene.facts):
        old, new = fact.thing.split(), scenes.vary(Random(len(fact.thing)), fact.thing).split()
        assert old != new
        assert "text" in old or sum(a != b for a, b in zip(old, new, strict=True)) == 1


def test_topics_are_heavy_tailed() -> None:
    counts = Counter(scene.theme for scene in DRAWN["shapes"]).most_common()
    assert counts[0][0] == "paper"
    assert counts[0][1] > 4 * counts[-1][1]


def test_the_hash_is_of_what_is_to_be_seen() -> None:
    scene = Scene("shapes", "paper", 1, (Fact("a1", "a large red circle"),))
    assert scene.hash == Scene("shapes", "sand", 2, scene.facts).hash
    assert scene.hash != Scene("tiles", "paper", 1, scene.facts).hash
    assert scene.hash != Scene("shapes", "paper", 1, (Fact("a2", "a large red circle"),)).hash


def test_splits_are_disjoint_by_seed_and_fresh_scenes_by_hash() -> None:
    splits = (scenes.TRAIN_SEEDS, scenes.POOL, scenes.EVALUATION)
    assert all(a.stop <= b.start for a, b in pairwise(splits))
    seen = {scene.hash for scene in DRAWN["clip"]}
    found = scenes.fresh("clip", [*range(300), *scenes.EVALUATION[:200]], 100, seen)
    hashes = {scene.hash for scene in found}
    assert len(hashes) == 100
    assert hashes.isdisjoint(seen)
    assert all(scene.seed in scenes.EVALUATION for scene in found)


def test_too_few_seeds_and_unknown_families_are_named() -> None:
    with pytest.raises(ValueError, match="3 of 5"):
        scenes.fresh("tiles", range(3), 5, set())
    with pytest.raises(ValueError, match="'shape'"):
        scenes.draw(1, "shape")
