"""Simulated annotators. Each has its own attention, blind spot, strictness, taste and noise.

An annotator reads a response, notices some of its faults, and scores what was noticed. Scores, ranks and reasons of one
annotator therefore agree with each other, and they are wrong as human ones are: an overlooked fault is in none of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import log2
from random import Random

from mmrlhf_core.data.records import Query, Ranking, Response
from mmrlhf_study.annotation.records import SCALES, Judgement
from mmrlhf_study.miniworld import claims, questions, truth
from mmrlhf_study.miniworld.questions import Question
from mmrlhf_study.miniworld.scenes import OBJECT_COLOURS, OBJECT_KINDS, OBJECT_SIZES
from mmrlhf_study.miniworld.truth import Claim, Verdict

BLIND = {
    "": frozenset(),
    "colour": frozenset(OBJECT_COLOURS),
    "size": frozenset(OBJECT_SIZES),
    "kind": frozenset(OBJECT_KINDS),
}
GOOD = 9  # mean overall score from which tied responses count as equally good; below, as equally bad; at most 10
SENT_BACK = 2  # difference from the expert's score, on one scale, from which a query is annotated again
LENGTH = 64  # characters of a response that is neither long nor short for the taste for length


@dataclass(frozen=True)
class Annotator:
    """The traits of one annotator; `shift`, `noise` and `attention` hold one number per scale of SCALES."""

    name: str
    shift: tuple[float, ...]  # strictness: points added to every score
    noise: tuple[float, ...]  # standard deviation of a score
    attention: tuple[float, ...]  # probability to notice a missing fact or wrong conclusion, a false claim, harm
    blind: str = ""  # differences in this attribute are never noticed
    fade: float = 0.0  # attention lost from the first response of a query to the last
    tire: float = 0.0  # attention lost from the first query of the list to the last
    length: float = 0.0  # points of helpfulness for each doubling of the length
    pace: float = 1.5  # seconds per word read

    def careful(self) -> "Annotator":
        """The same annotator after an expert has returned the query: a second look, without the blind spot."""
        again = tuple(1 - (1 - chance) ** 2 for chance in self.attention)
        return replace(self, attention=again, blind="", fade=0.0, tire=0.0)


def panel(count: int, seed: int) -> tuple[Annotator, ...]:
    """`count` annotators with different strictness, care and taste; every third has a blind spot."""
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
    """An annotator who overlooks almost nothing."""
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
    claimed, there = (set(claims.telling(text)) for text in (claim.thing, claim.there))
    return (claimed ^ there) <= BLIND[blind]


def perceive(seen: Verdict, person: Annotator, loss: float, rng: Random) -> Verdict:
    """The verdict without the faults that this annotator overlooks; `loss` is the attention lost so far."""
    helpful, faithful, ethical = (max(chance - loss, 0.0) for chance in person.attention)
    harm_overlooked = seen.should_decline and seen.told and rng.random() >= ethical
    final = seen.final_right if seen.final_right is not False else rng.random() >= helpful
    noticed = tuple(
        claim
        if claim.right or (rng.random() < faithful and not _hidden(claim, person.blind))
        else replace(claim, right=True)
        for claim in seen.claims
    )
    return replace(
        seen,
        claims=noticed,
        missing=tuple(fact for fact in seen.missing if rng.random() < helpful),
        final_right=final,
        told=seen.told and not (harm_overlooked and seen.declined),
        should_decline=seen.should_decline and not (harm_overlooked and not seen.declined),
    )


def score(found: Verdict, person: Annotator, rng: Random) -> tuple[int, ...]:
    """1 to 5 on each scale: the score of the noticed faults, changed by strictness, taste and noise."""
    taste = person.length * log2(max(len(found.text), 1) / LENGTH)
    exact = (found.helpfulness + taste, found.faithfulness, found.ethics)
    traits = zip(exact, person.shift, person.noise, strict=True)
    return tuple(min(5, max(1, round(value + shift + rng.gauss(0, noise)))) for value, shift, noise in traits)


def reason(found: Verdict) -> str:
    """The noticed faults in a few words, as annotators write them."""
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
    """The same reason in full, in the grammar of `truth.critique`; an overlooked fault is called right here too."""
    return truth.critique_of(found, _question(query))


# ---------------------------------------------------------------- one query


@dataclass(frozen=True)
class Sheet:
    """The work of one annotator on one query: judgements, ranking, and the reasons in full."""

    judgements: tuple[Judgement, ...]
    ranking: Ranking | None  # None where the query has a single response
    expanded: tuple[str, ...]


def annotate(
    person: Annotator, query: Query, responses: Sequence[Response], item: int, items: int, seed: int, turn: int = 0
) -> Sheet:
    """Read all responses to a query in a shuffled order, score each, rank them with ties, and give reasons.

    Random choices depend on seed, annotator, query, text and turn only. Equal texts get equal scores.
    """
    name = query.id.partition("~")[0]
    shown = list(range(len(responses)))
    Random(f"shown {seed} {person.name} {query.id}").shuffle(shown)
    read: dict[str, tuple[Verdict, tuple[int, ...]]] = {}
    judgements, keys, expanded = [], [], []
    for place, number in enumerate(shown, 1):
        response = responses[number]
        rng = Random(f"judge {seed} {person.name} {query.id} {turn} {response.text}")
        loss = person.fade * (place - 1) / max(len(responses) - 1, 1) + person.tire * item / max(items, 1)
        if response.text not in read:
            found = perceive(verdict(response.text, name), person, loss, rng)
            read[response.text] = found, score(found, person, rng)
        found, scores = read[response.text]
        seconds = round(person.pace * (4 + len(response.text.split())) * rng.lognormvariate(0, 0.25), 1)
        spent = (seconds, place, item, turn)
        judgements.append(Judgement(query.id, response.id, person.name, *scores, reason(found), *spent))
        keys.append((judgements[-1].overall, bool(found.final_right), -found.wrong - len(found.missing)))
        expanded.append(expand(found, name))
    levels = sorted(set(keys), reverse=True)
    ids, ranks = tuple(one.response for one in judgements), tuple(levels.index(key) + 1 for key in keys)
    basis = f"best : {judgements[ranks.index(1)].reason}"
    ranking = Ranking(query.id, person.name, ids, ranks, basis, "", turn) if len(ids) > 1 else None
    return Sheet(tuple(judgements), ranking, tuple(expanded))


def differs(sheet: Sheet, other: Sheet) -> bool:
    """Whether two sheets differ by SENT_BACK points or more on some scale of some response."""
    others = {judgement.response: judgement for judgement in other.judgements}
    return any(
        abs(getattr(judgement, scale) - getattr(others[judgement.response], scale)) >= SENT_BACK
        for judgement in sheet.judgements
        for scale in SCALES
    )


def assign(
    queries: Sequence[Query], people: Sequence[Annotator], each: int, shared: int, seed: int
) -> dict[str, list[Query]]:
    """The queries of each annotator: every query goes to `each` annotators, about evenly; `shared` queries to all."""
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
    lists, sheets = assign(queries, people, each, shared, seed), {}
    for person in people:
        listed = lists[person.name]
        for item, query in enumerate(listed, 1):
            sheets[query.id, person.name] = annotate(person, query, responses[query.id], item, len(listed), seed)
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
    """(sheets annotated again after the check, the expert's sheets of all checked queries).

    An expert annotates a share of the sheets; where the two differ, the annotator repeats the query once, carefully.
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
    """A text that breaks a tie: the reference answer where all were bad, an answer with a fault where all were good.

    Blank when that text is among the responses already (annotators took a right answer for a bad one).
    """
    question = _question(query.id.partition("~")[0])
    kinds = truth.corruptions(question)
    kinds = Random(f"mend {seed} {query.id}").sample(kinds, len(kinds))
    texts = [truth.corrupt(question, kind, seed) for kind in kinds] if good else [question.answer]
    return next((text for text in texts if text not in set(taken)), "")
