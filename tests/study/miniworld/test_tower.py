"""The tower: labels say what is in each patch, training is deterministic and teaches something."""

import numpy as np
import pytest
import torch

from mmrlhf_study.miniworld import curriculum, miniature, recipes, scenes, tower
from mmrlhf_study.miniworld.render import RGB
from mmrlhf_study.miniworld.scenes import Fact, Scene

GRID = Scene("shapes", "snow", 1, (Fact("b3", "a large red circle"),))


def test_a_patch_is_named_by_its_cell_and_what_is_in_it():
    ((_, shown),) = tower.labels(GRID)
    assert shown[9] == {"b3", "large", "red", "circle"}  # row 3, column b: 4 * 2 + 1
    assert shown[0] == {"a1", "nothing"}
    sign = Scene("sign", "snow", 1, (Fact("middle", "the word exit"), Fact("bottom", "the number 4 7")))
    ((_, shown),) = tower.labels(sign)
    assert [shown[8 + i] - {"bottom"} for i in range(4)] == [{"4", "first"}, {"7", "second"}, {"nothing"}, {"nothing"}]
    pair = Scene("pair", "snow", 1, (Fact("one a1", "a large red circle"), Fact("two b1", "a small red circle")))
    (_, one), (_, two) = tower.labels(pair)
    assert "red" in one[0]
    assert "red" not in one[1]
    assert "small" in two[1]
    assert "red" not in two[0]


@pytest.mark.parametrize(
    ("family", "fact", "places", "words"),
    [
        ("chart", Fact("third", "a blue bar of 5"), (6, 10, 14), ("blue", "5")),
        ("chart", Fact("first", "a red bar of 8"), (0, 4, 8, 12), ("red", "8")),
        ("chart", Fact("first", "a red bar of 1"), (12,), ("red", "1")),
        ("sign", Fact("bottom", "the number 4 7"), (8, 9, 10, 11), ("4", "7")),
        ("clip", Fact("end", "a large red circle bottom left"), (8, 9, 12, 13), ("large", "red", "circle")),
        ("pair", Fact("two d4", "a small black cross"), (15,), ("small", "black", "cross")),
    ],
)
def test_facts_cover_the_patches_they_are_drawn_on(family, fact, places, words):
    assert tower.patches(family, fact) == (places, words)


def test_a_quarter_of_a_clip_is_named_where_something_is():
    path = (("start", "top left"), ("halfway", "bottom left"), ("end", "bottom right"))
    clip = Scene("clip", "snow", 1, tuple(Fact(moment, f"a large red circle {place}") for moment, place in path))
    (_, start), (_, end) = tower.labels(clip)
    assert [start[i] for i in (0, 1, 4, 5)] == [{"large", "red", "circle", "top", "left"}] * 4
    assert [end[i] for i in (10, 11, 14, 15)] == [{"large", "red", "circle", "bottom", "right"}] * 4
    assert [start[i] for i in (2, 8, 15)] == [{"nothing"}] * 3


def test_a_bar_shows_its_height_at_the_top_its_colour_down_to_the_ground_and_nothing_above():
    ((_, shown),) = tower.labels(Scene("chart", "snow", 1, (Fact("third", "a blue bar of 5"),)))
    assert [shown[patch] for patch in (2, 6, 10, 14)] == [{"nothing"}, {"third", "blue", "5"}, {"blue"}, {"blue"}]
    assert [shown[patch] for patch in (0, 12)] == [{"nothing"}, {"first", "nothing"}]


def test_a_large_picture_is_seen_whole_and_in_quarters_where_only_patches_with_its_colour_show_a_shape():
    whole, left, right, *_ = labelled = tower.labels(Scene("tiles", "snow", 1, (Fact("c1", "a red circle"),)))
    assert [image.size for image, _ in labelled] == [(64, 64)] * 5
    assert whole[1][2] == {"c1", "red", "circle"}
    quarter, shown = right
    patches = np.asarray(quarter).reshape(4, 16, 4, 16, 3).swapaxes(1, 2)
    red = (patches == RGB["red"]).all(-1).sum((2, 3)).ravel() > 25
    assert shown == [{"red", "circle"} if much else {"nothing"} for much in red]
    assert red[[0, 1, 4, 5]].any()
    assert not np.delete(red, [0, 1, 4, 5]).any()
    assert left[1][0] == {"nothing"}


def test_every_label_is_one_token_of_the_tokenizer():
    drawn = [scenes.draw(seed, family) for family in scenes.FAMILIES for seed in range(20)]
    words = set(curriculum.words())
    assert all(said <= words for scene in drawn for _, shown in tower.labels(scene) for said in shown)


def test_the_same_seed_gives_the_same_tower_and_the_loss_falls():
    drawn = [scenes.draw(seed, "shapes") for seed in range(16)]
    two = [miniature.create("llava_onevision", curriculum.words(), recipes.size(96, 1), 0) for _ in range(2)]
    rows, same = (tower.pretrain(policy, drawn, curriculum.words(), 20, 8, 4e-3, seed=1) for policy in two)
    assert rows == same
    weights, again = (policy.model.state_dict() for policy in two)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert tower.pretrain(two[0], drawn, curriculum.words(), 0, 8, 4e-3, seed=1) == []
