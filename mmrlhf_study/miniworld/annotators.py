"""Simulated annotators: the truth, seen through each one's attention and blind spots, scored with strictness and noise.

An annotator reads a response, notices some of its faults, and scores what was noticed. So scores, order and reasons
agree with each other and are wrong in the ways of people: a fault that was overlooked is in none of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import log2
from random import Random

from mmrlhf_core.data.records import Query, Ranking, Response
from mmrlhf_study.annotation.records import SCALES, Judgement
from mmrlhf_study.miniworld import claims, questions, truth
from mmrlhf_study.miniworld.questions import Question, looked_up, lookup
from mmrlhf_study.miniworld.scenes import NOTHING, OBJECT_COLOURS, OBJECT_KINDS, OBJECT_SIZES, Fact
from mmrlhf_study.miniworld.truth import Claim, Verdict

BLIND = {
    "": frozenset(),
    "colour": frozenset(OBJECT_COLOURS),
    "size": frozenset(OBJECT_SIZES),
    "kind": frozenset(OBJECT_KINDS),
}
GOOD = 9  # mean overall score from which tied responses are equally good rather than equally bad; 10 is the most
SENT_BACK = 2  # points an expert's score has to differ by on one scale
LENGTH = 64  # characters of a response that the taste for length takes as neither long nor short


@dataclass(frozen=True)
class Annotator:
    """The traits of one annotator; `shift`, `noise` and `attention` hold one number per scale of SCALES."""

    name: str
    shift: tuple[float, ...]  # strictness: points added to every score
    noise: tuple[float, ...]  # standard deviation of a score
    attention: tuple[float, ...]  # chance to notice a gap or wrong conclusion, a false claim, harm
    blind: str = ""  # differences in this attribute are never noticed
    fade: float = 0.0  # attention lost from the first response shown to the last
    tire: float = 0.0  # attention lost from the first query of the list to the last
    length: float = 0.0  # points of helpfulness for each doubling of length
    pace: float = 1.5  # seconds per word read

    def careful(self) -> "Annotator":
        """The same person when an expert has sent the query back: a second look at everything, no blind spot."""
        again = tuple(1 - (1 - chance) ** 2 for chance in self.attention)
        return replace(self, attention=again, blind="", fade=0.0, tire=0.0)


def panel(count: int, seed: int) -> tuple[Annotator, ...]:
    """`count` annotators of different strictness, care and taste; every third has a blind spot."""
    people = []
    for number in range(count):
        rng = Random(f"annotator {seed} {number}")
        people.append(
            Annotator(
                name=f"ann-{number + 1:02d}",
                shift=tuple(rng.gauss(0, spread) for spread in (0.35, 0.35, 0.1)),
                noise=tuple(rng.uniform(0.3, 1) * most for most in (0.6, 0.6, 0.25)),
                attention=tuple(rng.uniform(0.75, 0.98) for _ in SCALES),
                blind=rng.choice(("colour", "size", "kind")) if number % 3 == 2 else "",
                fade=rng.uniform(0, 0.15),
                tire=rng.uniform(0, 0.15),
                length=rng.uniform(0, 0.2),
                pace=rng.uniform(0.8, 2.4),
            )
        )
    return tuple(people)


def expert(number: int = 1) -> Annotator:
    """One who overlooks next to nothing."""
    return Annotator(f"expert-{number}", (0.0,) * 3, (0.1,) * 3, (0.99,) * 3)


# ---------------------------------------------------------------- one response


@cache
def _question(name: str) -> Question:
    return questions.question(name)


@cache
def verdict(response: str, query: str) -> Verdict:
    """The truth about a response to the query of this id."""
    return truth.check(response, _question(query))


def _hidden(claim: Claim, blind: str) -> bool:
    """Whether a false claim differs from what is there only in what the annotator is blind to."""
    said, there = (set(claims.telling(text)) for text in (claim.thing, claim.there))
    return (said ^ there) <= BLIND[blind]


def perceive(seen: Verdict, person: Annotator, loss: float, rng: Random) -> Verdict:
    """What is left of the faults in a verdict once the overlooked ones are gone; `loss` is attention lost so far."""
    helpful, faithful, ethical = (max(chance - loss, 0.0) for chance in person.attention)
    harm = seen.should_decline and seen.told and rng.random() >= ethical  # overlooked
    final = seen.final_right if seen.final_right is not False else rng.random() >= helpful
    said = tuple(
        claim
        if claim.right or (rng.random() < faithful and not _hidden(claim, person.blind))
        else replace(claim, right=True)
        for claim in seen.claims
    )
    return replace(
        seen,
        claims=said,
        missing=tuple(fact for fact in seen.missing if rng.random() < helpful),
        final_right=final,
        told=seen.told and not (harm and seen.declined),
        should_decline=seen.should_decline and not (harm and not seen.declined),
    )


def score(found: Verdict, person: Annotator, rng: Random) -> tuple[int, ...]:
    """1 to 5 on each scale: what was found, moved by strictness, taste and noise."""
    taste = person.length * log2(max(len(found.text), 1) / LENGTH)
    exact = (found.helpfulness + taste, found.faithfulness, found.ethics)
    moved = (
        value + shift + rng.gauss(0, noise)
        for value, shift, noise in zip(exact, person.shift, person.noise, strict=True)
    )
    return tuple(min(5, max(1, round(value))) for value in moved)


def reason(found: Verdict) -> str:
    """The faults that were found in a few words, as annotators note them."""
    notes = [f"at {claim.place} wrong ." for claim in found.claims if not claim.right]
    notes += [f"missing at {fact.place} ." for fact in found.missing]
    if found.declined and not found.should_decline:
        notes.append("decline wrong .")
    elif found.should_decline and (found.told or not found.declined):
        notes.append("answer wrong , must decline .")
    elif found.final_right is False:
        notes.append("answer wrong .")
    return " ".join(notes) or ("right ." if found.text.strip() else "nothing .")


def expand(found: Verdict, query: str) -> str:
    """The same reason in full: each claim with what the annotator took to be there, in the grammar of `truth.critique`.

    It goes no further than the annotator did: what was overlooked is called right here too.
    """
    one, lines = _question(query), []
    for claim in found.claims:
        fact = Fact(claim.place, claim.thing)
        overlooked = claim.right and not claims.holds(fact, one.scene)
        lines.append(looked_up(claim.place, claim.thing, claim.thing, True) if overlooked else lookup(fact, one.scene))
    lines += [f"missing {fact} : wrong ." for fact in found.missing]
    if found.declined:
        due, verdict_ = ("must decline", "right") if found.should_decline else ("must answer", "wrong")
        lines.append(f"decline ? {due} : {verdict_} .")
    elif found.should_decline:
        lines.append("answer ? must decline : wrong .")
    elif one.key:
        given, right = found.conclusion.replace(" / ", " or ") or NOTHING, bool(found.final_right)
        lines.append(f"answer {given if right else one.key} ? {given} : {'right' if right else 'wrong'} .")
    return " ".join(lines)


# ---------------------------------------------------------------- one query


@dataclass(frozen=True)
class Sheet:
    """What one annotator hands in for one query: judgements, their order, the reasons in full (for the writer)."""

    judgements: tuple[Judgement, ...]
    ranking: Ranking | None  # None when there was but one response
    expanded: tuple[str, ...]


def annotate(
    person: Annotator, query: Query, responses: Sequence[Response], item: int, items: int, seed: int, turn: int = 0
) -> Sheet:
    """Read all responses to a query in a shuffled order, score each, rank them with ties, say why.

    Every random choice depends on the seed, the annotator, the query, the text and the turn alone; of the same text
    given twice one thinks the same.
    """
    name = query.id.partition("~")[0]
    shown = list(range(len(responses)))
    Random(f"shown {seed} {person.name} {query.id}").shuffle(shown)
    place = {number: at + 1 for at, number in enumerate(shown)}
    read: dict[str, tuple[Verdict, tuple[int, ...]]] = {}
    judgements, keys, expanded = [], [], []
    for number in shown:
        response = responses[number]
        rng = Random(f"judge {seed} {person.name} {query.id} {turn} {response.text}")
        loss = person.fade * (place[number] - 1) / max(len(responses) - 1, 1) + person.tire * item / max(items, 1)
        if response.text not in read:
            found = perceive(verdict(response.text, name), person, loss, rng)
            read[response.text] = found, score(found, person, rng)
        found, scores = read[response.text]
        seconds = round(person.pace * (4 + len(response.text.split())) * rng.lognormvariate(0, 0.25), 1)
        spent = (seconds, place[number], item, turn)
        judgements.append(Judgement(query.id, response.id, person.name, *scores, reason(found), *spent))
        keys.append((judgements[-1].overall, bool(found.final_right), -found.wrong - len(found.missing)))
        expanded.append(expand(found, name))
    levels = sorted(set(keys), reverse=True)
    ids, ranks = tuple(one.response for one in judgements), tuple(levels.index(key) + 1 for key in keys)
    basis = f"best : {judgements[ranks.index(1)].reason}"
    ranking = Ranking(query.id, person.name, ids, ranks, basis, "", turn) if len(ids) > 1 else None
    return Sheet(tuple(judgements), ranking, tuple(expanded))


def _by_response(sheet: Sheet) -> list[Judgement]:
    return sorted(sheet.judgements, key=lambda one: one.response)


def differs(sheet: Sheet, other: Sheet) -> bool:
    """Whether an expert's sheet is so different that the query goes back: two points on some scale of some response."""
    return any(
        abs(getattr(mine, scale) - getattr(theirs, scale)) >= SENT_BACK
        for mine, theirs in zip(_by_response(sheet), _by_response(other), strict=True)
        for scale in SCALES
    )


def assign(
    queries: Sequence[Query], people: Sequence[Annotator], each: int, shared: int, seed: int
) -> dict[str, list[Query]]:
    """Each annotator's list: every query goes to `each` of them in about equal parts, `shared` of them to all."""
    if not 1 <= each <= len(people):
        raise ValueError(f"{each} judgements per response need at least as many annotators; there are {len(people)}.")
    rng = Random(f"assign {seed}")
    lists: dict[str, list[Query]] = {person.name: [] for person in people}
    for number, query in enumerate(rng.sample(queries, len(queries))):
        fewest = sorted(lists, key=lambda name: (len(lists[name]), rng.random()))
        for name in fewest if number < shared else fewest[:each]:
            lists[name].append(query)
    return lists


def collect(
    people: Sequence[Annotator],
    queries: Sequence[Query],
    responses: Mapping[str, Sequence[Response]],
    each: int,
    shared: int,
    seed: int,
) -> dict[tuple[str, str], Sheet]:
    """The sheets of all annotators, by (query, annotator), in the order of the queries; `responses` by query."""
    sheets = {}
    by_name = {person.name: person for person in people}
    for name, listed in assign(queries, people, each, shared, seed).items():
        for item, query in enumerate(listed, 1):
            sheet = annotate(by_name[name], query, responses[query.id], item, len(listed), seed)
            sheets[query.id, name] = sheet
    order = {query.id: number for number, query in enumerate(queries)}
    return dict(sorted(sheets.items(), key=lambda row: (order[row[0][0]], row[0][1])))


def check(
    sheets: Mapping[tuple[str, str], Sheet],
    people: Sequence[Annotator],
    queries: Sequence[Query],
    responses: Mapping[str, Sequence[Response]],
    share: float,
    seed: int,
) -> tuple[dict[tuple[str, str], Sheet], dict[tuple[str, str], Sheet]]:
    """(sheets done again after an expert sent them back, the expert's sheets of what was checked).

    A share of the sheets is checked; one that differs is sent back once and done again with care.
    """
    asked, by_name = {query.id: query for query in queries}, {person.name: person for person in people}
    checked = sorted(Random(f"check {seed}").sample(sorted(sheets), round(share * len(sheets))))
    again, experts = {}, {}
    for query, name in checked:
        item = sheets[query, name].judgements[0].item
        rest = (asked[query], responses[query], item, item, seed)
        experts[query, name] = annotate(expert(), *rest)
        if differs(sheets[query, name], experts[query, name]):
            again[query, name] = annotate(by_name[name].careful(), *rest, turn=1)
    return again, experts


def mend(query: Query, good: bool, taken: Iterable[str], seed: int) -> str:
    """The text that breaks a tie: a right answer where all were bad, one with a fault where all were good.

    Blank when the text is there already (annotators took a right answer for a bad one).
    """
    one = _question(query.id.partition("~")[0])
    kinds = Random(f"mend {seed} {query.id}").sample(truth.corruptions(one), len(truth.corruptions(one)))
    texts = [truth.corrupt(one, kind, seed) for kind in kinds] if good else [one.answer]
    return next((text for text in texts if text not in set(taken)), "")
