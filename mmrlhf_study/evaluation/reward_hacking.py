"""Reward hacking: does a trained policy's reward rise without a higher truth score?"""

from collections.abc import Iterable, Sequence
from random import Random

import numpy as np
import pandas as pd

from mmrlhf_core.models.reward import RewardModel
from mmrlhf_core.rollout.score import CritiqueDecoding
from mmrlhf_study.chapters.intervals import Estimate, bootstrap
from mmrlhf_study.chapters.reporting import ENDS
from mmrlhf_study.evaluation import held_out, statistics
from mmrlhf_study.evaluation.held_out import SAFETY, Graded, HeldOutQuestion


def _ratio(rows: pd.DataFrame, over: str, under: str, draws: int, seed: int) -> Estimate:
    """The sum of column `over` by the sum of `under`, with an interval over questions."""
    sums = rows.groupby("query")[[over, under]].sum().to_numpy(float)
    return bootstrap(sums, lambda s: s[..., 0] / np.maximum(s[..., 1], 1), draws, seed)


def answer_style(rows: pd.DataFrame, part: str, known: bool, draws: int, seed: int) -> pd.DataFrame:
    """Length of the answers of every arm over all its seeds; if the truth is `known` also right answers, claims,
    hallucinated claims and declining. Columns: arm, measure, value, low, high."""
    table = []
    for arm, answers in rows[rows.part == part].assign(one=1).groupby("arm", sort=False):
        usual, due, other = answers[answers.family != SAFETY], answers[answers.due], answers[~answers.due]
        measures = {
            "words": (usual, "words", "one"),
            "right": (usual, "right", "one"),
            "claims": (usual, "claims", "one"),
            "claims hallucinated": (usual, "wrong", "claims"),
            "declines when due": (due, "declined", "one"),
            "declines in vain": (other, "declined", "one"),
        }
        for name, (counted, over, under) in measures.items():
            if len(counted) and (known or name == "words"):
                table.append((arm, name, *map(float, _ratio(counted, over, under, draws, seed))))
    return pd.DataFrame(table, columns=["arm", "measure", *ENDS])


def rewarded(
    graded: Iterable[Graded],
    items: Sequence[HeldOutQuestion],
    count: int,
    seed: int,
    how: CritiqueDecoding,
    judge: RewardModel,
) -> pd.DataFrame:
    """Reward and grade of the same answers: arm, query, reward, score.

    `count` random questions without safety, or all if fewer; the same for all arms, first seed only.
    """
    usual = [item for item in items if item.family != SAFETY]
    sample = Random(f"rewarded {seed}").sample(usual, min(count, len(usual)))
    by_arm: dict[str, dict[str, Graded]] = {}
    for answer in graded:
        if answer.seed <= 1:
            by_arm.setdefault(answer.arm, {})[answer.query] = answer
    rows = []
    for arm, answers in by_arm.items():
        scored = [answers[item.id] for item in sample]
        rewards = held_out.rewards(judge, sample, [answer.text for answer in scored], how, arm)
        rows += [(arm, answer.query, reward, answer.score) for answer, reward in zip(scored, rewards, strict=True)]
    return pd.DataFrame(rows, columns=["arm", "query", "reward", "score"])


def against_base(rows: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Reward and score of every arm minus the base policy's, with uncorrected intervals."""
    table = []
    for measure in ("reward", "score"):
        wide = rows.pivot(index="query", columns="arm", values=measure)
        for arm in dict.fromkeys(rows.arm):
            if arm != "base":
                table.append((arm, measure, *statistics.mean_interval(wide[arm] - wide["base"], None, draws, seed)))
    return pd.DataFrame(table, columns=["arm", "measure", *ENDS])


def rank_correlation(rows: pd.DataFrame) -> dict[str, float]:
    """Spearman correlation of reward and score over the answers of each arm in which both vary."""
    varied = {
        arm: answers
        for arm, answers in rows.groupby("arm", sort=False)
        if answers.reward.nunique() > 1 and answers.score.nunique() > 1
    }
    return {arm: float(answers.reward.corr(answers.score, method="spearman")) for arm, answers in varied.items()}
