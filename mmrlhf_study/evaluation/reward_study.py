"""Reward models compared on the same pairs, over training seeds: accuracy, intervals, tests and costs.

Seeds are averaged first, then queries are bootstrapped, so 95 % intervals and p-values do not contain the variation
between seeds; `seeds_table` shows it. Tests flip all differences of a query together, because its pairs are not
independent. The column `arm` names what scored: a variant, a control or a baseline. Shapes: n pairs, S seeds.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mmrlhf_core.data.annotated import Annotated
from mmrlhf_core.data.records import Pair
from mmrlhf_core.models import prompts, reward
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.models.reward import RewardModel
from mmrlhf_core.rollout.score import CritiqueDecoding, Scored, Work, margins, score, works
from mmrlhf_core.training.reward_dataset import PromptCache
from mmrlhf_study.annotation import counterfactuals
from mmrlhf_study.annotation.judge import prefer
from mmrlhf_study.chapters.intervals import bootstrap
from mmrlhf_study.evaluation import compare, reward_bench, statistics
from mmrlhf_study.evaluation.critiques import in_world, true_critiques
from mmrlhf_study.evaluation.reward_bench import ALL_CATEGORIES, RewardItem, Scores

Runs = Mapping[str, Sequence[Scores]]  # for every arm, the scores of each training seed
CHANCE = "chance"
ROW_NAMES = {"none": "no critique", "raw": "raw reasons", "expanded": "expanded reasons"}  # of the arms in tables


def right(scores: Scores) -> np.ndarray:
    """1 if the better response scores higher, else 0, also for ties and NaN. [n]."""
    return np.array([float(r_w > r_l) for r_w, r_l in scores])


def work_of(test: Sequence[Annotated], media: str | Path, frames: int, kind: str, seed: int) -> dict[str, list[Work]]:
    """The scoring tasks of trained models on the test queries, by name.

    The model writes its own critiques for `test` and `other pictures`. `given critiques` are the annotators', if every
    response has one; `true critiques` exist in MiniWorld only.
    """
    tasks = {"test": works(test, media, frames)}
    tasks["other pictures"] = works(counterfactuals.other_pictures(test, seed), media, frames)
    reasons = {name: text for row in test for name, text in row.reasons(kind).items()}
    if all(text.strip() for text in reasons.values()):
        tasks["given critiques"] = works(test, media, frames, reasons)
    if in_world(test):
        tasks["true critiques"] = works(test, media, frames, true_critiques(test))
    return tasks


def pooled(bench: Sequence[RewardItem], scores: Sequence[Scores]) -> tuple[list[tuple[float, float]], list[str]]:
    """The scores of all seeds in one list, and the query of each."""
    return [pair for run in scores for pair in run], [item.query for _ in scores for item in bench]


# ---------------------------------------------------------------- tables


def _sums(bench: Sequence[RewardItem], scores: Sequence[Scores]) -> np.ndarray:
    """Per query, means over seeds: right pairs, pairs, all right (0 or 1), and the constant 1. [Q, 4]."""
    counts = np.array([reward_bench.per_query(bench, run) for run in scores])
    hits, pairs = counts[..., 0], counts[0, :, 1]
    return np.stack((hits.mean(0), pairs, (hits == pairs).mean(0), np.ones(len(pairs))), -1)


def _shares(sums: np.ndarray) -> np.ndarray:
    """ACC and ACC+."""
    return sums[..., [0, 2]] / sums[..., [1, 3]]


def _row(bench: Sequence[RewardItem], scores: Sequence[Scores], draws: int, seed: int) -> dict[str, float | int]:
    """ACC, ACC+, ties and seeds of one arm on some pairs."""
    sums = _sums(bench, scores)
    value, low, high = bootstrap(sums, _shares, draws, seed)
    single = [float(right(one).mean()) for one in scores]
    values = np.array(scores, float)
    row = {"queries": len(sums), "pairs": len(bench), "seeds": len(scores)}
    for place, name in enumerate(("acc", "acc_plus")):
        row |= {name: float(value[place]), f"{name}_low": float(low[place]), f"{name}_high": float(high[place])}
    ties, nan = values[..., 0] == values[..., 1], np.isnan(values).any(-1)
    row |= {"acc_worst_seed": min(single), "acc_best_seed": max(single)}
    return row | {"ties": float(ties.sum(1).mean()), "nan": float(nan.sum(1).mean())}


def overview(bench: Sequence[RewardItem], runs: Runs, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """ACC and ACC+ of every arm and of a fair coin, in every category and over all pairs."""
    rows = []
    for category in (*dict.fromkeys(item.category for item in bench), ALL_CATEGORIES):
        kept = [n for n, item in enumerate(bench) if category in (item.category, ALL_CATEGORIES)]
        part = [bench[n] for n in kept]
        for arm, scores in runs.items():
            kept_scores = [[run[n] for n in kept] for run in scores]
            rows.append({"arm": arm, "category": category} | _row(part, kept_scores, draws, seed))
        coin = dict(zip(("acc", "acc_plus"), reward_bench.chance(part), strict=True))
        same = {f"{name}_{end}": value for name, value in coin.items() for end in ("low", "high")}
        counts = {name: rows[-1][name] for name in ("queries", "pairs")} | {"seeds": 0, "ties": 0.0, "nan": 0.0}
        rows.append({"arm": CHANCE, "category": category} | counts | coin | same)
    return pd.DataFrame(rows)


def comparisons(
    bench: Sequence[RewardItem], runs: Runs, arms: Iterable[tuple[str, str]], draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """ACC of the first arm minus ACC of the second on the same pairs, means over seeds, for each two `arms`.

    Columns: the difference with its interval, d_z over queries, p, Holm's p, and the verdict by Holm's p.
    """
    clusters = [item.query for item in bench]
    mean = {arm: np.mean([right(run) for run in scores], axis=0) for arm, scores in runs.items()}
    rows = []
    for a, b in arms:
        result = compare.paired(mean[a], mean[b], clusters, draws, seed)
        per_query = pd.Series(mean[a] - mean[b]).groupby(clusters).mean()
        spread = float(per_query.std())
        effect = float(per_query.mean()) / spread if spread > 0 else float("nan")
        rows.append((a, b, result.difference, result.low, result.high, effect, result.p))
    table = pd.DataFrame(rows, columns=["arm", "against", "value", "low", "high", "d_z", "p"])
    return compare.judged(table, "value").drop(columns="p_bh")


def seeds_table(bench: Sequence[RewardItem], runs: Runs) -> pd.DataFrame:
    """For every arm with two seeds or more: ACC of each seed, and the variance components of one pair's outcome."""
    rows = []
    for arm, scores in runs.items():
        if len(scores) > 1:
            table = np.array([right(run) for run in scores])
            each = [round(float(acc), 3) for acc in table.mean(1)]
            rows.append({"arm": arm, "ACC of each seed": each} | statistics.variance_parts(table)._asdict())
    return pd.DataFrame(rows, columns=["arm", "ACC of each seed", "between_seeds", "between_items", "rest"])


def beside_other_pictures(
    bench: Sequence[RewardItem], own: Mapping[str, Scores], other: Mapping[str, Sequence[Scored]], pairs: Sequence[Pair]
) -> tuple[list[RewardItem], dict[str, list[Scores]]]:
    """The pairs scored with their own and with another query's pictures, and both scores of every arm."""
    moved = {record.query for scored in other.values() for record in scored}
    kept = [number for number, item in enumerate(bench) if item.query in moved]
    runs: dict[str, list[Scores]] = {}
    for arm, scored in other.items():
        swapped = margins(scored, [pairs[number] for number in kept])
        runs[f"{arm}, own pictures"] = [[own[arm][number] for number in kept]]
        runs[f"{arm}, other pictures"] = [[(margin.r_w, margin.r_l) for margin in swapped]]
    return [bench[number] for number in kept], runs


# ---------------------------------------------------------------- untrained judges


def point_wise(
    judge: Callable[[list[Prompt], list[str]], list[float]], bench: Sequence[RewardItem], prompts: Mapping[str, Prompt]
) -> list[tuple[float, float]]:
    """Scores of every pair from a judge that rates each response once; `prompts` by query."""
    texts = list(dict.fromkeys((item.query, text) for item in bench for text in (item.chosen, item.rejected)))
    points = judge([prompts[query] for query, _ in texts], [text for _, text in texts])
    known = dict(zip(texts, points, strict=True))
    return [(known[item.query, item.chosen], known[item.query, item.rejected]) for item in bench]


def pair_wise(policy: Policy, bench: Sequence[RewardItem], prompts: Mapping[str, Prompt]) -> reward_bench.BothWays:
    """Verdicts of an untrained model on which of two responses is better, in both orders."""
    pairs = [(item.query, *texts) for item in bench
             for texts in ((item.chosen, item.rejected), (item.rejected, item.chosen))]  # fmt: skip
    verdicts = prefer(policy, [prompts[query] for query, _, _ in pairs], [(a, b) for _, a, b in pairs])
    known = dict(zip(pairs, verdicts, strict=True))
    return reward_bench.judge_both_ways(lambda item, first, second: known[item.query, first, second], bench)


# ---------------------------------------------------------------- critiques and what they cost


def timed(
    model: RewardModel, work: Sequence[Work], how: CritiqueDecoding, batch: int, desc: str
) -> tuple[list[Scored], float]:
    """The scores of all responses, and the mean time per response in milliseconds."""
    begun = time.perf_counter()
    scored = score(model, work, how, batch, desc)
    return scored, 1000 * (time.perf_counter() - begun) / len(scored)


def averaged(scored: Iterable[Scored], n: int) -> list[Scored]:
    """The same responses, scored by the first `n` of their critiques only."""
    averages = []
    for record in scored:
        if not 1 <= n <= len(record.scores):
            raise ValueError(f"Response {record.response!r} has {len(record.scores)} critiques, not {n}; sample more.")
        first = {name: getattr(record, name)[:n] for name in ("scores", "critiques", "finished")}
        averages.append(replace(record, score=float(np.mean(first["scores"])), **first))
    return averages


def critique_tokens(model: RewardModel, scored: Iterable[Scored]) -> dict[tuple[str, str], int]:
    """Critique tokens of each (query, response), with end tokens; 1 without critiques."""
    literal, processor = prompts.literal, model.policy.processor
    return {
        (one.query, one.response): sum(len(literal(processor, text)) + 1 for text in one.critiques) for one in scored
    }


def effort(
    model: RewardModel, data: Iterable[Annotated], scored: Sequence[Scored], asked: PromptCache
) -> dict[str, float]:
    """The mean cost of scoring one response: tokens read, tokens written, and 10⁹ operations.

    Counts two operations per token and language-model weight. To write critiques, prompt and responses are read once,
    and written tokens go through the output layer; to score, everything is read again with the critiques. Attention
    and the vision tower are not counted.
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


def part(data: Iterable[Annotated], split: str) -> list[Annotated]:
    """The queries of one part of the data."""
    return [item for item in data if item.split == split]


def about(data: Iterable[Annotated], slice_: str) -> list[Annotated]:
    """The queries whose topic (or class, where they have no topic) begins with `slice_`."""
    return [item for item in data if (item.query.topic or item.query.category).startswith(slice_)]
