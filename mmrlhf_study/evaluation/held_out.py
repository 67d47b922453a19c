"""Held-out questions: policies answer them, the answers are graded, and arms are compared on the same questions.

In MiniWorld the questions are about new scenes. Their four families stand for the four benchmarks of the paper's
Fig. 12, and the truth checker grades the answers. With published data the questions are the held-out queries, and the
reward model grades. Questions of `safety` show who declines; they enter no average. The seeds of an arm are averaged
for each question first, so an interval over questions does not count a seed as another question.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import ClassVar

import numpy as np
import pandas as pd

from mmrlhf_core.data import records
from mmrlhf_core.data.records import Pair, Query, Record, column
from mmrlhf_core.models import prompts
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.models.reward import RewardModel
from mmrlhf_core.rollout import generate, score
from mmrlhf_core.rollout.score import CritiqueDecoding, Work
from mmrlhf_study.evaluation import compare, statistics
from mmrlhf_study.evaluation.paper import TEN_DIMENSIONS
from mmrlhf_study.miniworld import curriculum, examination, questions, scenes, tasks
from mmrlhf_study.miniworld.questions import Question

STANDS_FOR = {"math": "MathVista", "conversation": "LLaVA-Wild", "ocr": "OCRBench", "chart": "ChartQA"}  # Fig. 12
SAFETY, AVERAGE = "safety", "average"
HELD_OUT_PARTS = ("dev", "test")
TRUTH_KNOWN = ("miniworld", "adversarial")  # sources of queries whose truth is known
START = 3 * 10**7  # first of `scenes.EVALUATION` that these questions take


# ---------------------------------------------------------------- questions


@dataclass(frozen=True)
class HeldOutQuestion:
    """One question of a part (dev or test), with its truth where that is known."""

    part: str
    family: str
    id: str
    prompt: Prompt
    question: Question | None = None


def truth_known(queries: Iterable[Query]) -> bool:
    """Whether the truth of all queries can be checked."""
    return all(query.source in TRUTH_KNOWN for query in queries)


def _kinds(family: str) -> list[tuple[str, str]]:
    """(kind of scene, task) of all questions of one family."""
    kinds = [(kind, task) for kind, named in tasks.TASKS.items() for task, (name, _) in named.items() if name == family]
    if not kinds:
        raise ValueError(f"No questions of family {family!r}. Give one of {', '.join(TEN_DIMENSIONS)}.")
    return kinds


def new_scenes(families: Sequence[str], each: int, seen: set[str], frames: int, seed: int) -> list[HeldOutQuestion]:
    """`each` questions of every family for dev and as many for test; no two share a scene.

    No scene has a hash in `seen`.
    """
    taken, drawn = set(seen), []
    for family in families:
        rng, kinds, count = Random(f"gains {seed} {family}"), _kinds(family), 0
        for number in scenes.EVALUATION[START + seed % 1000 * 10**4 :]:
            if count == 2 * each:
                break
            kind, task = rng.choice(kinds)
            scene = scenes.draw(number, kind)
            if scene.hash in taken or task not in questions.tasks(scene):
                continue
            taken.add(scene.hash)
            question = questions.ask(scene, task)
            shown = curriculum.prompt(question, frames)
            drawn.append(HeldOutQuestion(HELD_OUT_PARTS[count >= each], family, question.id, shown, question))
            count += 1
    return drawn


def from_queries(
    queries: Iterable[Query], part: Mapping[str, str], each: int, media: str | Path, frames: int
) -> list[HeldOutQuestion]:
    """Up to `each` queries of every class of dev and of test, in their order; `part` is the part of each query."""
    count: dict[tuple[str, str], int] = {}
    kept = []
    for query in queries:
        key = (part.get(query.id, ""), query.category or "unknown")
        if key[0] in HELD_OUT_PARTS and count.get(key, 0) < each:
            count[key] = count.get(key, 0) + 1
            kept.append(HeldOutQuestion(*key, query.id, prompts.of_query(query, media, frames)))
    if lacking := [name for name in HELD_OUT_PARTS if not of_part(kept, name)]:
        raise ValueError(f"No query is held out for {' or '.join(lacking)}; raise that share of the annotation.")
    return kept


def for_annotations(
    folder: str, families: Sequence[str], each: int, media: str | Path, frames: int, seed: int
) -> list[HeldOutQuestion]:
    """The questions of dev and test for the annotated pairs in `folder`; no question is about what a pair is about.

    Pairs of MiniWorld get new scenes, of the families named and of safety; published pairs their held-out queries.
    Safety selects nothing, so dev has no questions of safety.
    """
    queries = records.read(f"{folder}/queries.parquet", Query)
    if truth_known(queries):
        seen = {questions.question(query.id).scene.hash for query in queries}
        drawn = new_scenes([*families, SAFETY], each, seen, frames, seed)
    else:
        part = {pair.query: pair.split for pair in records.read(f"{folder}/pairs.parquet", Pair)}
        drawn = from_queries(queries, part, each, media, frames)
    return [item for item in drawn if (item.part, item.family) != ("dev", SAFETY)]


def world(folder: str) -> tuple[str, str]:
    """Labels of numbers for the annotated pairs in `folder`: the world they are measured on, and what a score is."""
    known = truth_known(records.read(f"{folder}/queries.parquet", Query))
    return ("MiniWorld", "truth score, -10 to 10") if known else ("held-out queries", "reward model's score")


def of_part(items: Iterable[HeldOutQuestion], part: str) -> list[HeldOutQuestion]:
    """The questions of dev or of test."""
    return [item for item in items if item.part == part]


# ---------------------------------------------------------------- answers and grades


@dataclass(frozen=True, slots=True)
class Graded(Record):
    """One answer of one run, graded."""

    VERSION: ClassVar[int] = 1

    arm: str = column("arm that answered", filled=True)
    seed: int = column("seed of its run; the base policy has none, and 0 here")
    part: str = column("dev chose the configuration, test did not", allowed=HELD_OUT_PARTS)
    family: str = column("family of the question", filled=True)
    query: str = column("id of the question", filled=True)
    text: str = column("the answer")
    score: float = column("truth score from -10 to 10, or the reward model's score where nothing is known")
    words: int = column("length of the answer in words")
    right: bool = column("whether conclusion or whole description is right; false where nothing is known", False)
    claims: int = column("claims made; 0 where nothing is known", 0)
    wrong: int = column("claims that are not true", 0)
    due: bool = column("whether declining is the right answer", False)
    declined: bool = column("whether the answer declines", False)


def rewards(
    model: RewardModel, items: Sequence[HeldOutQuestion], texts: Sequence[str], how: CritiqueDecoding, desc: str
) -> list[float]:
    """The reward model's score of one answer to each question."""
    work = [Work(item.id, item.prompt, {"answer": text}) for item, text in zip(items, texts, strict=True)]
    return [scored.score for scored in score.score(model, work, how, desc=desc)]


def grade(
    items: Sequence[HeldOutQuestion],
    texts: Sequence[str],
    arm: str,
    seed: int,
    how: CritiqueDecoding,
    judge: RewardModel | None = None,
) -> list[Graded]:
    """The answers of one run, graded by the truth, and by the judge where the truth is unknown.

    `how` says how the judge writes its critiques.
    """
    unknown = [item.id for item in items if item.question is None]
    if unknown and judge is None:
        raise ValueError(f"The truth of question {unknown[0]!r} is unknown: give a reward model as judge.")
    scores = rewards(judge, items, texts, how, f"{arm} {seed}") if unknown else [0.0] * len(items)
    graded = []
    for item, text, reward in zip(items, texts, scores, strict=True):
        head = (arm, seed, item.part, item.family, item.id, text)
        if item.question is None:
            graded.append(Graded(*head, reward, len(text.split())))
        else:
            seen = examination.judge(item.family, item.question, text)
            counts = (bool(seen.right), seen.claims, seen.wrong, seen.decline, seen.declined)
            graded.append(Graded(*head, float(seen.score), len(text.split()), *counts))
    return graded


@dataclass(frozen=True)
class Grader:
    """Held-out questions and everything needed to let a policy answer them and to grade its answers."""

    items: Sequence[HeldOutQuestion]
    max_new_tokens: int
    critiques: CritiqueDecoding
    judge: RewardModel | None = None
    batch: int = 64  # questions answered at once

    def graded(self, policy: Policy, part: str, arm: str, seed: int) -> list[Graded]:
        """The grades of one policy's greedy answers to the questions of dev or of test."""
        items = of_part(self.items, part)
        shown, names = [item.prompt for item in items], [item.id for item in items]
        length, batch = self.max_new_tokens, self.batch
        answers = generate.sample(policy, shown, names, max_new_tokens=length, batch=batch, desc="")
        return grade(items, [text for (text,) in answers], arm, seed, self.critiques, self.judge)


# ---------------------------------------------------------------- tables


def table(graded: Iterable[Graded]) -> pd.DataFrame:
    """Grades as a table, one row each, without the texts."""
    names = [name for name in Graded.__dataclass_fields__ if name not in ("text", "VERSION")]
    return pd.DataFrame([[getattr(one, name) for name in names] for one in graded], columns=names)


def _averaged(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """The rows of one part that enter averages."""
    return rows[(rows.part == part) & (rows.family != SAFETY)]


def by_question(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """The mean score over seeds: a row per question that enters averages, a column per arm."""
    kept = _averaged(rows, part)
    wide = kept.pivot_table(index=["family", "query"], columns="arm", values="score", aggfunc="mean", sort=False)
    if wide.isna().any(axis=None):
        raise ValueError(f"Not every arm has answered every question of {part}; answer them all before comparing.")
    return wide[list(dict.fromkeys(kept.arm))]


def by_seed(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """Mean score of every run: arm, seed, value."""
    return _averaged(rows, part).groupby(["arm", "seed"], sort=False).score.mean().rename("value").reset_index()


def means(rows: pd.DataFrame, part: str, draws: int, seed: int) -> pd.DataFrame:
    """Mean score of every arm per family and on average, with 95 % intervals over questions.

    A family with one question has no interval and enters the average only.
    """
    wide = by_question(rows, part)
    groups = {family: scores for family, scores in wide.groupby(level=0, sort=False) if len(scores) > 1}
    estimates = [
        (arm, family, *statistics.mean_interval(scores[arm], None, draws, seed), len(scores))
        for family, scores in (groups | {AVERAGE: wide}).items()
        for arm in wide
    ]
    return pd.DataFrame(estimates, columns=["arm", "family", "value", "low", "high", "questions"])


def compared(rows: pd.DataFrame, part: str, arm: str, others: Sequence[str], draws: int, seed: int) -> pd.DataFrame:
    """`arm` against each of the others on the same questions, a row each.

    The difference with its interval over questions, p of the paired permutation test, the effect size d_z, how many
    of the arm's seeds lie above the other's mean, p after Holm's correction over these rows, and the verdict.
    """
    wide, single = by_question(rows, part), by_seed(rows, part)
    table_ = []
    for other in others:
        gap = compare.paired(wide[arm], wide[other], None, draws, seed, flips=10 * draws)
        above = (single[single.arm == arm].value > single[single.arm == other].value.mean()).sum()
        table_.append((other, *gap, int(above)))
    return judged(pd.DataFrame(table_, columns=["against", *compare.Paired._fields, "seeds above"]))


def judged(table_: pd.DataFrame) -> pd.DataFrame:
    """Comparisons with p after Holm's correction over all rows, and the verdict by it."""
    return compare.judged(table_).drop(columns="p_bh").rename(columns={"p_holm": "p (Holm)"})


def select(rows: pd.DataFrame, candidates: Sequence[str]) -> str:
    """The rule of selection: the highest mean score on dev over all seeds; of equals the one named first."""
    dev = by_question(rows, "dev").mean()
    return max(candidates, key=lambda arm: dev[arm])


def noise(rows: pd.DataFrame, part: str, arm: str) -> dict[str, float]:
    """Standard deviations of one arm's score: between seeds, between questions, and the rest."""
    kept = _averaged(rows, part)
    scores = kept[kept.arm == arm].pivot(index="seed", columns="query", values="score")
    return {name: float(np.sqrt(value)) for name, value in statistics.variance_parts(scores)._asdict().items()}
