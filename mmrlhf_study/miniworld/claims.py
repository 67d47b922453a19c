"""Claims: reading them out of text, holding them against a scene, and making false ones.

The grammar is `at <place> <thing>`; sentences end at `.`, `:`, `?` or before `so`. Reading is tolerant: words that say
nothing about a picture are skipped, so `at b3 there is a red circle` is the claim `at b3 a red circle`.
"""

import re
from itertools import pairwise
from random import Random

from mmrlhf_study.miniworld.scenes import (
    BARS,
    CELLS,
    CLIP_ROWS,
    MARKS,
    MOMENTS,
    NOTHING,
    OBJECT_COLOURS,
    OBJECT_KINDS,
    OBJECT_SIZES,
    PLACES,
    QUARTERS,
    SIGN_WORDS,
    Fact,
    Scene,
    thing,
    vary,
)

NUMBERS = tuple(map(str, range(16)))
TELLING = {*OBJECT_SIZES, *OBJECT_COLOURS, *OBJECT_KINDS, *MARKS, *SIGN_WORDS, *NUMBERS, NOTHING}
TELLING |= {"top", "bottom", "left", "right", "say", "yes", "no", "read", "all"}
_PLACES = {*CELLS, *BARS, *CLIP_ROWS, *MOMENTS, *PLACES["pair"]}
_WORD = re.compile(r"\( ?[a-d] ?\)|\w+|[^\w\s]")
_ENDS = {".", ":", "?", "!"}


def words(text: str) -> list[str]:
    """Words and marks of a text in lower case; `(b)` is one word, however it is spaced."""
    return [word.replace(" ", "") for word in _WORD.findall(text.lower())]


def sentences(text: str) -> list[list[str]]:
    """The words of each sentence; `so` opens a new one."""
    found: list[list[str]] = [[]]
    for word in words(text):
        if word in _ENDS or word == "so":
            found.append([])
        else:
            found[-1].append(word)
    return [sentence for sentence in found if sentence]


def read(text: str) -> tuple[Fact, ...]:
    """The claims of a text in order, each once; unfinished and empty ones are left out."""
    claims: dict[tuple[str, ...], Fact] = {}
    for sentence in sentences(text):
        starts = [i for i in range(len(sentence)) if _place(sentence, i)]
        for start, end in pairwise([*starts, len(sentence)]):
            place = _place(sentence, start)
            fact = Fact(place, " ".join(sentence[start + 1 + len(place.split()) : end]))
            if telling(fact.thing):
                claims.setdefault((place, *telling(fact.thing)), fact)
    return tuple(claims.values())


def telling(phrase: str) -> list[str]:
    """The words of a phrase that say something about a picture."""
    return [word for word in phrase.split() if word in TELLING]


def _place(sentence: list[str], i: int) -> str:
    """The place named after an `at` in position `i`, or ''; `at top left` is no place but where a shape is."""
    if sentence[i] != "at" or " ".join(sentence[i + 1 : i + 3]) in QUARTERS:
        return ""
    return next((name for n in (2, 1) if (name := " ".join(sentence[i + 1 : i + 1 + n])) in _PLACES), "")


def holds(claim: Fact, scene: Scene) -> bool:
    """Whether all that the claim says is there: it may say less than the truth, a number only whole."""
    said, true = telling(claim.thing), telling(scene.at(claim.place))
    digits = [word for word in said if word.isdigit()]
    return set(said) <= set(true) and (not digits or digits == [word for word in true if word.isdigit()])


def falsify(rng: Random, scene: Scene, fact: Fact) -> Fact:
    """A plausible wrong claim about the place of `fact`: another attribute, another thing, or `nothing`."""
    if fact.thing == NOTHING:
        return Fact(fact.place, thing(rng, scene.family, fact.place))
    way, claim = rng.random(), fact
    if way < 0.15:
        return Fact(fact.place, NOTHING)
    while holds(claim, scene):
        claim = Fact(fact.place, vary(rng, fact.thing) if way < 0.7 else thing(rng, scene.family, fact.place))
    return claim


def choose(rng: Random, scene: Scene, n: int) -> list[Fact]:
    """True facts about up to `n` different places: one in four about an empty place."""
    empty = [Fact(place, NOTHING) for place in PLACES[scene.family] if scene.at(place) == NOTHING]
    blanks = rng.sample(empty, min(len(empty), sum(rng.random() < 0.25 for _ in range(n))))
    facts = blanks + rng.sample(scene.facts, min(len(scene.facts), n - len(blanks)))
    return rng.sample(facts, len(facts))
