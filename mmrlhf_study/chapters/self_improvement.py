"""What a policy's own answers can give, how well a signal finds it, and what training on it brought.

Tables hold estimates with 95 % intervals of a bootstrap over picture groups (`clusters`), seeds together. A query is
`right` in the sense of the examination (`examination.judge`), which only MiniWorld knows. K answers to a query.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product

import numpy as np
import pandas as pd
from tqdm import tqdm

from mmrlhf_core.data.records import Query
from mmrlhf_core.models import policy, prompts
from mmrlhf_core.models.reward import RewardModel
from mmrlhf_core.rollout.sampling import SampledAnswers
from mmrlhf_core.rollout.score import CritiqueDecoding
from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_study.chapters import self_training
from mmrlhf_study.chapters.self_training import Condition, ConditionRun, Lab
from mmrlhf_study.evaluation import held_out, statistics
from mmrlhf_study.evaluation.held_out import TRUTH_KNOWN, Graded, HeldOutQuestion
from mmrlhf_study.evaluation.statistics import Estimate
from mmrlhf_study.miniworld import examination, questions

STATES = ("all alike", "all right", "all wrong", "equal score")


def knows(queries: Iterable[Query]) -> bool:
    """Whether the truth about all of these queries can be checked."""
    return all(query.source in TRUTH_KNOWN for query in queries)


def is_right(query: str, text: str) -> bool:
    """Whether an answer concludes rightly, describes wholly and without a wrong claim, or declines where it must."""
    outcome = examination.judge("", questions.question(query), text)
    return outcome.right == outcome.of


# ---------------------------------------------------------------- what answers hold


def states(
    queries: Sequence[Query], answers: Sequence[SampledAnswers], clusters: Mapping[str, str], seed: int
) -> list[dict[str, object]]:
    """One row per query: how many different answers, whether all are alike, right or wrong, their scores."""
    rows = []
    for query, one in zip(queries, answers, strict=True):
        row = {"seed": seed, "query": query.id, "cluster": clusters[query.id], "class": query.category or "unknown"}
        row |= {"different": len(set(one.texts)), "all alike": len(set(one.texts)) == 1}
        row |= {"blank": np.mean([not text.strip() for text in one.texts]), "cut off": 1 - np.mean(one.finished)}
        if knows([query]):
            right = [is_right(query.id, text) for text in one.texts]
            scores = [self_training.true_score(query.id, text) for text in one.texts]
            row |= {"right": np.mean(right), "all right": all(right), "all wrong": not any(right)}
            row |= {"mean": np.mean(scores), "best": max(scores), "equal score": len(set(scores)) == 1}
        rows.append(row)
    return rows


def _mean(rows: pd.DataFrame, name: str, draws: int, seed: int) -> Estimate:
    """The mean of a column with its interval; from one cluster none (NaN), of a share of 0 or 1 Wilson's."""
    values, groups = rows[name].astype(float), rows["cluster"].nunique()
    if groups < 2:
        return Estimate(float(values.mean()), float("nan"), float("nan"))
    if rows[name].dtype == bool and values.nunique() == 1:
        return statistics.wilson(int(values.iloc[0]) * groups, groups)
    return statistics.mean_interval(values, rows["cluster"], draws, seed)


def by_class(frame: pd.DataFrame, names: Sequence[str], draws: int, seed: int) -> pd.DataFrame:
    """Means of some columns per class and over all: class, measure, value, low, high, n (queries)."""
    found = []
    for kind in (*sorted(frame["class"].unique()), "all"):
        mine = frame if kind == "all" else frame[frame["class"] == kind]
        for name in names:
            found.append((kind, name, *_mean(mine, name, draws, seed), mine["query"].nunique()))
    return pd.DataFrame(found, columns=["class", "measure", "value", "low", "high", "n"])


def in_words(table: pd.DataFrame, rows: str, columns: str, digits: int = 2) -> pd.DataFrame:
    """A table of estimates as text for reading: `value [low, high]`, the interval a dash where there is none."""
    ends = [f"{r.low:.{digits}f}, {r.high:.{digits}f}" if r.low == r.low else "–" for r in table.itertuples()]
    text = [f"{value:.{digits}f} [{end}]" for value, end in zip(table["value"], ends, strict=True)]
    shown = table.assign(text=text).pivot(index=rows, columns=columns, values="text")
    return shown.reindex(index=list(dict.fromkeys(table[rows])), columns=list(dict.fromkeys(table[columns])))


# ---------------------------------------------------------------- how well a signal finds it


def picked(values: Sequence[float], scores: Sequence[float], k: int) -> float:
    """Expected value of the best-scored of k answers, over every choice of k out of K; equal best scores share it.

    k = 1 is the mean of `values`, and with `scores` = `values` it is the most that choosing can give.
    """
    if not 1 <= k <= len(values) or len(values) != len(scores):
        raise ValueError(f"{k} of {len(values)} answers with {len(scores)} scores cannot be chosen from.")
    found = []
    for chosen in combinations(range(len(values)), k):
        top = max(scores[i] for i in chosen)
        found.append(np.mean([values[i] for i in chosen if scores[i] == top]))
    return float(np.mean(found))


def ordered(values: Sequence[float], scores: Sequence[float]) -> tuple[float, int]:
    """(pairs of answers that the scores order as the values do, equal scores counting half; pairs of unequal value)."""
    right, pairs = 0.0, 0
    for a, b in combinations(range(len(values)), 2):
        if values[a] != values[b]:
            pairs += 1
            same = (scores[a] - scores[b]) * (values[a] - values[b])
            right += 0.5 if same == 0 else float(same > 0)
    return right, pairs


def accuracy(
    frame: pd.DataFrame, truth: Sequence[Sequence[float]], signals: Mapping[str, Sequence[Sequence[float]]],
    draws: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Share of a query's pairs of answers that each signal orders as the truth does, per class and over all.

    `truth` and `signals` hold the scores of the answers of every row of `frame`.
    """
    found = []
    for name, scores in signals.items():
        counts = np.array([ordered(a, b) for a, b in zip(truth, scores, strict=True)])
        for kind in (*sorted(frame["class"].unique()), "all"):
            mine = frame["class"].eq(kind) | (kind == "all")
            code = pd.factorize(frame["cluster"][mine])[0]
            sums = np.stack([np.bincount(code, column) for column in counts[mine].T], -1)
            if sums[:, 1].sum():
                estimate = statistics.bootstrap(sums, _ratio, draws, seed)
                found.append((kind, name, *map(float, estimate), int(sums[:, 1].sum())))
    return pd.DataFrame(found, columns=["class", "signal", "value", "low", "high", "n"])


def _ratio(sums: np.ndarray) -> np.ndarray:
    """First column over the second; NaN where that is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def best_of(
    frame: pd.DataFrame, truth: Sequence[Sequence[float]], signals: Mapping[str, Sequence[Sequence[float]]],
    sizes: Sequence[int], draws: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Truth score of the answer that each signal picks from k: signal, k, value, low, high, n (queries)."""
    found = []
    for name, scores in signals.items():
        for k in sizes:
            got = [picked(a, b, k) for a, b in zip(truth, scores, strict=True)]
            found.append((name, k, *_mean(frame.assign(got=got), "got", draws, seed), frame["query"].nunique()))
    return pd.DataFrame(found, columns=["signal", "k", "value", "low", "high", "n"])


def pick_passes(
    answers: Sequence[SampledAnswers], signals: Mapping[str, Sequence[self_training.Signal]], sizes: Sequence[int]
) -> pd.DataFrame:
    """Mean token passes of one query: k answers drawn, and for k above 1 scored, a row per signal, a column per k."""
    found = {}
    for name, seen in signals.items():
        found[name] = [
            np.mean([
                said.prompt + k * np.mean(said.tokens) + (k > 1) * (one.question + k * np.mean(one.passes))
                for said, one in zip(answers, seen, strict=True)
            ])
            for k in sizes
        ]  # fmt: skip
    return pd.DataFrame(found, index=pd.Index(sizes, name="k")).T.rename_axis("signal")


# ---------------------------------------------------------------- what training brought


def items(queries: Sequence[Query], media: str, frames: int) -> list[HeldOutQuestion]:
    """Held-out queries as questions to grade, by class; with their truth where it is known."""
    found = []
    for query in queries:
        asked = questions.question(query.id) if query.source in TRUTH_KNOWN else None
        shown = prompts.of_query(query, media, frames)
        found.append(HeldOutQuestion("test", query.category or "unknown", query.id, shown, asked))
    return found


def experiment(
    lab: Lab, conditions: Sequence[Condition], seeds: int, train: Sequence[Query], annotated: Mapping[str, RankedRow],
    asked: Sequence[HeldOutQuestion], judge: RewardModel | None,
) -> tuple[list[ConditionRun], list[Graded]]:  # fmt: skip
    """Every condition with every seed, and the greedy answers of each model that came out, graded under its name.

    The base is graded too. Where the truth is not known, the judge is the reward model that also ranks: no neutral one.
    """
    prompt_tokens = {one.query: one.prompt for one in lab.draw(lab.base, train, 0)}
    how = CritiqueDecoding(max_new_tokens=lab.critique_tokens)

    def grade(model: str, name: str, number: int) -> list[Graded]:
        texts = held_out.answers(policy.load(model), asked, lab.sampling.max_new_tokens)
        return held_out.grade(asked, texts, name, number, how, judge)

    runs, graded = [], grade(lab.base, "base", 0)
    for condition, number in tqdm(list(product(conditions, range(seeds))), desc="runs"):
        runs.append(self_training.run(lab, condition, number, train, annotated, prompt_tokens))
        graded += grade(runs[-1].model, condition.name, number)
    return runs, graded


def table(graded: Iterable[Graded], runs: Iterable[ConditionRun], clusters: Mapping[str, str]) -> pd.DataFrame:
    """Grades of trained models: name, arm, n and rounds of the condition, seed, query, cluster, score, right."""
    about = {one.name: (one.arm, one.n, one.rounds) for one in runs}
    rows = [
        (one.arm, *about[one.arm], one.seed, one.query, clusters[one.query], one.score, float(one.right))
        for one in graded
        if one.arm in about
    ]
    return pd.DataFrame(rows, columns=["name", "arm", "n", "rounds", "seed", "query", "cluster", "score", "right"])


def compared(frame: pd.DataFrame, base: Mapping[str, float], draws: int, seed: int) -> pd.DataFrame:
    """Each condition against the base on the same queries, and the p of one round's arms adjusted as one family.

    `frame` has a row per condition, seed and query with its score; `base` the base policy's score of each query. The
    lowest and highest seed stand beside the interval, which is over queries.
    """
    found = []
    for name, rows in frame.groupby("name", sort=False):
        rows = rows.assign(gain=rows["score"] - rows["query"].map(base))
        by_seed = rows.groupby("seed")["gain"].mean()
        p = statistics.paired_permutation(rows["score"], rows["query"].map(base), rows["cluster"], seed=seed)
        head = rows.iloc[0]
        spread = (float(by_seed.min()), float(by_seed.max()), len(by_seed))
        found.append((name, head["arm"], head["n"], head["rounds"], *_mean(rows, "gain", draws, seed), *spread, p))
    table = pd.DataFrame(
        found,
        columns=["name", "arm", "n", "rounds", "value", "low", "high", "lowest seed", "highest seed", "seeds", "p"],
    )
    first = (table["rounds"] == 1) & (table["n"] == table["n"].max())
    table.loc[first, "p (Holm)"] = statistics.holm(table.loc[first, "p"])
    return table


def against(frame: pd.DataFrame, a: str, b: str, draws: int, seed: int) -> Estimate:
    """Mean score of condition a less that of b, on the same queries and seeds."""
    keys = ["seed", "query", "cluster"]
    both = frame[frame["name"] == a].merge(frame[frame["name"] == b], on=keys, suffixes=(" a", " b"))
    return _mean(both.assign(gain=both["score a"] - both["score b"]), "gain", draws, seed)


def told(difference: Estimate) -> str:
    """`+0.12 [-0.05, 0.29]`, and what that says."""
    word = "more" if difference.low > 0 else "less" if difference.high < 0 else "not told apart"
    return f"{difference.value:+.2f} [{difference.low:.2f}, {difference.high:.2f}], {word}"


def verdict(differences: Mapping[tuple[str, str], Estimate]) -> list[str]:
    """Whether the paper's conclusion holds here, in sentences that follow from differences between arms.

    The conclusion, as far as it can be measured: ranking a small model's own answers by a reward model brings less
    than preferences of people among other models' answers.
    """
    said = [f"{a} against {b}: {told(one)}." for (a, b), one in differences.items()]
    gap, own = differences.get(("people", "own")), differences.get(("own", "base"))
    if gap is None or own is None:
        return [*said, "The arms `own` and `people` are needed to judge the paper's conclusion."]
    brings = "are shown to help" if own.low > 0 else "are shown to harm" if own.high < 0 else "are not shown to help"
    if gap.low > 0:
        word = f"holds here: people's preferences bring more than the policy's own answers, which {brings}"
    elif gap.high < 0 < own.low:
        word = "does not hold here: the policy's own answers, ranked by the reward model, bring more than people's"
    elif gap.high < 0:
        word = f"is not settled here: own answers bring more than people's preferences, but {brings}"
    else:
        word = f"is not confirmed here: own answers {brings}, and are not told apart from people's preferences"
    return [*said, f"The paper's conclusion {word}."]


def reasons(shares: pd.DataFrame, orders: pd.DataFrame, picks: pd.DataFrame) -> list[str]:
    """Why it came out so, from the tables of `by_class`, `accuracy` and `best_of` of the same queries."""
    every = shares[shares["class"] == "all"].set_index("measure")["value"]
    wrong = shares[(shares["class"] != "all") & (shares["measure"] == "all wrong")]
    classes = ", ".join(f"{row['class']} {row['value']:.0%} of {row['n']}" for _, row in wrong.iterrows())
    said = [
        f"No answer is right for {every['all wrong']:.0%} of the held-out queries ({classes}), every answer for "
        f"{every['all right']:.0%}; {every['all alike']:.0%} give the same answer every time.",
        f"All answers have one truth score for {every['equal score']:.0%}: no choice among them can help there.",
    ]
    most, mean = picks["k"].max(), picks.loc[picks["k"] == 1, "value"].iloc[0]
    top = picks[picks["k"] == most].set_index("signal")["value"]
    room = top[self_training.TRUTH] - mean
    said.append(f"The best of {most} answers is {room:.2f} above the mean answer; so much can be chosen.")
    for row in orders[orders["class"] == "all"].itertuples():
        share = f"; picking by it gains {(top[row.signal] - mean) / room:.0%} of that" if room else ""
        ends = f"[{row.low:.0%}, {row.high:.0%}]"
        said.append(f"{row.signal} orders {row.value:.0%} {ends} of the pairs that differ as the truth does{share}.")
    return said


def needs(differences: Mapping[tuple[str, str], Estimate]) -> list[str]:
    """What self-improvement would need here: a better signal, better answers, or neither shown."""
    said = []
    if ("truth", "own") in differences:
        said.append(
            f"A perfect signal on the same answers, against our reward model: {told(differences['truth', 'own'])}."
        )
    if ("truth", "base") in differences:
        said.append(f"A perfect signal against no training: {told(differences['truth', 'base'])}.")
    return said


def sizes(frame: pd.DataFrame, draws: int, seed: int) -> list[str]:
    """What more answers, and more rounds, brought to an arm that was run with several numbers of them."""
    said = []
    about = frame.drop_duplicates("name").set_index("name")
    for _, mine in about.groupby("arm", sort=False):
        for what, held in (("n", "rounds"), ("rounds", "n")):
            fixed = 1 if held == "rounds" else mine["n"].max()
            tried = mine[mine[held] == fixed].sort_values(what)
            for more in tried.index[1:]:
                gap = against(frame, more, tried.index[0], draws, seed)
                said.append(f"{more} against {tried.index[0]}: {told(gap)}.")
    return said


def beside(
    frame: pd.DataFrame, rows: pd.DataFrame, truth: Sequence[Sequence[float]], scores: Sequence[Sequence[float]],
    name: str, draws: int, seed: int,
) -> Estimate:  # fmt: skip
    """What picking the best-scored of all answers brings less what a trained policy's greedy answer brings.

    On the same queries, means over seeds; `truth` and `scores` belong to the rows of `rows`.
    """
    got = rows.assign(got=[picked(a, b, len(a)) for a, b in zip(truth, scores, strict=True)])
    trained = frame[frame["name"] == name].groupby("query")["score"].mean()
    mine = got.groupby(["query", "cluster"], as_index=False)["got"].mean()
    return _mean(mine.assign(gain=mine["got"] - mine["query"].map(trained)), "gain", draws, seed)


def bound(differences: Mapping[str, Estimate]) -> str:
    """Whether ranking by the truth was an upper bound; `differences` of each other arm's score to the truth arm's."""
    each = "; ".join(f"{arm} {told(one)}" for arm, one in differences.items())
    return (
        f"Against the truth arm: {each}. The truth bounds what choosing among the same answers can give, not what "
        "training makes of the chosen pairs, and it does not bound arms with other answers or other rounds."
    )
