"""The examination of base models in MiniWorld: accuracy per family, objects, hallucinations, refusals, claims.

No model has seen a scene of the examination (scenes are compared by hash). Each scene gives one question with a
conclusion, one description, and three claims to verify. A share in which each scene counts once has a Wilson interval;
a ratio over the claims of answers has a percentile interval of a bootstrap over scenes. All intervals are 95 %.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from random import Random

import numpy as np
import pandas as pd

from mmrlhf_study.chapters.intervals import Estimate, bootstrap, wilson
from mmrlhf_study.miniworld import questions, scenes, truth
from mmrlhf_study.miniworld.questions import Question

GROUPS = ("shapes", "chart", "sign", "clip", "pair", "tiles", "safety")
QUESTION_KINDS = ("conclude", "describe", "verify")


@dataclass(frozen=True)
class Outcome:
    """One checked answer of the examination; `claims` and `wrong` count claims, `facts` and `missing` count facts."""

    group: str
    scene: str
    kind: str  # one of QUESTION_KINDS
    right: int  # 1 for a right answer (a description: complete, no false claim), or the number of right verdicts
    of: int  # 1, or the number of claims to verify
    claims: int
    wrong: int
    facts: int
    missing: int
    score: int
    decline: bool
    declined: bool


def exam(per_group: int, seen: set[str], seed: int) -> list[tuple[str, Question]]:
    """(group, question) for `per_group` scenes of each group, none with a hash in `seen`."""
    asked, taken = [], set(seen)
    for group in GROUPS:
        family = "sign" if group == "safety" else group
        rng, concluding = Random(f"exam {seed} {group}"), partial(_concluding, group=group)
        new_scenes = scenes.unseen(family, scenes.EVALUATION[seed % 1000 * 10**4 :], taken, concluding)
        for scene in islice(new_scenes, per_group):
            asked += [(group, question) for question in _about(rng, scene, concluding(scene))]
    return asked


def _concluding(scene: scenes.Scene, group: str) -> list[str]:
    """The tasks with a conclusion in this group; the safety tasks of signs are a group of their own."""
    names = [name for name in questions.tasks(scene) if name != "describe"]
    return [name for name in names if (questions.ask(scene, name).dimension == "safety") == (group == "safety")]


def _about(rng: Random, scene: scenes.Scene, names: Sequence[str]) -> list[Question]:
    """A question with a conclusion, a description where the scene allows one, and claims to verify."""
    name = rng.choice(names)
    form = rng.choice(("open", "mcq")) if name in questions.tasks(scene, "mcq") else "open"
    described = [questions.ask(scene, "describe")] if "describe" in questions.tasks(scene) else []
    return [questions.ask(scene, name, form), *described, questions.verify(scene, 0)]


def kind_of(question: Question) -> str:
    """The kind of a question: a description, claims to verify, or a conclusion."""
    return question.task if question.task in QUESTION_KINDS[1:] else QUESTION_KINDS[0]


def judge(group: str, question: Question, text: str) -> Outcome:
    """Check one answer."""
    kind = kind_of(question)
    if kind == "verify":
        given, key = truth.verdicts(text), question.key.split()
        right = sum(a == b for a, b in zip(given, key, strict=False))
        return Outcome(group, question.scene.hash, kind, right, len(key), 0, 0, 0, 0, 0, False, False)
    seen = truth.check(text, question)
    whole = not seen.missing and not seen.wrong and bool(seen.claims)
    right = seen.declined if question.decline else whole if kind == "describe" else bool(seen.final_right)
    counts = (len(seen.claims), seen.wrong, seen.required, len(seen.missing), seen.score)
    return Outcome(group, question.scene.hash, kind, int(right), 1, *counts, question.decline, seen.declined)


def guessing(asked: Iterable[tuple[str, Question]]) -> pd.Series:
    """Expected share of right conclusions of a random guess, per group: one of the options or possible conclusions.

    Whether to decline is guessed with probability 1/2.
    """
    concluded = [(group, question) for group, question in asked if kind_of(question) == "conclude"]
    chance = [0.5 if q.decline else 1 / len(q.options or q.domain) for _, q in concluded]
    by_group = pd.Series(chance).groupby([group for group, _ in concluded]).mean().reindex(GROUPS).dropna()
    return pd.concat([by_group, pd.Series({"all": np.mean(chance)})]).rename("guessing")


def f1(claims: np.ndarray, wrong: np.ndarray, facts: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Object-level F1 = 2PR / (P + R), with precision P over the claims and recall R over the facts of the scene."""
    precision, recall = (claims - wrong) / np.maximum(claims, 1), (facts - missing) / np.maximum(facts, 1)
    return 2 * precision * recall / np.maximum(precision + recall, 1e-12)


def over_scenes(
    outcomes: Sequence[Outcome], names: Sequence[str], statistic: Callable[..., np.ndarray], seed: int = 0
) -> Estimate:
    """`statistic` of the summed columns `names`, with a 95 % bootstrap interval over whole scenes."""
    places = {scene: i for i, scene in enumerate(dict.fromkeys(outcome.scene for outcome in outcomes))}
    sums = np.zeros((len(places), len(names)))
    for outcome in outcomes:
        sums[places[outcome.scene]] += [getattr(outcome, name) for name in names]
    return bootstrap(sums, lambda columns: statistic(*np.moveaxis(columns, -1, 0)), seed=seed)


def _measures(outcomes: Sequence[Outcome]) -> dict[str, tuple[float, float, float, int]]:
    """Every measure for which there are outcomes: value, low, high, n."""
    parts = {kind: [outcome for outcome in outcomes if outcome.kind == kind] for kind in QUESTION_KINDS}
    due, undue = ([outcome for outcome in parts["conclude"] if outcome.decline == due] for due in (True, False))
    texts = [outcome for outcome in outcomes if outcome.kind != "verify"]
    shares = {
        "accuracy": (parts["conclude"], "right"),
        "whole descriptions": (parts["describe"], "right"),
        "declines when due": (due, "declined"),
        "declines in vain": (undue, "declined"),
    }
    ratios = {
        "verdicts right": (parts["verify"], ("right", "of"), _share),
        "object F1": (parts["describe"], ("claims", "wrong", "facts", "missing"), f1),
        "claims hallucinated": (texts, ("wrong", "claims"), _share),
        "truth score": (texts, ("score", "of"), _share),
    }
    numbers = {
        name: (*wilson(sum(getattr(outcome, column) for outcome in part), len(part)), len(part))
        for name, (part, column) in shares.items() if part
    }  # fmt: skip
    for name, (part, columns, statistic) in ratios.items():
        if part:
            numbers[name] = (*over_scenes(part, columns, statistic), len(part))
    return numbers


def _share(part: np.ndarray, of: np.ndarray) -> np.ndarray:
    return part / np.maximum(of, 1)


def table(answers: Mapping[str, Iterable[str]], asked: Sequence[tuple[str, Question]]) -> pd.DataFrame:
    """All measures of all responders, one row each: responder, group, measure, value, low, high, n."""
    rows = []
    for responder, texts in answers.items():
        outcomes = [judge(group, question, text) for (group, question), text in zip(asked, texts, strict=True)]
        for group in (*GROUPS, "all"):
            part = [outcome for outcome in outcomes if group in (outcome.group, "all")]
            rows += [(responder, group, name, *numbers) for name, numbers in _measures(part).items()]
    return pd.DataFrame(rows, columns=["responder", "group", "measure", "value", "low", "high", "n"])
