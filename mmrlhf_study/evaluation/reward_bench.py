"""Reward benchmarks: ACC and ACC+ of MM-RLHF-RewardBench, VL-RewardBench, and judges that compare two responses.

ACC is the share of pairs with r_w > r_l. ACC+ is the share of queries whose pairs are all right. Ties and NaN count as
wrong, and their number is reported. Every row also has two baselines on the same pairs: chance, and "the longer
response is better".
"""

import math
import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmrlhf_core.data import published, rows, storage
from mmrlhf_core.data.records import Pair, Query, Response
from mmrlhf_core.rollout.score import Margin
from mmrlhf_study.chapters.intervals import bootstrap, wilson

ALL_CATEGORIES = "all"
PUBLISHED_COUNTS = {  # queries and pairs of each category in the published mm_reward_bench.jsonl
    "mcq": (10, 42), "long": (10, 37), "short": (10, 34), "safety": (6, 32), "video": (10, 25),
    ALL_CATEGORIES: (46, 170),
}  # fmt: skip
Scores = Sequence[tuple[float, float]]  # (r_w, r_l) of every item


@dataclass(frozen=True)
class RewardItem:
    """One pair of a benchmark: the published id, the query, the category and the texts."""

    id: str
    query: str
    category: str
    prompt: str
    chosen: str
    rejected: str
    names: tuple[str, str] = ("", "")  # ids of the two responses


def vl_category(name: str) -> str:
    """Category of a VL-RewardBench id, as published; case is ignored."""
    lower = name.lower()
    if "mmmu" in lower or "mathverse" in lower:
        return "reasoning"
    return "hallucination" if any(part in lower for part in ("hallucination", "rlhf", "rlaif")) else "general"


def items(queries: Iterable[Query], responses: Iterable[Response], pairs: Iterable[Pair]) -> list[RewardItem]:
    """Pairs as a benchmark. The category is the query's own or else the first component of the media path."""
    by_id, texts = {query.id: query for query in queries}, {response.id: response.text for response in responses}
    bench = []
    for pair in pairs:
        query, names = by_id[pair.query], (pair.chosen, pair.rejected)
        category = query.category or next(iter(query.media), "").partition("/")[0]
        both = (texts[name] for name in names)
        bench.append(RewardItem(published.original_id(query.id), query.id, category, query.prompt, *both, names))
    return bench


def read(file: str | Path, vl: bool = False) -> list[RewardItem]:
    """A published benchmark file in the order of its rows; a single unusable row is an error. `vl`: VL-RewardBench."""
    rows_read = published.read(file, None, 0.0)
    bench = items(rows_read.queries, rows_read.responses, rows_read.pairs)
    return [replace(item, category=vl_category(item.id)) for item in bench] if vl else bench


def differences(bench: Sequence[RewardItem]) -> list[str]:
    """How the numbers of queries and pairs differ from the published RewardBench; empty for the published file."""
    lines = []
    for category in dict.fromkeys([*PUBLISHED_COUNTS, *(item.category for item in bench)]):
        part = [item for item in bench if category in (item.category, ALL_CATEGORIES)]
        counts, known = (len({item.query for item in part}), len(part)), PUBLISHED_COUNTS.get(category, (0, 0))
        if counts != known:
            lines.append(f"{category}: {counts[0]} queries, {counts[1]} pairs; published {known[0]} and {known[1]}")
    return lines


# ---------------------------------------------------------------- scores


def of_margins(bench: Sequence[RewardItem], margins: Iterable[Margin]) -> list[tuple[float, float]]:
    """The scores of every item from the margins of a reward model; each pair needs exactly one margin."""
    given = [((m.query, m.chosen, m.rejected), (m.r_w, m.r_l)) for m in margins]
    return _joined([(item.query, *item.names) for item in bench], given, "the margins")


def read_scores(file: str | Path, bench: Sequence[RewardItem]) -> list[tuple[float, float]]:
    """The scores of every item from the file of any model: rows of id, prompt, chosen, rejected, `rewards` [r_w, r_l].

    Rows are matched by content, not by position. A missing, repeated or unknown pair is an error: a run that was
    interrupted and resumed by id has lost pairs, so its shares would describe another benchmark.
    """
    given = []
    for number, row in rows.read(storage.path(file)):
        try:
            given.append(_score_row(row))
        except ValueError as error:
            raise ValueError(f"Row {number} of {file} is unusable: {error}") from error
    return _joined([(item.id, item.prompt, item.chosen, item.rejected) for item in bench], given, str(file))


_KEY = ("id", "prompt", "chosen", "rejected")


def _score_row(row: Any) -> tuple[tuple[str, ...], tuple[float, float]]:
    """The key and the two scores of one row of a scores file; the message of the ValueError names the fault."""
    if type(row) is not dict:
        raise row if isinstance(row, rows.BadRow) else ValueError(f"it is {reprlib.repr(row)}; give an object.")
    for name in _KEY:
        if type(row.get(name)) is not str:
            raise ValueError(f"`{name}` is {reprlib.repr(row.get(name))}; give a text.")
    rewards = row.get("rewards")
    if type(rewards) is not list or len(rewards) != 2 or any(type(value) not in (int, float) for value in rewards):
        raise ValueError(f"`rewards` is {reprlib.repr(rewards)}; give two numbers, the better response first.")
    try:
        return tuple(row[name] for name in _KEY), (float(rewards[0]), float(rewards[1]))
    except OverflowError:
        raise ValueError("`rewards` has a number over 1.8e308; give two numbers that a float can hold.") from None


def _joined(keys: Sequence[tuple], given: Sequence[tuple[tuple, tuple[float, float]]], name: str) -> list:
    """The given scores in the order of `keys`, one for each key."""
    known = dict(given)
    missing = [key for key in keys if key not in known]
    wanted = set(keys)
    unknown = [key for key in known if key not in wanted]
    if missing or unknown or len(known) != len(given) or len(wanted) != len(keys):
        first = f", first of id {reprlib.repr((missing + unknown)[0][0])}" if missing or unknown else ""
        raise ValueError(
            f"{name} does not score the {len(keys)} pairs of the benchmark: {len(missing)} missing, {len(unknown)} "
            f"unknown, {len(given) - len(known)} repeated{first}. Score exactly these pairs, each once."
        )
    return [known[key] for key in keys]


def by_length(bench: Sequence[RewardItem]) -> list[tuple[float, float]]:
    """The baseline that prefers the longer text, in characters."""
    return [(float(len(item.chosen)), float(len(item.rejected))) for item in bench]


# ---------------------------------------------------------------- shares


def per_query(bench: Sequence[RewardItem], scores: Scores) -> np.ndarray:
    """Right pairs and pairs of each query in order of appearance, [Q, 2]. Ties and NaN are wrong."""
    code = pd.factorize(np.array([item.query for item in bench]))[0]
    right = [r_w > r_l for r_w, r_l in scores]
    return np.stack((np.bincount(code, right), np.bincount(code)), -1)


def shares(bench: Sequence[RewardItem], scores: Scores) -> tuple[float, float]:
    """ACC and ACC+."""
    right, pairs = per_query(bench, scores).T
    return float(right.sum() / pairs.sum()), float((right == pairs).mean())


def chance(bench: Sequence[RewardItem]) -> tuple[float, float]:
    """Expected ACC and ACC+ of a fair coin: ½, and the mean of 2^−pairs over queries."""
    pairs = per_query(bench, by_length(bench))[:, 1]
    return 0.5, float((0.5**pairs).mean())


def _row(category: str, bench: Sequence[RewardItem], scores: Scores, seed: int) -> dict[str, str | int | float]:
    """Every number of one category."""
    sums = per_query(bench, scores)
    acc = bootstrap(sums, lambda s: s[..., 0] / s[..., 1], seed=seed)  # pairs of one query are not independent
    plus = wilson(int((sums[:, 0] == sums[:, 1]).sum()), len(sums))
    length, coin = shares(bench, by_length(bench)), chance(bench)
    return {
        "category": category, "queries": len(sums), "pairs": len(bench),
        "acc": acc.value, "acc_low": acc.low, "acc_high": acc.high,
        "acc_plus": plus.value, "acc_plus_low": plus.low, "acc_plus_high": plus.high,
        "ties": sum(r_w == r_l for r_w, r_l in scores),
        "nan": sum(math.isnan(r_w) or math.isnan(r_l) for r_w, r_l in scores),
        "chance_acc": coin[0], "chance_acc_plus": coin[1],
        "length_acc": length[0], "length_acc_plus": length[1],
    }  # fmt: skip


def table(bench: Sequence[RewardItem], scores: Scores, seed: int = 0) -> pd.DataFrame:
    """One row for each category in order of appearance, and one for all pairs."""
    if not bench or len(bench) != len(scores):
        raise ValueError(f"{len(bench)} pairs need as many scores, and at least one; {len(scores)} were given.")
    table_rows = []
    for category in (*dict.fromkeys(item.category for item in bench), ALL_CATEGORIES):
        kept = [n for n, item in enumerate(bench) if category in (item.category, ALL_CATEGORIES)]
        table_rows.append(_row(category, [bench[n] for n in kept], [scores[n] for n in kept], seed))
    return pd.DataFrame(table_rows)


def micro_macro(counted: pd.DataFrame) -> tuple[float, float]:
    """VL-RewardBench's two averages of ACC: over all pairs, and over the categories."""
    overall = counted.category == ALL_CATEGORIES
    return float(counted[overall].acc.iloc[0]), float(counted[~overall].acc.mean())


# ---------------------------------------------------------------- judges of pairs

Judge = Callable[[RewardItem, str, str], int | None]  # (pair, first text, second text) → 1, 2, or None for no verdict


@dataclass(frozen=True)
class BothWays:
    """The verdicts of a judge in both orders: whether it preferred the better response, None without a verdict."""

    better_first: tuple[bool | None, ...]
    better_second: tuple[bool | None, ...]

    def scores(self) -> list[tuple[float, float]]:
        """How often each response of a pair won. A judge that follows the position gets ties, which count as wrong."""
        return [(float(pair.count(True)), float(pair.count(False))) for pair in self._both()]

    def _both(self) -> list[tuple[bool | None, bool | None]]:
        return list(zip(self.better_first, self.better_second, strict=True))

    def summary(self) -> dict[str, float]:
        """Shares over pairs: same verdict in both orders, right in each order, first position preferred, no verdict."""
        n, given = len(self.better_first), [pair for pair in self._both() if None not in pair]
        first = self.better_first.count(True) + self.better_second.count(False)
        missing = self.better_first.count(None) + self.better_second.count(None)
        return {
            "consistent": sum(a == b for a, b in given) / n,
            "right_better_first": self.better_first.count(True) / n,
            "right_better_second": self.better_second.count(True) / n,
            "prefers_first": first / max(2 * n - missing, 1),
            "no_verdict": missing / (2 * n),
        }


def judge_both_ways(judge: Judge, bench: Sequence[RewardItem]) -> BothWays:
    """Ask a judge about every pair twice: with the better response in the first and in the second position."""
    verdicts: tuple[list, list] = ([], [])
    for item in bench:
        for place, texts in enumerate(((item.chosen, item.rejected), (item.rejected, item.chosen))):
            answer = judge(item, *texts)
            if answer not in (1, 2, None):
                raise ValueError(f"The judge answered {answer!r} about a pair of {item.id!r}; allowed: 1, 2 or None.")
            verdicts[place].append(None if answer is None else answer == place + 1)
    return BothWays(tuple(verdicts[0]), tuple(verdicts[1]))
