"""Chapter 06: how good a policy's own answers are, how well a signal ranks them, and what training gains.

Tables give 95 % bootstrap intervals over queries grouped by picture (`cluster`); seeds are pooled. Only MiniWorld tells
whether an answer is right (`examination.judge`). K: answers per query.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from mmrlhf_core.data.records import Query
from mmrlhf_core.models import prompts
from mmrlhf_study.annotation import views
from mmrlhf_study.annotation.sampling import SampledAnswers
from mmrlhf_study.chapters import self_training
from mmrlhf_study.chapters.figures import GREY, PALETTE
from mmrlhf_study.chapters.intervals import Estimate, bootstrap, wilson
from mmrlhf_study.chapters.reporting import ENDS, shown
from mmrlhf_study.chapters.self_training import ConditionRun, SignalScores
from mmrlhf_study.evaluation import compare, held_out, statistics
from mmrlhf_study.evaluation.compare import BETTER, OPEN, WORSE, Paired, side
from mmrlhf_study.evaluation.held_out import Graded, HeldOutQuestion
from mmrlhf_study.miniworld import examination, questions

STATES = ("all alike", "all right", "all wrong", "equal score")
ARM_COLOURS = {"base": GREY, "own": PALETTE[0], "people": PALETTE[1], "truth": PALETTE[2], "weak": PALETTE[3]}


def is_right(query: str, text: str) -> bool:
    """Whether the conclusion is right, the description complete and correct, or the refusal due."""
    outcome = examination.judge("", questions.question(query), text)
    return outcome.right == outcome.of


def as_questions(queries: Sequence[Query], media: str, frames: int) -> list[HeldOutQuestion]:
    """Held-out queries as test questions, with class and, if known, truth."""
    items = []
    for query in queries:
        truth = questions.question(query.id) if held_out.truth_known([query]) else None
        prompt = prompts.of_query(query, media, frames)
        items.append(HeldOutQuestion("test", query.category or "unknown", query.id, prompt, truth))
    return items


# ---------------------------------------------------------------- how good the answers are


def states(
    queries: Sequence[Query], answers: Sequence[SampledAnswers], clusters: Mapping[str, str], seed: int
) -> list[dict[str, object]]:
    """One row per query: number of distinct answers, whether all are equal, right or wrong, and scores."""
    rows = []
    for query, one in zip(queries, answers, strict=True):
        row = {"seed": seed, "query": query.id, "cluster": clusters[query.id], "class": query.category or "unknown"}
        row |= {"different": len(set(one.texts)), "all alike": len(set(one.texts)) == 1}
        row |= {"blank": np.mean([not text.strip() for text in one.texts]), "cut off": 1 - np.mean(one.finished)}
        if held_out.truth_known([query]):
            right = [is_right(query.id, text) for text in one.texts]
            scores = [self_training.true_score(query.id, text) for text in one.texts]
            row |= {"right": np.mean(right), "all right": all(right), "all wrong": not any(right)}
            row |= {"mean": np.mean(scores), "best": max(scores), "equal score": len(set(scores)) == 1}
        rows.append(row)
    return rows


def _mean(rows: pd.DataFrame, name: str, draws: int, seed: int) -> Estimate:
    """Mean of a column with interval: NaN for one cluster, Wilson over clusters for shares 0 and 1."""
    values, groups = rows[name].astype(float), rows["cluster"].nunique()
    if groups < 2:
        return Estimate(float(values.mean()), float("nan"), float("nan"))
    if rows[name].dtype == bool and values.nunique() == 1:
        return wilson(int(values.iloc[0]) * groups, groups)
    return statistics.mean_interval(values, rows["cluster"], draws, seed)


def _classes(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Row masks: one per class, alphabetically, and one for all."""
    kinds = sorted(frame["class"].unique())
    return {kind: frame["class"].eq(kind) for kind in kinds} | {"all": frame["class"].notna()}


def by_class(frame: pd.DataFrame, names: Sequence[str], draws: int, seed: int) -> pd.DataFrame:
    """Means of some columns per class and over all: class, measure, value, low, high, n (queries)."""
    table = [
        (kind, name, *_mean(frame[rows], name, draws, seed), frame["query"][rows].nunique())
        for kind, rows in _classes(frame).items()
        for name in names
    ]
    return pd.DataFrame(table, columns=["class", "measure", *ENDS, "n"])


def crossed(table: pd.DataFrame, rows: str, columns: str) -> pd.DataFrame:
    """A display table with `value [low, high]`; a dash means no interval."""
    text = [shown(*ends).replace("nan, nan", "–") for ends in table[list(ENDS)].itertuples(index=False)]
    wide = table.assign(text=text).pivot(index=rows, columns=columns, values="text")
    return wide.reindex(index=list(dict.fromkeys(table[rows])), columns=list(dict.fromkeys(table[columns])))


# ---------------------------------------------------------------- how well a signal finds the best answer


def picked(values: Sequence[float], scores: Sequence[float], k: int) -> float:
    """Expected value of the top-scored of k answers, over all subsets of size k; ties are averaged.

    k = 1 gives the mean of `values`; `scores` = `values` gives the upper bound for choosing.
    """
    if not 1 <= k <= len(values) or len(values) != len(scores):
        raise ValueError(
            f"Cannot choose {k} of {len(values)} answers with {len(scores)} scores: give k from 1 on and a score each."
        )
    best = []
    for chosen in combinations(range(len(values)), k):
        top = max(scores[i] for i in chosen)
        best.append(np.mean([values[i] for i in chosen if scores[i] == top]))
    return float(np.mean(best))


def ordered(values: Sequence[float], scores: Sequence[float]) -> tuple[float, int]:
    """(pairs ordered correctly, tied scores counting half; pairs with different values)."""
    right, pairs = 0.0, 0
    for a, b in combinations(range(len(values)), 2):
        if values[a] != values[b]:
            pairs += 1
            same = (scores[a] - scores[b]) * (values[a] - values[b])
            right += 0.5 if same == 0 else float(same > 0)
    return right, pairs


def _ratio(sums: np.ndarray) -> np.ndarray:
    """First column / second; NaN where the second is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def accuracy(
    frame: pd.DataFrame, truth: Sequence[Sequence[float]], signals: Mapping[str, Sequence[Sequence[float]]],
    draws: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Share of a query's pairs of answers that each signal orders as the truth does, per class and over all.

    `truth` and `signals` hold the scores of the answers of every row of `frame`.
    """
    table = []
    for name, scores in signals.items():
        counts = np.array([ordered(a, b) for a, b in zip(truth, scores, strict=True)])
        for kind, rows in _classes(frame).items():
            code = pd.factorize(frame["cluster"][rows])[0]
            sums = np.stack([np.bincount(code, column) for column in counts[rows].T], -1)
            if sums[:, 1].sum():
                estimate = bootstrap(sums, _ratio, draws, seed)
                table.append((kind, name, *map(float, estimate), int(sums[:, 1].sum())))
    return pd.DataFrame(table, columns=["class", "signal", *ENDS, "n"])


def best_of(
    frame: pd.DataFrame, truth: Sequence[Sequence[float]], signals: Mapping[str, Sequence[Sequence[float]]],
    sizes: Sequence[int], draws: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Truth score of the answer that each signal picks from k: signal, k, value, low, high, n (queries)."""
    table = []
    for name, scores in signals.items():
        for k in sizes:
            value = frame.assign(value=[picked(a, b, k) for a, b in zip(truth, scores, strict=True)])
            table.append((name, k, *_mean(value, "value", draws, seed), frame["query"].nunique()))
    return pd.DataFrame(table, columns=["signal", "k", *ENDS, "n"])


def pick_passes(
    answers: Sequence[SampledAnswers], signals: Mapping[str, Sequence[SignalScores]], sizes: Sequence[int]
) -> pd.DataFrame:
    """Mean token passes per query for k answers, with scoring if k > 1; rows: signals, columns: k."""

    def passes(sampled: SampledAnswers, signal: SignalScores, k: int) -> float:
        scoring = (k > 1) * (signal.question + k * np.mean(signal.passes))
        return sampled.prompt + k * np.mean(sampled.tokens) + scoring

    table = {
        name: [np.mean([passes(*pair, k) for pair in zip(answers, scores, strict=True)]) for k in sizes]
        for name, scores in signals.items()
    }
    return pd.DataFrame(table, index=pd.Index(sizes, name="k")).T.rename_axis("signal")


# ---------------------------------------------------------------- what training gains


def table(graded: Iterable[Graded], runs: Iterable[ConditionRun], clusters: Mapping[str, str]) -> pd.DataFrame:
    """Grades of trained models: name, arm, n and rounds of the condition, seed, query, cluster, score, right."""
    about = {run.name: (run.arm, run.n, run.rounds) for run in runs}
    rows = [
        (one.arm, *about[one.arm], one.seed, one.query, clusters[one.query], one.score, float(one.right))
        for one in graded
        if one.arm in about
    ]
    return pd.DataFrame(rows, columns=["name", "arm", "n", "rounds", "seed", "query", "cluster", "score", "right"])


def compared(frame: pd.DataFrame, base: Mapping[str, float], draws: int, seed: int) -> pd.DataFrame:
    """Each condition against the base; conditions with all K answers and one round form one test family.

    `frame` has a row per condition, seed and query with its score; `base` the base policy's score of each query. The
    family gets Holm's p and a verdict. Lowest and highest seed are separate columns.
    """
    rows = []
    for name, scores in frame.groupby("name", sort=False):
        before, first = scores["query"].map(base), scores.iloc[0]
        gap = compare.paired(scores["score"], before, scores["cluster"], draws, seed)
        by_seed = (scores["score"] - before).groupby(scores["seed"]).mean()
        spread = (float(by_seed.min()), float(by_seed.max()), len(by_seed))
        rows.append((name, first["arm"], first["n"], first["rounds"], *gap[:3], *spread, gap.p))
    names = ["name", "arm", "n", "rounds", *ENDS, "lowest seed", "highest seed", "seeds", "p"]
    every = pd.DataFrame(rows, columns=names)
    family = (every["rounds"] == 1) & (every["n"] == every["n"].max())
    judged = compare.judged(every.assign(p=every["p"].where(family)), "value")
    return every.assign(**{"p (Holm)": judged["p_holm"], "verdict": judged["verdict"]})


def against(frame: pd.DataFrame, a: str, b: str, draws: int, seed: int) -> Paired:
    """Condition a against condition b, on the same queries and seeds."""
    first, second = (frame[frame["name"] == name] for name in (a, b))
    both = first.merge(second, on=["seed", "query", "cluster"], suffixes=(" a", " b"))
    return compare.paired(both["score a"], both["score b"], both["cluster"], draws, seed)


def beside(
    frame: pd.DataFrame, rows: pd.DataFrame, truth: Sequence[Sequence[float]], scores: Sequence[Sequence[float]],
    name: str, draws: int, seed: int,
) -> Estimate:  # fmt: skip
    """Best-of-K value minus the trained policy's greedy value.

    Same queries, mean over seeds; `truth` and `scores` have one entry per row of `rows`.
    """
    values = rows.assign(got=[picked(a, b, len(a)) for a, b in zip(truth, scores, strict=True)])
    trained = frame[frame["name"] == name].groupby("query")["score"].mean()
    means = values.groupby(["query", "cluster"], as_index=False)["got"].mean()
    return _mean(means.assign(gain=means["got"] - means["query"].map(trained)), "gain", draws, seed)


# ---------------------------------------------------------------- sentences


def in_a_word(gap: Estimate | Paired) -> str:
    """A gap with its interval's verdict: `+0.12 [-0.05, +0.29], not distinguished`."""
    return f"{shown(*gap[:3], sign='+')}, {side(gap.low, gap.high)}"


def conclusion(own: Estimate | Paired, gap: Estimate | Paired, control: Estimate | Paired | None) -> str:
    """What the run says about the paper's claim: a model gains less from ranking its own answers than from annotators.

    `own` is the gain over the base by the reward model's ranking, and `gap` what the annotators' pairs of other models'
    answers gain over `own`. `control` is the gain by the truth's ranking, the positive control. Unless it is above 0,
    the training does not turn even perfect rankings into a gain, and the claim is not judged.
    """
    if control is None:
        return "The paper's question cannot be answered here: there is no positive control, the arm `truth`."
    if side(control.low, control.high) != BETTER:
        return (
            "The paper's question cannot be answered here. The positive control fails: "
            f"with the truth as the ranking, the gain over the base is {in_a_word(control)}."
        )
    helps = side(own.low, own.high)
    own_ = {BETTER: "are shown to help", WORSE: "are shown to harm", OPEN: "are not shown to help"}[helps]
    words = {
        BETTER: f"holds here: annotators' pairs gain more than the policy's own answers, and own answers {own_}",
        WORSE: f"is not settled here: own answers gain more than annotators' pairs, but own answers {own_}",
        OPEN: f"is not confirmed here: own answers {own_}, and no difference from annotators' pairs is shown",
    }
    if (side(gap.low, gap.high), helps) == (WORSE, BETTER):
        return "The paper's conclusion does not hold here: own answers help, and gain more than annotators' pairs."
    return f"The paper's conclusion {words[side(gap.low, gap.high)]}."


def sizes(frame: pd.DataFrame, draws: int, seed: int) -> list[str]:
    """Gain from more answers or rounds, for each arm that varies one of the two."""
    lines = []
    for _, of_arm in frame.drop_duplicates("name").set_index("name").groupby("arm", sort=False):
        for varied, fixed, value in (("n", "rounds", 1), ("rounds", "n", of_arm["n"].max())):
            fewest, *others = of_arm[of_arm[fixed] == value].sort_values(varied).index
            lines += [
                f"{more} against {fewest}: {in_a_word(against(frame, more, fewest, draws, seed))}." for more in others
            ]
    return lines


# ---------------------------------------------------------------- cards


def card(
    query: Query, texts: Sequence[str], signals: Mapping[str, Sequence[float]], order: str, why: Sequence[str],
    folder: str | Path,
) -> str:  # fmt: skip
    """A query with its distinct answers and all scores, sorted by the signal `order`.

    `why`: a critique per answer, or empty.
    """
    answers = []
    different = [k for k, text in enumerate(texts) if text not in texts[:k]]
    for k in sorted(different, key=lambda k: -signals[order][k] if order in signals else k):
        times = f" ×{texts.count(texts[k])}" if texts.count(texts[k]) > 1 else ""
        notes = [f"answer {k + 1}{times}", *(f"{name} {scores[k]:.2f}" for name, scores in signals.items())]
        answers.append((" · ".join(notes), texts[k], f"Critique: {why[k]}" if why and why[k] else ""))
    return views.answers_card(query, answers, folder)
