"""Pictures are reproducible and show what the facts say, where they say it."""

import hashlib

import numpy as np
import pytest

from mmrlhf_study.miniworld import scenes
from mmrlhf_study.miniworld.render import GLYPHS, RGB, render
from mmrlhf_study.miniworld.scenes import CELLS, FAMILIES, ORDERS, SIGN_WORDS, Fact, Scene


def has(image: np.ndarray, colour: str) -> bool:
    return bool((image == np.array(RGB[colour])).all(-1).sum() >= 8)


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_have_their_size_and_number(family: str) -> None:
    for seed in range(20):
        images = render(scenes.draw(seed, family))
        assert {(i.mode, i.size) for i in images} == {("RGB", (128, 128) if family == "tiles" else (64, 64))}
        assert len(images) == {"pair": 2}.get(family, 1) or (family == "clip" and 4 <= len(images) <= 8)


def test_bytes_are_pinned() -> None:
    """Sharp edges only, no fonts and no smoothing: the same bytes on every machine and Pillow."""
    digest = hashlib.sha256(
        b"".join(i.tobytes() for f in FAMILIES for s in range(5) for i in render(scenes.draw(s, f)))
    )
    assert digest.hexdigest()[:16] == "bab4cfa794b08d51"


@pytest.mark.parametrize("family", ["shapes", "tiles"])
def test_each_cell_shows_its_own_shape_and_no_other(family: str) -> None:
    for seed in range(100):
        scene = scenes.draw(seed, family)
        image = np.asarray(render(scene)[0])
        side = len(image) // 4
        for i, cell in enumerate(CELLS):
            row, column = divmod(i, 4)
            patch = image[side * row : side * (row + 1), side * column : side * (column + 1)]
            shown = {colour for colour in RGB if has(patch, colour)}
            assert shown == set(scene.at(cell).split()) & set(RGB), (seed, cell)


def test_all_shapes_and_sizes_look_different() -> None:
    looks = set()
    for size in scenes.OBJECT_SIZES:
        for kind in scenes.OBJECT_KINDS:
            image = render(Scene("shapes", "snow", 5, (Fact("b2", f"a {size} red {kind}"),)))[0]
            looks.add(image.tobytes())
    assert len(looks) == len(scenes.OBJECT_SIZES) * len(scenes.OBJECT_KINDS)


def test_bars_are_as_high_as_they_say() -> None:
    for seed in range(100):
        scene = scenes.draw(seed, "chart")
        image = np.asarray(render(scene)[0])
        for fact in scene.facts:
            _, colour, *_, height = fact.thing.split()
            middle = 16 * scenes.BARS.index(fact.place) + 8
            assert int((image[:, middle] == np.array(RGB[colour])).all(-1).sum()) == 8 * int(height) - 2
            assert (image[64 - 8 * int(height) :, middle][:2] == 60).all()  # the line on top


def test_signs_show_their_mark_and_every_letter_has_a_glyph() -> None:
    for seed in range(50):
        scene = scenes.draw(seed, "sign")
        band = np.asarray(render(scene)[0])[:14]
        assert has(band, "red") == ("private" in scene.at("top"))
        assert has(band, "green") == ("public" in scene.at("top"))
    assert set("".join((*SIGN_WORDS, *ORDERS, *scenes.MARKS)).replace(" ", "")) <= set(GLYPHS)
    assert len(set(GLYPHS.values())) == len(GLYPHS)


def test_clips_start_and_end_where_they_say() -> None:
    for seed in range(50):
        scene = scenes.draw(seed, "clip")
        frames = [np.asarray(frame) for frame in render(scene)]
        for moment, frame in (("start", frames[0]), ("end", frames[-1])):
            _, _, colour, _, vertical, sideways = scene.at(moment).split()
            rows = slice(0, 32) if vertical == "top" else slice(32, 64)
            columns = slice(0, 32) if sideways == "left" else slice(32, 64)
            inside = (frame[rows, columns] == np.array(RGB[colour])).all(-1).sum()
            assert inside > 150
