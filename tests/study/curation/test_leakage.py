"""The gate finds planted canaries, whatever was done to them, and names them."""

from io import BytesIO

import numpy as np
import pytest
from drawings import drawing
from PIL import Image

from mmrlhf_core.data.records import Query
from mmrlhf_study.curation import leakage


def resaved(image):
    file = BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


def noisy(image):
    dice = np.random.default_rng(0).integers(-12, 13, (*image.size, 3))
    return Image.fromarray(np.clip(np.asarray(image).astype(int) + dice, 0, 255).astype(np.uint8))


CHANGES = {
    "exact": lambda image: image,
    "resaved": resaved,
    "noisy": noisy,
    "darker": lambda image: image.point(lambda value: int(value * 0.8)),
    "smaller": lambda image: image.resize((48, 48)),
}


def unit(seed, n, d=32):
    x = np.random.default_rng(seed).standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)


def known(folder, images, embeddings):
    folder.mkdir()
    for i, image in enumerate(images):
        image.save(folder / f"{i:02d}.png")
    paths = [f"{i:02d}.png" for i in range(len(images))]
    return leakage.look(paths, embeddings, folder)


@pytest.mark.parametrize("change", CHANGES)
def test_a_planted_picture_is_found_by_its_hash(change, tmp_path):
    mine = [drawing(i)[0] for i in range(20)]
    theirs = [drawing(100 + i)[0] for i in range(20)]
    theirs[7] = CHANGES[change](mine[3])
    ours, other = known(tmp_path / "a", mine, unit(0, 20)), known(tmp_path / "b", theirs, unit(1, 20))
    found = leakage.picture_leaks(ours, other, cosine=0.99, agreement=0.9, bits=0.85)
    assert set(found) == {"03.png"}
    assert found["03.png"][:2] == ("exact" if change == "exact" else "hash", "07.png")


def test_a_planted_picture_is_found_by_its_embedding_and_thumbnail(tmp_path, monkeypatch):
    monkeypatch.setattr(leakage, "COMPARED", 7)
    a, b = unit(0, 20), unit(1, 20)
    b[12] = a[18] + np.float16(0.003)
    b[13] = a[17]  # near by embedding alone: another picture
    mine, theirs = [drawing(i)[0] for i in range(20)], [drawing(100 + i)[0] for i in range(20)]
    theirs[12] = resaved(mine[18])
    ours, other = known(tmp_path / "a", mine, a), known(tmp_path / "b", theirs, b)
    found = leakage.picture_leaks(ours, other, cosine=0.97, agreement=0.95, bits=1.0)
    assert {path: row[:2] for path, row in found.items()} == {"18.png": ("embedding", "12.png")}
    empty = leakage.look([], b[:0], tmp_path)
    assert leakage.picture_leaks(ours, empty, 0.9, 0.9, 0.9) == {}


def test_equal_bits_by_hand():
    a = np.zeros((1, 32), np.uint8)
    b = np.stack([a[0], a[0]])
    b[1, 0], b[1, 31] = 0b1010_0000, 1
    assert leakage.equal_bits(a, b).tolist() == [[1.0, 1 - 3 / 256]]


def query(name, prompt, answer, media=("a.png",)):
    return Query(name, prompt, "images" if len(media) > 1 else "image", tuple(media), answer=answer)


def test_ngrams_by_hand():
    assert leakage.grams("A b  c d", 3) == {("a", "b", "c"), ("b", "c", "d")}
    assert leakage.grams("a b", 3) == set()


def test_planted_text_is_found_and_the_most_alike_is_named():
    story = "in the small park behind the old bank a red bus waits for nobody at all"
    theirs = [query("e1", "what is there ?", story), query("e2", "what is there ?", story + " today")]
    ours = [
        query("copy", "what is there ?", story + " today"),
        query("half", story, "and then something else entirely happens in a far away place under a blue sky tonight"),
        query("short", "what is there ?", "a bus"),
    ]
    found = leakage.text_leaks(ours, theirs, n=8, share=0.5)
    assert found == [leakage.Leak("copy", "text", "e2", 1.0)]
    assert {leak.query for leak in leakage.text_leaks(ours, theirs, n=8, share=0.2)} == {"copy", "half"}


def test_one_row_per_query_and_any_of_its_pictures_counts():
    rows = [
        query("a", "p", "x", ("1.png", "2.png")),
        query("b", "p", "x", ("3.png",)),
        query("c", "p", "x", ("4.png",)),
    ]
    texts = [leakage.Leak("a", "text", "e", 1.0), leakage.Leak("c", "text", "e", 0.9)]
    found = leakage.leaks(rows, {"2.png": ("hash", "e.png", 0.99)}, texts)
    assert found == [leakage.Leak("a", "hash", "e.png", 0.99), leakage.Leak("c", "text", "e", 0.9)]
