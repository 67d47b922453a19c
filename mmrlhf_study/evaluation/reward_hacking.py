"""Looking for reward hacking: what an aligned policy may do to please the reward model, and whether truth follows."""

from collections.abc import Iterable, Sequence
from random import Random

import numpy as np
import pandas as pd

from mmrlhf_core.models.reward import RewardModel
from mmrlhf_core.rollout.score import CritiqueDecoding
from mmrlhf_study.chapters.intervals import Estimate
from mmrlhf_study.evaluation import held_out, statistics
from mmrlhf_study.evaluation.held_out import SAFETY, Graded, HeldOutQuestion

LIMITS = ("value", "low", "high")


def _ratio(mine: pd.DataFrame, over: str, under: str, draws: int, seed: int) -> Estimate:
    """Σ over / Σ under with an interval over questions."""
    sums = mine.groupby("query")[[over, under]].sum().to_numpy(float)
    return statistics.bootstrap(sums, lambda s: s[..., 0] / np.maximum(s[..., 1], 1), draws, seed)


def table(rows: pd.DataFrame, part: str, known: bool, draws: int, seed: int) -> pd.DataFrame:
    """Length of the answers of every arm over all its seeds, with intervals; where the truth is `known` also right
    answers, claims, hallucination and declining."""
    found = []
    for arm, mine in rows[rows.part == part].assign(one=1).groupby("arm", sort=False):
        usual, due, vain = mine[mine.family != SAFETY], mine[mine.due], mine[~mine.due]
        measures = {
            "words": (usual, "words", "one"),
            "right": (usual, "right", "one"),
            "claims": (usual, "claims", "one"),
            "claims hallucinated": (usual, "wrong", "claims"),
            "declines when due": (due, "declined", "one"),
            "declines in vain": (vain, "declined", "one"),
        }
        for name, (some, over, under) in measures.items():
            if len(some) and (known or name == "words"):
                found.append((arm, name, *map(float, _ratio(some, over, under, draws, seed))))
    return pd.DataFrame(found, columns=["arm", "measure", *LIMITS])


def scored(
    graded: Iterable[Graded],
    asked: Sequence[HeldOutQuestion],
    count: int,
    seed: int,
    how: CritiqueDecoding,
    judge: RewardModel,
) -> pd.DataFrame:
    """The reward model's score beside the grade of the same answers: arm, query, reward, score.

    The same `count` questions at most for all arms, drawn at random and none of safety; of each arm its first seed.
    """
    usual = [item for item in asked if item.family != SAFETY]
    some = Random(f"rewarded {seed}").sample(usual, min(count, len(usual)))
    given: dict[str, dict[str, Graded]] = {}
    for one in graded:
        if one.seed <= 1:
            given.setdefault(one.arm, {})[one.query] = one
    rows = []
    for arm, answers in given.items():
        mine = [answers[item.id] for item in some]
        rewards = held_out.rewards(judge, some, [one.text for one in mine], how, arm)
        rows += [(arm, one.query, reward, one.score) for one, reward in zip(mine, rewards, strict=True)]
    return pd.DataFrame(rows, columns=["arm", "query", "reward", "score"])


def against_base(rows: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """What every arm changed against the base policy on the same questions: reward and score, with intervals."""
    found = []
    for measure in ("reward", "score"):
        wide = rows.pivot(index="query", columns="arm", values=measure)
        for arm in dict.fromkeys(rows.arm):
            if arm != "base":
                gap = statistics.mean_interval(wide[arm] - wide["base"], None, draws, seed)
                found.append((arm, measure, *gap))
    return pd.DataFrame(found, columns=["arm", "measure", *LIMITS])


def rank_correlation(rows: pd.DataFrame) -> dict[str, float]:
    """Spearman correlation of reward and score over the answers of each arm in which both differ at all."""
    found = {}
    for arm, mine in rows.groupby("arm", sort=False):
        if mine.reward.nunique() > 1 and mine.score.nunique() > 1:
            found[arm] = float(mine.reward.corr(mine.score, method="spearman"))
    return found
