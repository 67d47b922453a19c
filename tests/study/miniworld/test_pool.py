"""The pool: reproducible, with its planted near-duplicates recorded and its pictures on disk."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmrlhf_core.data import storage
from mmrlhf_study.miniworld import pool, scenes

ROWS = pool.draw_pool(0, 400)


def test_rows_are_reproducible_counted_and_planted() -> None:
    assert pool.draw_pool(0, 400) == ROWS
    groups = {row.group for row in ROWS}
    assert groups.isdisjoint(row.group for row in pool.draw_pool(1, 400))
    assert len(ROWS) == len({row.id for row in ROWS}) == 400
    names = {row.id: row for row in ROWS}
    twins = [row for row in ROWS if row.plant]
    assert len(twins) == 40
    for row in twins:
        original = names[row.plant]
        assert (row.prompt, row.answer, row.group) == (original.prompt, original.answer, original.group)
        assert set(row.media).isdisjoint(original.media)
    originals = [row for row in ROWS if not row.plant]
    assert len({row.group for row in originals}) == 300  # 60 ask something else about a picture that is there
    paths = Counter(path for row in originals for path in set(row.media))
    assert paths.most_common(1)[0][1] > 1


def test_classes_follow_the_mix() -> None:
    rows = pool.draw_pool(2, 300, mix={"long": 0.4, "short": 0.4, "mcq": 0.2}, twins=0, shared=0)
    counts = Counter(row.category for row in rows)
    assert set(counts) == {"long", "short", "mcq"}
    assert abs(counts["long"] - 120) < 30
    assert abs(counts["mcq"] - 60) < 25


@pytest.mark.parametrize("twin", pool.TWINS)
def test_near_duplicates_are_not_the_same_but_nearest_to_their_original(twin: str) -> None:
    def look(name: str) -> np.ndarray:
        small = np.asarray(pool.pictures(name)[0].resize((16, 16), Image.Resampling.BOX), float)
        return small - small.mean((0, 1))

    names = [row.id for row in {row.group: row for row in ROWS if not row.plant}.values()][:60]
    originals = np.stack([look(name) for name in names])
    for i, name in enumerate(names[:20]):
        distance = np.abs(originals - look(f"{name}~{twin}")).mean((1, 2, 3))
        assert distance.argmin() == i
        assert pool.pictures(name)[0].tobytes() != pool.pictures(f"{name}~{twin}")[0].tobytes()


def test_two_questions_about_one_near_duplicate_share_its_picture() -> None:
    one, other = (pool.pictures(f"shapes-{scenes.POOL[0]}-{task}-open~noise")[0] for task in ("describe", "colour"))
    assert one.tobytes() == other.tobytes()


def test_pictures_are_written_whole_and_the_same(tmp_path: Path) -> None:
    rows = ROWS[:40]
    pool.write_pictures(rows, tmp_path / "one")
    pool.write_pictures(rows, tmp_path / "two")
    assert storage.sha256_tree(tmp_path / "one") == storage.sha256_tree(tmp_path / "two")
    for row in rows:
        for path, image in zip(row.media, pool.pictures(row.id), strict=True):
            with Image.open(tmp_path / "one" / path) as written:
                assert written.tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"seed": 100}, "100"),
        ({"mix": {"longer": 1.0}}, "longer"),
        ({"twins": 0.5, "shared": 0.2}, "0.2"),
        ({"twins": -0.1}, "-0.1"),
    ],
)
def test_a_pool_out_of_range_is_refused(wrong, named) -> None:
    with pytest.raises(ValueError, match=named):
        pool.draw_pool(**{"seed": 0, "n": 10} | wrong)
