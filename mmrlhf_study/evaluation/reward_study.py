"""Reward models beside each other on the same pairs: over training seeds, with intervals, tests, and what they cost.

Intervals are 95 %, from a bootstrap over queries of the mean over seeds; tests flip the signs of whole queries, because
pairs of one query are not independent. How far seeds differ is shown apart. Shapes: n pairs, S seeds.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mmrlhf_core.data.annotated import Annotated
from mmrlhf_core.data.records import Pair
from mmrlhf_core.models import reward
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.models.reward import RewardModel
from mmrlhf_core.rollout.score import CritiqueDecoding, Scored, Work, margins, score, works
from mmrlhf_core.training.reward_dataset import PromptCache
from mmrlhf_study.annotation import counterfactuals
from mmrlhf_study.annotation.judge import prefer
from mmrlhf_study.chapters.intervals import bootstrap
from mmrlhf_study.evaluation import paper, reward_bench, statistics
from mmrlhf_study.evaluation.critiques import in_world, true_critiques
from mmrlhf_study.evaluation.reward_bench import ALL_CATEGORIES, RewardItem, Scores

Runs = Mapping[str, Sequence[Scores]]  # of every arm, the scores of each training seed
CHANCE = "chance"
ROW_NAMES = {
    "none": "no critique",
    "raw": "raw reasons",
    "expanded": "expanded reasons",
}  # of the arms, as tables show them


def right(scores: Scores) -> np.ndarray:
    """1 for a pair whose better response has the higher score, else 0: ties and NaN are wrong. [n]."""
    return np.array([float(r_w > r_l) for r_w, r_l in scores])


def work_of(test: Sequence[Annotated], media: str | Path, frames: int, kind: str, seed: int) -> dict[str, list[Work]]:
    """What trained models are asked about the test queries.

    `test` and `other pictures` have critiques written; `given critiques` brings the annotators' (when all have one),
    `true critiques` those of the scenes (in MiniWorld).
    """
    made = {"test": works(test, media, frames)}
    made["other pictures"] = works(counterfactuals.other_pictures(test, seed), media, frames)
    reasons = {name: text for one in test for name, text in one.reasons(kind).items()}
    if all(text.strip() for text in reasons.values()):
        made["given critiques"] = works(test, media, frames, reasons)
    if in_world(test):
        made["true critiques"] = works(test, media, frames, true_critiques(test))
    return made


def pooled(found: Sequence[RewardItem], scores: Sequence[Scores]) -> tuple[list[tuple[float, float]], list[str]]:
    """The scores of all seeds in one list, and the query each belongs to."""
    return [pair for one in scores for pair in one], [item.query for _ in scores for item in found]


# ---------------------------------------------------------------- tables


def _sums(found: Sequence[RewardItem], scores: Sequence[Scores]) -> np.ndarray:
    """Per query, over seeds on average: pairs right, pairs, 1 if all are right, 1. [Q, 4]."""
    code = pd.factorize(np.array([item.query for item in found]))[0]
    pairs = np.bincount(code)
    hits = np.array([np.bincount(code, right(one)) for one in scores])
    return np.stack((hits.mean(0), pairs, (hits == pairs).mean(0), np.ones(len(pairs))), -1)


def _shares(sums: np.ndarray) -> np.ndarray:
    """ACC and ACC+."""
    return sums[..., [0, 2]] / sums[..., [1, 3]]


def _row(found: Sequence[RewardItem], scores: Sequence[Scores], draws: int, seed: int) -> dict[str, float | int]:
    """The numbers of one arm on some pairs."""
    sums = _sums(found, scores)
    value, low, high = bootstrap(sums, _shares, draws, seed)
    single = [float(right(one).mean()) for one in scores]
    values = np.array(scores, float)
    made = {"queries": len(sums), "pairs": len(found), "seeds": len(scores)}
    for place, name in enumerate(("acc", "acc_plus")):
        made |= {name: float(value[place]), f"{name}_low": float(low[place]), f"{name}_high": float(high[place])}
    ties, nan = values[..., 0] == values[..., 1], np.isnan(values).any(-1)
    made |= {"acc_worst_seed": min(single), "acc_best_seed": max(single)}
    return made | {"ties": float(ties.sum(1).mean()), "nan": float(nan.sum(1).mean())}


def overview(found: Sequence[RewardItem], runs: Runs, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """ACC and ACC+ of every arm in every category and over all, and of a fair coin."""
    rows = []
    for category in (*dict.fromkeys(item.category for item in found), ALL_CATEGORIES):
        kept = [n for n, item in enumerate(found) if category in (item.category, ALL_CATEGORIES)]
        mine = [found[n] for n in kept]
        for arm, scores in runs.items():
            some = [[one[n] for n in kept] for one in scores]
            rows.append({"arm": arm, "category": category} | _row(mine, some, draws, seed))
        coin = dict(zip(("acc", "acc_plus"), reward_bench.chance(mine), strict=True))
        same = {f"{name}_{end}": value for name, value in coin.items() for end in ("low", "high")}
        counts = {name: rows[-1][name] for name in ("queries", "pairs")} | {"seeds": 0, "ties": 0.0, "nan": 0.0}
        rows.append({"arm": CHANCE, "category": category} | counts | coin | same)
    return pd.DataFrame(rows)


def in_words(made: pd.DataFrame) -> pd.DataFrame:
    """An overview for reading: a row per arm, a column per category, `ACC [low, high] / ACC+`."""
    text = [f"{r.acc:.2f} [{r.acc_low:.2f}, {r.acc_high:.2f}] / {r.acc_plus:.2f}" for r in made.itertuples()]
    shown = made.assign(text=text).pivot(index="arm", columns="category", values="text")
    return shown.loc[list(dict.fromkeys(made.arm)), list(dict.fromkeys(made.category))]


def beside_paper(made: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """ACC / ACC+ of some arms here and of the paper's columns they correspond to (`names`), never merged."""
    columns, printed = {}, paper.table_4()
    for arm, column in names.items():
        for where, rows in (("MiniWorld", made[made.arm == arm]), ("paper", printed[printed.model == column])):
            text = [f"{acc:.2f} / {plus:.2f}" for acc, plus in zip(rows.acc, rows.acc_plus, strict=True)]
            columns[arm, where] = pd.Series(text, index=list(rows.category))
    return pd.DataFrame(columns).reindex(list(paper.ROWS_4)).fillna("–")


def comparisons(
    found: Sequence[RewardItem], runs: Runs, asked: Iterable[tuple[str, str]], draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """ACC of the first arm minus that of the second on the same pairs, mean over seeds, for all that were asked.

    With interval, effect size over queries, p of the paired permutation test, and p after Holm's correction for all.
    """
    clusters, mean = [item.query for item in found], {}
    for arm, scores in runs.items():
        mean[arm] = np.mean([right(one) for one in scores], axis=0)
    rows = []
    for a, b in asked:
        found_ = statistics.mean_interval(mean[a] - mean[b], clusters, draws, seed)
        p = statistics.paired_permutation(mean[a], mean[b], clusters, seed=seed)
        per_query = pd.Series(mean[a] - mean[b]).groupby(clusters).mean()
        spread = float(per_query.std())
        effect = float(per_query.mean()) / spread if spread > 0 else float("nan")
        rows.append({"arm": a, "against": b, **found_._asdict(), "d_z": effect, "p": p})
    made = pd.DataFrame(rows, columns=["arm", "against", "value", "low", "high", "d_z", "p"])
    return made.assign(p_holm=statistics.holm(made.p) if len(made) else [])


def seeds_table(found: Sequence[RewardItem], runs: Runs) -> pd.DataFrame:
    """For every arm of two seeds or more: ACC of each, and where the variance of a single answer comes from."""
    rows = []
    for arm, scores in runs.items():
        if len(scores) > 1:
            table = np.array([right(one) for one in scores])
            parts = statistics.variance_parts(table)
            rows.append(
                {"arm": arm, "ACC of each seed": [round(float(one), 3) for one in table.mean(1)]} | parts._asdict()
            )
    return pd.DataFrame(rows, columns=["arm", "ACC of each seed", "between_seeds", "between_items", "rest"])


def beside_other_pictures(
    found: Sequence[RewardItem], own: Mapping[str, Scores], other: Mapping[str, Sequence[Scored]], pairs: Sequence[Pair]
) -> tuple[list[RewardItem], dict[str, list[Scores]]]:
    """The pairs of the queries that were also scored beside another's pictures, and every arm's scores both ways."""
    moved = {one.query for scored in other.values() for one in scored}
    kept = [number for number, item in enumerate(found) if item.query in moved]
    runs: dict[str, list[Scores]] = {}
    for arm, scored in other.items():
        swapped = margins(scored, [pairs[number] for number in kept])
        runs[f"{arm}, own pictures"] = [[own[arm][number] for number in kept]]
        runs[f"{arm}, other pictures"] = [[(one.r_w, one.r_l) for one in swapped]]
    return [found[number] for number in kept], runs


# ---------------------------------------------------------------- untrained judges


def point_wise(
    judge: Callable[[list[Prompt], list[str]], list[float]], found: Sequence[RewardItem], prompts: Mapping[str, Prompt]
) -> list[tuple[float, float]]:
    """Scores of every pair from a judge of single responses, asked once for each; `prompts` by query."""
    said = list(dict.fromkeys((item.query, text) for item in found for text in (item.chosen, item.rejected)))
    points = judge([prompts[query] for query, _ in said], [text for _, text in said])
    known = dict(zip(said, points, strict=True))
    return [(known[item.query, item.chosen], known[item.query, item.rejected]) for item in found]


def pair_wise(policy: Policy, found: Sequence[RewardItem], prompts: Mapping[str, Prompt]) -> reward_bench.BothWays:
    """Verdicts of an untrained model that is asked which of two responses is better, in both orders."""
    pairs = [(item.query, *texts) for item in found
             for texts in ((item.chosen, item.rejected), (item.rejected, item.chosen))]  # fmt: skip
    said = prefer(policy, [prompts[query] for query, _, _ in pairs], [(a, b) for _, a, b in pairs])
    known = dict(zip(pairs, said, strict=True))
    return reward_bench.judge_both_ways(lambda item, first, second: known[item.query, first, second], found)


# ---------------------------------------------------------------- critiques and what they cost


def timed(
    model: RewardModel, work: Sequence[Work], how: CritiqueDecoding, batch: int, desc: str
) -> tuple[list[Scored], float]:
    """The scores of all responses, and the milliseconds each took on average."""
    begun = time.perf_counter()
    scored = score(model, work, how, batch, desc)
    return scored, 1000 * (time.perf_counter() - begun) / len(scored)


def averaged(scored: Iterable[Scored], n: int) -> list[Scored]:
    """The same responses scored by the first `n` of their critiques only."""
    found = []
    for one in scored:
        if not 1 <= n <= len(one.scores):
            raise ValueError(f"Response {one.response!r} has {len(one.scores)} critiques; {n} were asked for.")
        kept = (float(np.mean(one.scores[:n])), one.scores[:n], one.critiques[:n], one.finished[:n])
        found.append(replace(one, **dict(zip(("score", "scores", "critiques", "finished"), kept, strict=True))))
    return found


def critique_tokens(model: RewardModel, scored: Iterable[Scored]) -> dict[tuple[str, str], int]:
    """Tokens of all critiques of each (query, response), with their ends; without critiques the ends alone."""
    literal, processor = reward.literal, model.policy.processor
    return {
        (one.query, one.response): sum(len(literal(processor, text)) + 1 for text in one.critiques) for one in scored
    }


def effort(
    model: RewardModel, data: Iterable[Annotated], scored: Sequence[Scored], asked: PromptCache
) -> dict[str, float]:
    """What scoring one response takes on average: tokens read, tokens written, and 10⁹ operations.

    Two operations for each weight of the language model and token. Writing reads question, pictures and responses once
    and puts written tokens through the output layer; scoring reads all of it again, critiques too. Attention and the
    vision tower are left out.
    """
    lengths, processor = critique_tokens(model, scored), model.policy.processor
    writes, n = model.form.critique and not scored[0].given, len(scored[0].scores)
    read = written = responses = 0
    for one in data:
        prompt, prefix, _ = asked(one)
        names = {text: name for name, text in one.responses.items()}
        own = sum(len(reward.opening(processor, model.form, prompt, text)) for text in names)
        words = sum(lengths[one.query.id, name] for name in names.values())
        read += writes * (len(prefix) + own) + len(prefix) + n * own + words
        written, responses = written + writes * words, responses + len(names)
    weights = sum(
        weight.numel() for name, weight in model.policy.model.named_parameters()
        if "language_model" in name and "embed" not in name
    )  # fmt: skip
    head = model.policy.model.get_output_embeddings().weight.numel()
    operations = 2 * (weights * (read + written) + head * written)
    return {
        "tokens read": read / responses,
        "tokens written": written / responses,
        "GFLOP": operations / responses / 1e9,
    }
