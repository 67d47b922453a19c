"""The examination of base models in MiniWorld: accuracy per family, objects, hallucinations, refusals, claims.

Scenes are new to every model, by hash. Each scene gives one question to conclude, one description and three claims to
verify. Shares of answers carry Wilson intervals, for every scene counts once in them; ratios over the claims of an
answer carry percentile intervals of a bootstrap over scenes. All at 95 %.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    """One answer of the examination, checked; counts are of claims, `facts` of what a full answer names."""

    group: str
    scene: str
    kind: str  # as `kind_of` says
    right: int  # 1 for a right answer (a description: whole and without a wrong claim), or right verdicts
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
        rng, found = Random(f"exam {seed} {group}"), 0
        for number in scenes.EVALUATION[seed % 1000 * 10**4 :]:
            scene = scenes.draw(number, family)
            names = [name for name in questions.tasks(scene) if _belongs(scene, name, group)]
            if scene.hash not in taken and names:
                taken.add(scene.hash)
                asked += [(group, question) for question in _about(rng, scene, names)]
                found += 1
            if found == per_group:
                break
    return asked


def _belongs(scene: scenes.Scene, task: str, group: str) -> bool:
    """Whether a task is one to conclude in this group; signs are asked about safety in a group of their own."""
    return task != "describe" and (questions.ask(scene, task).dimension == "safety") == (group == "safety")


def _about(rng: Random, scene: scenes.Scene, names: Sequence[str]) -> list[Question]:
    """A question to conclude, the description where the scene allows one, and claims to verify."""
    name = rng.choice(names)
    form = rng.choice(("open", "mcq")) if name in questions.tasks(scene, "mcq") else "open"
    described = [questions.ask(scene, "describe")] if "describe" in questions.tasks(scene) else []
    return [questions.ask(scene, name, form), *described, questions.verify(scene, 0)]


def kind_of(question: Question) -> str:
    """What is asked for: to describe, to verify claims, or to conclude something."""
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
    """Share of conclusions that a guess gets right, per group: one of the options, or of what one could conclude.

    To be declined or not is the toss of a coin.
    """
    concluded = [(group, question) for group, question in asked if kind_of(question) == "conclude"]
    chance = [0.5 if q.decline else 1 / len(q.options or q.domain) for _, q in concluded]
    by_group = pd.Series(chance).groupby([group for group, _ in concluded]).mean().reindex(GROUPS).dropna()
    return pd.concat([by_group, pd.Series({"all": np.mean(chance)})]).rename("guessing")


def f1(claims: np.ndarray, wrong: np.ndarray, facts: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Object-level F1: precision over the claims made, recall over the facts there are, 2PR / (P + R)."""
    precision, recall = (claims - wrong) / np.maximum(claims, 1), (facts - missing) / np.maximum(facts, 1)
    return 2 * precision * recall / np.maximum(precision + recall, 1e-12)


def over_scenes(outcomes: Sequence[Outcome], names: Sequence[str], statistic, seed: int) -> Estimate:
    """`statistic` of the summed columns `names`, with a 95 % interval of a bootstrap that draws whole scenes."""
    places = {scene: i for i, scene in enumerate(dict.fromkeys(outcome.scene for outcome in outcomes))}
    sums = np.zeros((len(places), len(names)))
    for outcome in outcomes:
        sums[places[outcome.scene]] += [getattr(outcome, name) for name in names]
    return bootstrap(sums, lambda columns: statistic(*np.moveaxis(columns, -1, 0)), seed=seed)


def measures(outcomes: Sequence[Outcome], seed: int = 0) -> list[tuple[str, str, float, float, float, int]]:
    """(group, measure, value, low, high, n) of one responder; group `all` is over all groups."""
    rows = []
    for group in (*GROUPS, "all"):
        mine = [outcome for outcome in outcomes if group in (outcome.group, "all")]
        rows += [(group, name, *found) for name, found in _measures(mine, seed).items()]
    return rows


def _measures(mine: Sequence[Outcome], seed: int) -> dict[str, tuple[float, float, float, int]]:
    """Every measure that these outcomes allow."""
    told = [outcome for outcome in mine if outcome.kind != "verify"]
    parts = {kind: [outcome for outcome in mine if outcome.kind == kind] for kind in QUESTION_KINDS}
    found = {}
    for name, kind in (("accuracy", "conclude"), ("whole descriptions", "describe")):
        if part := parts[kind]:
            found[name] = (*wilson(sum(outcome.right for outcome in part), len(part)), len(part))
    for name, due in (("declines when due", True), ("declines in vain", False)):
        if part := [outcome for outcome in parts["conclude"] if outcome.decline == due]:
            found[name] = (*wilson(sum(outcome.declined for outcome in part), len(part)), len(part))
    ratios = {
        "verdicts right": (parts["verify"], ("right", "of"), _share),
        "object F1": (parts["describe"], ("claims", "wrong", "facts", "missing"), f1),
        "claims hallucinated": (told, ("wrong", "claims"), _share),
        "truth score": (told, ("score", "of"), _share),
    }
    for name, (part, columns, statistic) in ratios.items():
        if part:
            found[name] = (*over_scenes(part, columns, statistic, seed), len(part))
    return found


def _share(part: np.ndarray, of: np.ndarray) -> np.ndarray:
    return part / np.maximum(of, 1)


def table(answers: Mapping[str, Iterable[str]], asked: Sequence[tuple[str, Question]]) -> pd.DataFrame:
    """All measures of all responders, one row each: responder, group, measure, value, low, high, n."""
    rows = []
    for responder, texts in answers.items():
        outcomes = [judge(group, question, text) for (group, question), text in zip(asked, texts, strict=True)]
        rows += [(responder, *row) for row in measures(outcomes)]
    return pd.DataFrame(rows, columns=["responder", "group", "measure", "value", "low", "high", "n"])


def wide(found: pd.DataFrame, measure: str) -> pd.DataFrame:
    """One measure as text for reading: a row per group, a column per responder, `value [low, high]`."""
    part = found[found.measure == measure]
    text = part.apply(lambda row: f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]", axis=1)
    shown = part.assign(text=text).pivot(index="group", columns="responder", values="text")
    return shown.reindex(
        index=[g for g in (*GROUPS, "all") if g in shown.index], columns=list(dict.fromkeys(part.responder))
    )


def keyed(found: pd.DataFrame) -> dict[str, dict]:
    """A table of measures as nested plain numbers: responder, group, measure, then value, low, high and n."""
    nested: dict[str, dict] = {}
    for row in found.itertuples():
        numbers = {"value": float(row.value), "low": float(row.low), "high": float(row.high), "n": int(row.n)}
        nested.setdefault(row.responder, {}).setdefault(row.group, {})[row.measure] = numbers
    return nested
