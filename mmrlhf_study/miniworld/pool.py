"""A pool of queries like a pool collected from the web: a few topics dominate it, and some pictures occur twice.

Near-duplicates are planted on purpose, so that curation can be measured. `~crop`, `~noise`, `~tint` or `~resave` at the
end of an id marks a near-duplicate of the query in column `plant`. Another question about the same picture shares
`group` but is no duplicate. `questions.question(query.id)` gives the truth, `pictures(query.id)` the pictures.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from mmrlhf_core.data import storage
from mmrlhf_core.data.records import Query
from mmrlhf_study.miniworld.questions import Question, ask, question, tasks
from mmrlhf_study.miniworld.render import render
from mmrlhf_study.miniworld.scenes import POOL, draw

MIX = {"long": 0.12, "short": 0.70, "mcq": 0.04, "safety": 0.07, "video": 0.07}  # about the paper's raw pool
POOL_SHARES = {"shapes": 0.5, "chart": 0.2, "sign": 0.1, "pair": 0.1, "tiles": 0.1}  # of pictures outside safety
TWINS = ("crop", "noise", "tint", "resave")
MODALITY = {"clip": "video", "pair": "images"}
SPAN = 10**6  # seeds of one pool


def draw_pool(
    seed: int,
    n: int,
    seen: Set[str] = frozenset(),
    mix: Mapping[str, float] = MIX,
    twins: float = 0.1,
    shared: float = 0.15,
) -> list[Query]:
    """`n` queries in random order, none about a scene whose hash is in `seen`.

    A share `twins` of them are near-duplicates of another query, and a share `shared` ask another question about the
    picture of another query. The others have scenes of their own, and their classes are drawn from `mix`.
    """
    if not 0 <= seed < len(POOL) // SPAN:
        raise ValueError(f"No pool {seed}. Give a seed from 0 to {len(POOL) // SPAN - 1}.")
    if not set(mix) <= set(MIX) or twins < 0 or shared < 0 or twins + shared > 0.6:
        raise ValueError(
            f"mix {dict(mix)}, twins {twins}, shared {shared}: give classes of {', '.join(MIX)}, and shares "
            "from 0 with a sum of at most 0.6."
        )
    rng, taken = Random(f"pool {seed}"), set(seen)
    seeds = iter(POOL[seed * SPAN : (seed + 1) * SPAN])
    n_twins, n_shared = int(n * twins), int(n * shared)
    classes = rng.choices(list(mix), list(mix.values()), k=n - n_twins - n_shared)
    asked = {one.id: one for one in (_new(rng, category, seeds, taken) for category in classes)}
    originals = list(asked.values())
    while len(asked) < n - n_twins:
        scene = rng.choice(originals).scene
        other = ask(scene, rng.choice(tasks(scene)))
        asked[other.id] = other
    rows = [_query(one.id) for one in asked.values()]
    rows += [_query(f"{name}~{rng.choice(TWINS)}") for name in rng.sample(list(asked), n_twins)]
    return rng.sample(rows, n)


def _new(rng: Random, category: str, seeds: Iterator[int], taken: set[str]) -> Question:
    """A question of this class about a new scene; scenes without such a question are skipped."""
    families, weights = list(POOL_SHARES), list(POOL_SHARES.values())
    while True:
        family = {"safety": "sign", "video": "clip"}.get(category) or rng.choices(families, weights)[0]
        scene, form = draw(next(seeds), family), "mcq" if category == "mcq" else "open"
        fitting = [one for task in tasks(scene, form) if (one := ask(scene, task, form)).category == category]
        if fitting and scene.hash not in taken:
            taken.add(scene.hash)
            return rng.choice(fitting)


def _query(name: str) -> Query:
    """The record of a question, or of its near-duplicate where the id names one after `~`."""
    one, (original, _, twin) = question(name), name.partition("~")
    family, seed = one.scene.family, one.scene.seed
    stem = f"{family}/{seed}~{twin}" if twin else f"{family}/{seed}"
    return Query(
        id=name,
        prompt=one.prompt,
        modality=MODALITY.get(family, "image"),
        media=tuple(f"{stem}-{i}.png" for i in range(len(render(one.scene)))),
        category=one.category,
        answer=one.answer,
        source="miniworld",
        group=f"{family}-{seed}",
        topic=one.scene.topic,
        plant=original if twin else "",
    )


def pictures(name: str) -> list[Image.Image]:
    """The pictures of the query with this id; those of near-duplicates are changed as the id says."""
    scene, twin = question(name).scene, name.partition("~")[2]
    look = f"twin {scene.family} {scene.seed} {twin}"
    return [twin_of(image, twin, Random(look)) if twin else image for image in render(scene)]


def write_pictures(queries: Iterable[Query], folder: str | Path) -> None:
    """Write the media of these queries as PNG into `folder`, which is replaced as a whole."""
    written: set[str] = set()
    with storage.writing(folder) as temporary:
        temporary.mkdir()
        for query in queries:
            if written.issuperset(query.media):
                continue
            for path, image in zip(query.media, pictures(query.id), strict=True):
                target = storage.inside(temporary, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                image.save(target)
                written.add(path)


def twin_of(image: Image.Image, how: str, rng: Random) -> Image.Image:
    """A near-duplicate of a picture: cropped, with noise, tinted, or saved as JPEG (`resave`)."""
    if how == "crop":
        cut = image.width // 32
        inner = image.crop((cut, cut, image.width - cut, image.height - cut))
        return inner.resize(image.size, Image.Resampling.BILINEAR)
    if how == "resave":
        file = BytesIO()
        image.save(file, "JPEG", quality=50)
        return Image.open(file).convert("RGB")
    pixels = np.asarray(image).astype(np.int16)
    dice = np.random.default_rng(rng.getrandbits(64))
    change = dice.integers(-16, 17, pixels.shape) if how == "noise" else dice.integers(-12, 13, 3)
    return Image.fromarray(np.clip(pixels + change, 0, 255).astype(np.uint8))
