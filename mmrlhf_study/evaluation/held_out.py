"""Held-out questions: policies answer them, the answers are graded, and arms are compared on the same questions.

MiniWorld's questions are about new scenes; four families replace the benchmarks of the paper's Fig. 12, and the truth
checker grades the answers. With published data the questions are the held-out queries, and the reward model grades.
`safety` questions measure declining; averages exclude them. Seeds are averaged per question first; intervals are over
questions and do not contain the variation between seeds.
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
START = 3 * 10**7  # index in `scenes.EVALUATION` where these questions start


# ---------------------------------------------------------------- questions


@dataclass(frozen=True)
class HeldOutQuestion:
    """One question of dev or test, with its truth if known."""

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
    """`each` questions per family for dev and for test, all about different scenes.

    Scenes whose hash is in `seen` are skipped.
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
    """Up to `each` queries per class in dev and in test, in their order; `part` maps a query to its split."""
    count: dict[tuple[str, str], int] = {}
    kept = []
    for query in queries:
        key = (part.get(query.id, ""), query.category or "unknown")
        if key[0] in HELD_OUT_PARTS and count.get(key, 0) < each:
            count[key] = count.get(key, 0) + 1
            kept.append(HeldOutQuestion(*key, query.id, prompts.of_query(query, media, frames)))
    if lacking := [name for name in HELD_OUT_PARTS if not of_part(kept, name)]:
        raise ValueError(f"No held-out query in {' or '.join(lacking)}; raise `annotation`'s share for it.")
    return kept


def for_annotations(
    folder: str, families: Sequence[str], each: int, media: str | Path, frames: int, seed: int
) -> list[HeldOutQuestion]:
    """The questions of dev and test for the annotated pairs in `folder`.

    MiniWorld: new scenes of these families and of safety, none of them in a pair. Published data: the held-out queries.
    Safety is not used for selection, so dev has no safety questions.
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
    """Two labels for results on the annotations in `folder`: the data they come from, and the unit of a score."""
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
    seed: int = column("seed of the run; 0 for the base policy")
    part: str = column("dev (used for selection) or test", allowed=HELD_OUT_PARTS)
    family: str = column("family of the question", filled=True)
    query: str = column("id of the question", filled=True)
    text: str = column("the answer")
    score: float = column("truth score from -10 to 10, or the reward model's score if the truth is unknown")
    words: int = column("length of the answer in words")
    right: bool = column("whether the answer is right; false if the truth is unknown", False)
    claims: int = column("claims made; 0 if the truth is unknown", 0)
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
    """The answers of one run, graded by the truth, or by the judge if the truth is unknown.

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
    """Held-out questions, and what is needed to answer and grade them."""

    items: Sequence[HeldOutQuestion]
    max_new_tokens: int
    critiques: CritiqueDecoding
    judge: RewardModel | None = None
    batch: int = 64  # questions per batch

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
    """Rows of one split without safety."""
    return rows[(rows.part == part) & (rows.family != SAFETY)]


def by_question(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """The mean score over seeds: a row per question without safety, a column per arm."""
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

    A family with one question counts only in the average.
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

    - difference, low, high: with the 95 % interval over questions
    - p, d_z: of the paired permutation test over questions, and the effect size
    - seeds above: seeds of `arm` whose mean is above the mean of the other
    - p (Holm), verdict: corrected over these rows, and what follows from it
    """
    wide, single = by_question(rows, part), by_seed(rows, part)
    table_ = []
    for other in others:
        gap = compare.paired(wide[arm], wide[other], None, draws, seed, flips=10 * draws)
        above = (single[single.arm == arm].value > single[single.arm == other].value.mean()).sum()
        table_.append((other, *gap, int(above)))
    return judged(pd.DataFrame(table_, columns=["against", *compare.Paired._fields, "seeds above"]))


def judged(table_: pd.DataFrame) -> pd.DataFrame:
    """Comparisons with Holm's p over all rows, and a verdict from this p."""
    return compare.judged(table_).drop(columns="p_bh").rename(columns={"p_holm": "p (Holm)"})


def select(rows: pd.DataFrame, candidates: Sequence[str]) -> str:
    """The candidate with the highest mean score on dev; ties go to the first name."""
    dev = by_question(rows, "dev").mean()
    return max(candidates, key=lambda arm: dev[arm])


def noise(rows: pd.DataFrame, part: str, arm: str) -> dict[str, float]:
    """Standard deviations of one arm's score: between seeds, between questions, and the rest."""
    kept = _averaged(rows, part)
    scores = kept[kept.arm == arm].pivot(index="seed", columns="query", values="score")
    return {name: float(np.sqrt(value)) for name, value in statistics.variance_parts(scores)._asdict().items()}
