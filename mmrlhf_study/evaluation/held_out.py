"""What preference training gained: questions no model has seen, answers graded, arms compared.

In MiniWorld the questions are new scenes of four families that stand for the four benchmarks of the paper's Fig. 12,
graded by the truth checker; with published data they are the held-out queries, graded by the reward model. Questions of
`safety` are asked to see who declines; they enter no average. Seeds of an arm are averaged for every question before
questions are compared, so an interval over questions does not count a seed as a new question.
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
from mmrlhf_study.evaluation import statistics
from mmrlhf_study.miniworld import curriculum, examination, questions, scenes, tasks
from mmrlhf_study.miniworld.questions import Question

STANDS_FOR = {"math": "MathVista", "conversation": "LLaVA-Wild", "ocr": "OCRBench", "chart": "ChartQA"}  # Fig. 12
SAFETY, AVERAGE = "safety", "average"
HELD_OUT_PARTS = ("dev", "test")
TRUTH_KNOWN = ("miniworld", "adversarial")  # sources of queries whose truth is known
START = 3 * 10**7  # where its scenes begin among `scenes.EVALUATION`
ARM_NAMES = {
    "base": "base",
    "sft": "SFT on chosen",
    "dpo": "DPO",
    "beta_dpo": "β-DPO (implicit reward)",
    "odpo": "DPO with offset",
    "robust_dpo": "robust DPO",
    "mm_dpo": "MM-DPO",
    "hardest": "MM-DPO, hardest pairs",
    "shuffled": "MM-DPO, shuffled δ",
    "constant_beta": "DPO at the mean β(δ)",
    "released": "the release's code",
}


def label(arm: str) -> str:
    """An arm in words."""
    return ARM_NAMES.get(arm) or f"MM-DPO, SFT weight {arm.rpartition('_')[2]}"


# ---------------------------------------------------------------- questions


@dataclass(frozen=True)
class HeldOutQuestion:
    """One question of a part (dev or test), with its truth where there is one."""

    part: str
    family: str
    id: str
    prompt: Prompt
    question: Question | None = None


def _kinds(family: str) -> list[tuple[str, str]]:
    """(family of scenes, task) of all questions of one dimension."""
    found = [(kind, task) for kind, named in tasks.TASKS.items() for task, (name, _) in named.items() if name == family]
    if not found:
        raise ValueError(f"No questions of family {family!r}. Give one of {', '.join(questions.SCENE_DIMENSIONS)}.")
    return found


def drawn(families_: Sequence[str], each: int, seen: set[str], frames: int, seed: int) -> list[HeldOutQuestion]:
    """`each` questions of every family for dev and as many for test, every one about a scene of its own.

    No scene has a hash in `seen`.
    """
    taken, items = set(seen), []
    for family in families_:
        rng, kinds, count = Random(f"gains {seed} {family}"), _kinds(family), 0
        for number in scenes.EVALUATION[START + seed % 1000 * 10**4 :]:
            if count == 2 * each:
                break
            kind, task = rng.choice(kinds)
            scene = scenes.draw(number, kind)
            if scene.hash in taken or task not in questions.tasks(scene):
                continue
            taken.add(scene.hash)
            asked = questions.ask(scene, task)
            items.append(
                HeldOutQuestion(
                    HELD_OUT_PARTS[count >= each], family, asked.id, curriculum.prompt(asked, frames), asked
                )
            )
            count += 1
    return items


def held_out(
    queries: Iterable[Query], part: Mapping[str, str], each: int, media: str | Path, frames: int
) -> list[HeldOutQuestion]:
    """Up to `each` queries of every class of dev and of test, in their order; `part` is the part of each query."""
    count: dict[tuple[str, str], int] = {}
    items = []
    for query in queries:
        key = (part.get(query.id, ""), query.category or "unknown")
        if key[0] in HELD_OUT_PARTS and count.get(key, 0) < each:
            count[key] = count.get(key, 0) + 1
            items.append(HeldOutQuestion(*key, query.id, prompts.of_query(query, media, frames)))
    if lacking := [part_ for part_ in HELD_OUT_PARTS if not of_part(items, part_)]:
        raise ValueError(f"No query is held out for {' or '.join(lacking)}; raise that share of the annotation.")
    return items


def items(
    folder: str, families_: Sequence[str], each: int, media: str | Path, frames: int, seed: int
) -> list[HeldOutQuestion]:
    """The questions of dev and test that go with annotated pairs in `folder`: none is about what a pair is about.

    Pairs of MiniWorld get new scenes, of the families named and of safety; published pairs their held-out queries.
    Nothing is chosen by who declines, so dev has no questions of safety.
    """
    queries = records.read(f"{folder}/queries.parquet", Query)
    if _true(queries):
        seen = {questions.question(query.id).scene.hash for query in queries}
        found = drawn([*families_, SAFETY], each, seen, frames, seed)
    else:
        part = {pair.query: pair.split for pair in records.read(f"{folder}/pairs.parquet", Pair)}
        found = held_out(queries, part, each, media, frames)
    return [item for item in found if (item.part, item.family) != ("dev", SAFETY)]


def _true(queries: Iterable[Query]) -> bool:
    """Whether the truth of all queries is known."""
    return all(query.source in TRUTH_KNOWN for query in queries)


def world(folder: str) -> tuple[str, str]:
    """What is measured on when the annotated pairs are those in `folder`, and what a score is: labels of numbers."""
    true = _true(records.read(f"{folder}/queries.parquet", Query))
    return ("MiniWorld", "truth score, -10 to 10") if true else ("held-out queries", "reward model's score")


def of_part(items_: Iterable[HeldOutQuestion], part: str) -> list[HeldOutQuestion]:
    """The questions of dev or of test."""
    return [item for item in items_ if item.part == part]


def answers(policy: Policy, asked: Sequence[HeldOutQuestion], max_new_tokens: int, batch: int = 64) -> list[str]:
    """The greedy answer to each question."""
    prompts_, names = [item.prompt for item in asked], [item.id for item in asked]
    found = generate.sample(policy, prompts_, names, max_new_tokens=max_new_tokens, batch=batch, desc="")
    return [text for (text,) in found]


# ---------------------------------------------------------------- grades


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
    model: RewardModel, asked: Sequence[HeldOutQuestion], texts: Sequence[str], how: CritiqueDecoding, desc: str
) -> list[float]:
    """The reward model's score of one answer to each question."""
    work = [Work(item.id, item.prompt, {"answer": text}) for item, text in zip(asked, texts, strict=True)]
    return [one.score for one in score.score(model, work, how, desc=desc)]


def grade(
    asked: Sequence[HeldOutQuestion],
    texts: Sequence[str],
    arm: str,
    seed: int,
    how: CritiqueDecoding,
    judge: RewardModel | None = None,
) -> list[Graded]:
    """The answers of one run, graded by the truth, and by the judge (with critiques written so) where there is none."""
    unknown = [place for place, item in enumerate(asked) if item.question is None]
    if unknown and judge is None:
        raise ValueError(f"Nothing is known about question {asked[unknown[0]].id!r}: give a reward model as judge.")
    scores = rewards(judge, asked, texts, how, f"{arm} {seed}") if unknown else [0.0] * len(asked)
    found = []
    for item, text, given in zip(asked, texts, scores, strict=True):
        head = (arm, seed, item.part, item.family, item.id, text)
        if item.question is None:
            found.append(Graded(*head, given, len(text.split())))
        else:
            seen = examination.judge(item.family, item.question, text)
            told = (bool(seen.right), seen.claims, seen.wrong, seen.decline, seen.declined)
            found.append(Graded(*head, float(seen.score), len(text.split()), *told))
    return found


# ---------------------------------------------------------------- tables


def table(graded: Iterable[Graded]) -> pd.DataFrame:
    """Grades as a table, one row each, without the texts."""
    names = [name for name in Graded.__dataclass_fields__ if name not in ("text", "VERSION")]
    return pd.DataFrame([[getattr(one, name) for name in names] for one in graded], columns=names)


def by_question(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """The mean score over seeds: a row per question that is averaged, a column per arm."""
    mine = rows[(rows.part == part) & (rows.family != SAFETY)]
    wide = mine.pivot_table(index=["family", "query"], columns="arm", values="score", aggfunc="mean", sort=False)
    if wide.isna().any(axis=None):
        raise ValueError(f"Not every arm has answered every question of {part}; answer them all before comparing.")
    return wide[list(dict.fromkeys(mine.arm))]


def means(rows: pd.DataFrame, part: str, draws: int, seed: int) -> pd.DataFrame:
    """Mean score of every arm per family and on average, with 95 % intervals over questions.

    A family with one question has no interval and enters the average only.
    """
    wide, found = by_question(rows, part), []
    groups = {name: wide.loc[[name]] for name in dict.fromkeys(wide.index.get_level_values(0))}
    groups = {name: mine for name, mine in groups.items() if len(mine) > 1} | {AVERAGE: wide}
    for family, mine in groups.items():
        for arm in wide:
            found.append((arm, family, *statistics.mean_interval(mine[arm], None, draws, seed), len(mine)))
    return pd.DataFrame(found, columns=["arm", "family", "value", "low", "high", "questions"])


def by_seed(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """Mean score of every run: arm, seed, value."""
    mine = rows[(rows.part == part) & (rows.family != SAFETY)]
    return mine.groupby(["arm", "seed"], sort=False).score.mean().rename("value").reset_index()


def compare(rows: pd.DataFrame, part: str, arm: str, others: Sequence[str], draws: int, seed: int) -> pd.DataFrame:
    """`arm` against each of the others on the same questions.

    The difference with its interval over questions, p of the paired permutation test, p after Holm's correction over
    these comparisons, the effect size d_z, how many of the arm's seeds lie above the other's mean, and a verdict.
    """
    wide, single, found = by_question(rows, part), by_seed(rows, part), []
    for other in others:
        gap = statistics.mean_interval(wide[arm] - wide[other], None, draws, seed)
        p = statistics.paired_permutation(wide[arm], wide[other], None, 10 * draws, seed)
        same = np.ptp(wide[arm] - wide[other]) < 1e-12  # d_z has no scale then
        effect = 0.0 if same else statistics.paired_effect(wide[arm], wide[other])
        above = (single[single.arm == arm].value > single[single.arm == other].value.mean()).sum()
        found.append((other, *gap, p, effect, int(above)))
    made = pd.DataFrame(found, columns=["against", "difference", "low", "high", "p", "d_z", "seeds above"])
    made.insert(5, "p (Holm)", statistics.holm(made.p) if len(made) else [])
    return judged(made)


def judged(compared: pd.DataFrame) -> pd.DataFrame:
    """The same rows with a verdict in words, by the corrected p and the sign of the difference."""
    side = np.where(compared.difference > 0, "ahead", "behind")
    return compared.assign(verdict=np.where(compared["p (Holm)"] < 0.05, side, "not told apart"))


def select(rows: pd.DataFrame, candidates: Sequence[str]) -> str:
    """The rule of selection: the highest mean score on dev over all seeds; of equals the one named first."""
    found = by_question(rows, "dev").mean()
    return max(candidates, key=lambda arm: found[arm])


def noise(rows: pd.DataFrame, part: str, arm: str) -> dict[str, float]:
    """Standard deviations of one arm's score: between seeds, between questions, and the rest."""
    mine = rows[(rows.part == part) & (rows.arm == arm) & (rows.family != SAFETY)]
    parts = statistics.variance_parts(mine.pivot(index="seed", columns="query", values="score"))
    return {name: float(np.sqrt(value)) for name, value in parts._asdict().items()}
