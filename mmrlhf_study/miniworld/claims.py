"""Claims: statements about a scene. This module reads them from text, checks them, and makes false ones.

The grammar of a claim is `at <place> <thing>`; a sentence ends at `.`, `:`, `?`, `!` or before `so`. The reader ignores
words that say nothing about a picture: `at b3 there is a red circle` is the claim `at b3 a red circle`.
"""

import re
from itertools import pairwise
from random import Random

from mmrlhf_study.miniworld.scenes import ATTRIBUTES, NOTHING, ORDERS, PLACES, QUARTERS, Fact, Scene, thing, vary

NUMBERS = tuple(map(str, range(16)))
TELLING = {word for group in ATTRIBUTES for word in group} | {*NUMBERS, NOTHING, *" ".join(ORDERS).split()}
PLACE_NAMES = {place for places in PLACES.values() for place in places}
_WORD = re.compile(r"\( ?[a-d] ?\)|\w+|[^\w\s]")
_ENDS = {".", ":", "?", "!"}


def words(text: str) -> list[str]:
    """Words and punctuation marks of a text in lower case; `(b)` and `( b )` are one word."""
    return [word.replace(" ", "") for word in _WORD.findall(text.lower())]


def sentences(text: str) -> list[list[str]]:
    """The words of each sentence; `so` begins a new sentence."""
    parts: list[list[str]] = [[]]
    for word in words(text):
        if word in _ENDS or word == "so":
            parts.append([])
        else:
            parts[-1].append(word)
    return [sentence for sentence in parts if sentence]


def read(text: str) -> tuple[Fact, ...]:
    """The claims of a text in order, each once, without unfinished and empty claims."""
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
    """The words of a phrase that describe a picture."""
    return [word for word in phrase.split() if word in TELLING]


def _place(sentence: list[str], i: int) -> str:
    """The place named after the word `at` in position `i`, or ''; `at top left` names a quarter, which is no place."""
    if sentence[i] != "at" or " ".join(sentence[i + 1 : i + 3]) in QUARTERS:
        return ""
    return next((name for n in (2, 1) if (name := " ".join(sentence[i + 1 : i + 1 + n])) in PLACE_NAMES), "")


def holds(claim: Fact, scene: Scene) -> bool:
    """Whether the claim is true. It may say less than the scene shows, but a number has to be complete."""
    claimed, true = telling(claim.thing), telling(scene.at(claim.place))
    digits = [word for word in claimed if word.isdigit()]
    return set(claimed) <= set(true) and (not digits or digits == [word for word in true if word.isdigit()])


def falsify(rng: Random, scene: Scene, fact: Fact) -> Fact:
    """A plausible false claim about the place of `fact`: another attribute, another thing, or `nothing`."""
    if fact.thing == NOTHING:
        return Fact(fact.place, thing(rng, scene.family, fact.place))
    way, claim = rng.random(), fact
    if way < 0.15:
        return Fact(fact.place, NOTHING)
    while holds(claim, scene):
        claim = Fact(fact.place, vary(rng, fact.thing) if way < 0.7 else thing(rng, scene.family, fact.place))
    return claim


def choose(rng: Random, scene: Scene, n: int) -> list[Fact]:
    """True facts about up to `n` different places, a quarter of them about an empty place."""
    empty = [Fact(place, NOTHING) for place in scene.empty]
    blanks = rng.sample(empty, min(len(empty), sum(rng.random() < 0.25 for _ in range(n))))
    facts = blanks + rng.sample(scene.facts, min(len(scene.facts), n - len(blanks)))
    return rng.sample(facts, len(facts))
