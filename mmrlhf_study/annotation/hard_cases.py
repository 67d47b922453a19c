"""Four kinds of question in which judges fail (paper, App. D, Fig. 8–11), drawn in MiniWorld.

Each case has one better and one worse response, and the truth is known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random

from mmrlhf_study.miniworld import annotators, questions, scenes, truth
from mmrlhf_study.miniworld.annotators import Annotator
from mmrlhf_study.miniworld.questions import Question
from mmrlhf_study.miniworld.scenes import EVALUATION, NOTHING, Fact

CASE_KINDS = ("confusing", "incomplete", "unanswerable", "subtly wrong")


@dataclass(frozen=True)
class Case:
    """A question with a better and a worse response."""

    kind: str
    question: Question
    better: str
    worse: str


def _confusing(scene: scenes.Scene, rng: Random) -> Case:
    """Options that do not fit the question (Fig. 8): the worse response still picks one of them."""
    one = questions.ask(scene, "taller")
    asked = replace(one, prompt=f"{one.prompt} (a) yes (b) no")
    return Case("confusing", asked, one.answer, questions.compose("chart", list(one.facts), rng.choice(("yes", "no"))))


def _incomplete(scene: scenes.Scene, rng: Random) -> Case:
    """A question that leaves out its object (Fig. 9): the better response describes the objects in the picture."""
    one = questions.ask(scene, "kind")
    asked = replace(one, prompt="what shape is it ?")
    false = truth.claims.falsify(rng, scene, one.facts[0])
    return Case("incomplete", asked, one.answer, questions.compose("shapes", [false], false.thing.split()[-1]))


def _unanswerable(scene: scenes.Scene, rng: Random) -> Case:
    """A question about something that does not exist (Fig. 10): no bar has the colour in the question."""
    used = {fact.thing.split()[1] for fact in scene.facts}
    colour = rng.choice([colour for colour in scenes.OBJECT_COLOURS if colour not in used])
    one = questions.ask(scene, "value")
    free = [place for place in scenes.BARS if scene.at(place) == NOTHING] or [scene.facts[0].place]
    height = str(rng.randint(1, 8))
    prompt = f"how tall is the {colour} bar ?"
    asked = replace(one, prompt=prompt, key=NOTHING, evidence=tuple(fact.place for fact in scene.facts))
    better = questions.compose("chart", list(scene.facts), NOTHING)
    worse = questions.compose("chart", [Fact(rng.choice(free), f"a {colour} bar of {height}")], height)
    return Case("unanswerable", asked, better, worse)


def _subtle(scene: scenes.Scene, rng: Random) -> Case:
    """A long answer with one wrong attribute (Fig. 11)."""
    one = questions.ask(scene, "describe")
    return Case("subtly wrong", one, one.answer, truth.corrupt(one, "attribute", rng.randrange(10**6)))


def _of(family: str, start: int) -> Iterator[scenes.Scene]:
    return (scenes.draw(seed, family) for seed in EVALUATION[start:])


def draw(count: int, seed: int) -> list[Case]:
    """`count` cases of each kind, about scenes that no model was trained on."""
    cases = []
    ways = (("chart", _confusing), ("shapes", _incomplete), ("chart", _unanswerable), ("shapes", _subtle))
    for number, (family, make) in enumerate(ways):
        fitting = (one for one in _of(family, 10**7 * (number + 1)) if make is not _subtle or len(one.facts) >= 4)
        cases += [make(scene, Random(f"case {seed} {number} {scene.seed}")) for scene in islice(fitting, count)]
    return cases


def people(case: Case, panel: Sequence[Annotator], seed: int) -> list[float]:
    """Per annotator: 1 if the better response gets the higher score, 0.5 for equal scores, 0 otherwise."""
    seen = {text: truth.check(text, case.question) for text in (case.better, case.worse)}
    shares = []
    for person in panel:
        totals = []
        for text, verdict in seen.items():
            rng = Random(f"case {seed} {person.name} {case.question.id} {text}")
            helpful, faithful, ethical = annotators.score(annotators.perceive(verdict, person, 0.0, rng), person, rng)
            totals.append(helpful + faithful + 3 * (ethical - 5))
        shares.append(0.5 + 0.5 * ((totals[0] > totals[1]) - (totals[0] < totals[1])))
    return shares
