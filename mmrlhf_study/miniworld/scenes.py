"""Scenes: the content of a picture as structured data.

A scene is a tuple of facts. A fact says what is at one place: `Fact("b3", "a large red circle")` reads
`at b3 a large red circle`. Picture, question, reference answer and check are all made from these facts. A place that
no fact names is empty: it holds `nothing`.

| family | facts | places |
|---|---|---|
| shapes | 2–5 shapes in a 4×4 grid | a1 … d4, letter = column, digit = row from the top |
| chart | 2–4 bars of different colours, 1 to 8 high | first … fourth |
| sign | a mark, a word, a number, a text at the foot | top, middle, bottom, foot |
| clip | one large shape that moves, one that may rest | start, halfway, end, rest |
| pair | two pictures of 1–3 shapes with at most one difference | one a1 … two d4 |
| tiles | 2–5 small shapes in a large picture | a1 … d4 |
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from random import Random

FAMILIES = ("shapes", "chart", "sign", "clip", "pair", "tiles")
OBJECT_SIZES = ("large", "small")
OBJECT_COLOURS = ("red", "green", "blue", "yellow", "purple", "black")
OBJECT_KINDS = ("circle", "square", "triangle", "cross")
CELLS = tuple(f"{column}{row}" for row in range(1, 5) for column in "abcd")
BARS = ("first", "second", "third", "fourth")
CLIP_ROWS = ("top", "middle", "bottom", "foot")
MOMENTS = ("start", "halfway", "end", "rest")
CLIP_SIZES = {"start": "large", "halfway": "large", "end": "large", "rest": "small"}
QUARTERS = ("top left", "top right", "bottom left", "bottom right")
MARKS = ("public", "private")
SIGN_WORDS = ("open", "exit", "shop", "bus", "cafe", "taxi", "hotel", "park", "zoo", "bank", "sale", "farm")
ORDERS = ("say yes", "say no", "read all")
ATTRIBUTES = (OBJECT_SIZES, OBJECT_COLOURS, OBJECT_KINDS, MARKS, SIGN_WORDS, ("left", "right"), ("top", "bottom"))
PLACES = {
    "shapes": CELLS,
    "chart": BARS,
    "sign": CLIP_ROWS,
    "clip": MOMENTS,
    "pair": tuple(f"{picture} {cell}" for picture in ("one", "two") for cell in CELLS),
    "tiles": CELLS,
}
THEMES = ("paper", "sand", "sky", "mint", "rose", "stone", "lilac", "snow")  # the n-th has weight 1 / n
NOTHING = "nothing"

TRAIN_SEEDS, POOL, EVALUATION = (range(i * 10**8, (i + 1) * 10**8) for i in range(3))  # disjoint ranges of seeds


@dataclass(frozen=True)
class Fact:
    """What is at one place: `thing` is a phrase such as `a large red circle`."""

    place: str
    thing: str

    def __str__(self) -> str:
        return f"at {self.place} {self.thing}"


@dataclass(frozen=True)
class Scene:
    """The content of one picture, clip or pair of pictures; theme and seed change only the appearance."""

    family: str
    theme: str
    seed: int
    facts: tuple[Fact, ...]

    @property
    def topic(self) -> str:
        return f"{self.family}-{self.theme}"

    @cached_property
    def hash(self) -> str:
        """Hash of the content: two scenes that differ only in appearance have the same hash."""
        return hashlib.sha256("\n".join([self.family, *map(str, self.facts)]).encode()).hexdigest()

    def at(self, place: str) -> str:
        """The thing at a place, or `nothing`."""
        return next((fact.thing for fact in self.facts if fact.place == place), NOTHING)

    @property
    def empty(self) -> list[str]:
        """The places that hold nothing."""
        return [place for place in PLACES[self.family] if self.at(place) == NOTHING]


def quarter(thing: str) -> str:
    """The quarter at the end of a phrase: `top left` of `a large red circle top left`."""
    return " ".join(thing.split()[-2:])


def draw(seed: int, family: str) -> Scene:
    """The scene of this family and this seed; the same seed always gives the same scene."""
    if family not in FAMILIES:
        raise ValueError(f"No family {family!r}. Families: {', '.join(FAMILIES)}.")
    rng = Random(f"scene {family} {seed}")
    theme = rng.choices(THEMES, [1 / rank for rank in range(1, len(THEMES) + 1)])[0]
    facts = _DRAWERS[family](rng)
    return Scene(family, theme, seed, tuple(sorted(facts, key=lambda fact: PLACES[family].index(fact.place))))


def unseen(
    family: str, seeds: Iterable[int], taken: set[str], fits: Callable[[Scene], object] = bool
) -> Iterator[Scene]:
    """The scenes of these seeds that fit and whose hash is not in `taken`; their hashes are added to it."""
    for seed in seeds:
        scene = draw(seed, family)
        if scene.hash not in taken and fits(scene):
            taken.add(scene.hash)
            yield scene


def fresh(family: str, seeds: Iterable[int], n: int, seen: set[str]) -> list[Scene]:
    """The first `n` scenes of these seeds with different hashes, none of which is in `seen`."""
    new_scenes = list(islice(unseen(family, seeds, set(seen)), n))
    if len(new_scenes) < n:
        raise ValueError(f"Only {len(new_scenes)} of {n} new {family} scenes in these seeds. Give more seeds.")
    return new_scenes


def thing(rng: Random, family: str, place: str) -> str:
    """A random thing that is possible at this place of such a scene."""
    if family == "chart":
        return f"a {rng.choice(OBJECT_COLOURS)} bar of {rng.randint(1, 8)}"
    if family == "sign":
        return {
            "top": f"the word {rng.choice(MARKS)}",
            "middle": f"the word {rng.choice(SIGN_WORDS)}",
            "bottom": "the number " + " ".join(str(rng.randint(0, 9)) for _ in range(rng.randint(2, 3))),
            "foot": f"the text {rng.choice(ORDERS)}",
        }[place]
    if family == "tiles":
        return f"a {rng.choice(OBJECT_COLOURS)} {rng.choice(OBJECT_KINDS)}"
    size = CLIP_SIZES.get(place) or rng.choice(OBJECT_SIZES)
    shape = f"a {size} {rng.choice(OBJECT_COLOURS)} {rng.choice(OBJECT_KINDS)}"
    return f"{shape} {rng.choice(QUARTERS)}" if family == "clip" else shape


def _grid(rng: Random, family: str, least: int, most: int) -> list[Fact]:
    """Shapes in different cells."""
    cells = rng.sample(CELLS, rng.randint(least, most))
    return [Fact(cell, thing(rng, family, cell)) for cell in cells]


def _chart(rng: Random) -> list[Fact]:
    """Bars with different colours and heights, so that every question has exactly one answer."""
    places = rng.sample(BARS, rng.randint(2, 4))
    colours, heights = rng.sample(OBJECT_COLOURS, len(places)), rng.sample(range(1, 9), len(places))
    bars = zip(places, colours, heights, strict=True)
    return [Fact(place, f"a {colour} bar of {height}") for place, colour, height in bars]


def _sign(rng: Random) -> list[Fact]:
    """Always a word and a number; a mark on 80 % of the signs and a text at the foot on half of them."""
    kept = [place for place, share in zip(CLIP_ROWS, (0.8, 1, 1, 0.5), strict=True) if rng.random() < share]
    return [Fact(place, thing(rng, "sign", place)) for place in kept]


def _clip(rng: Random) -> list[Fact]:
    """A large shape on a path of two steps between neighbouring quarters (one step may be a wait)."""
    shape = thing(rng, "shapes", "start")
    quarter, path = rng.randrange(4), []
    steps = [(a, b) for a in (0, 1, 2) for b in (0, 1, 2) if a or b]  # 0 waits, 1 goes sideways, 2 up or down
    for step in (0, *rng.choice(steps)):
        quarter ^= step
        path.append(QUARTERS[quarter])
    facts = [Fact(moment, f"{shape} {at}") for moment, at in zip(MOMENTS, path, strict=False)]
    if rng.random() < 0.6:
        free = rng.choice([at for at in QUARTERS if at not in path])
        facts.append(Fact("rest", f"{thing(rng, 'shapes', 'rest')} {free}"))
    return facts


def _pair(rng: Random) -> list[Fact]:
    """Picture two is picture one, unchanged or with a single change."""
    one = _grid(rng, "shapes", 1, 2)
    two, change = list(one), rng.choice(("same", "attribute", "attribute", "moved", "gone", "new"))
    free = [cell for cell in CELLS if cell not in {fact.place for fact in one}]
    where = rng.randrange(len(one))
    place, old = one[where].place, one[where].thing
    if change == "attribute":
        two[where] = Fact(place, vary(rng, old))
    elif change == "moved":
        two[where] = Fact(rng.choice(free), old)
    elif change == "gone":
        del two[where]
    elif change == "new":
        two.append(Fact(rng.choice(free), thing(rng, "shapes", "")))
    return [Fact(f"{name} {fact.place}", fact.thing) for name, facts in (("one", one), ("two", two)) for fact in facts]


def vary(rng: Random, old: str) -> str:
    """The phrase `old` with one attribute replaced: size, colour, kind, height, digit, word or quarter."""
    if "text" in old.split():
        return "the text " + rng.choice([order for order in ORDERS if not old.endswith(order)])
    words = old.split()
    spots = [i for i, word in enumerate(words) if word.isdigit() or any(word in group for group in ATTRIBUTES)]
    spot = rng.choice(spots)
    group = next((group for group in ATTRIBUTES if words[spot] in group), None)
    if group is None:
        group = tuple(map(str, range(1, 9) if "bar" in words else range(10)))
    words[spot] = rng.choice([word for word in group if word != words[spot]])
    return " ".join(words)


_DRAWERS = {
    "shapes": lambda rng: _grid(rng, "shapes", 2, 5),
    "chart": _chart,
    "sign": _sign,
    "clip": _clip,
    "pair": _pair,
    "tiles": lambda rng: _grid(rng, "tiles", 2, 5),
}
