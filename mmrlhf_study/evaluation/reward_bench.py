"""Reward benchmarks: ACC and ACC+ of MM-RLHF-RewardBench, VL-RewardBench, and judges that compare two responses.

ACC is the share of pairs with r_w > r_l, ACC+ the share of queries whose pairs are all right. Ties and NaN are wrong,
and counted. Beside every number stand what chance and "the longer response is better" get on the same pairs.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    """One pair of a benchmark: the published id, the query it belongs to, its category and texts."""

    id: str
    query: str
    category: str
    prompt: str
    chosen: str
    rejected: str
    names: tuple[str, str] = ("", "")  # ids of the two responses


def vl_category(name: str) -> str:
    """Category of a VL-RewardBench id, as published: upper and lower case are the same."""
    low = name.lower()
    if "mmmu" in low or "mathverse" in low:
        return "reasoning"
    return "hallucination" if any(part in low for part in ("hallucination", "rlhf", "rlaif")) else "general"


def items(queries: Iterable[Query], responses: Iterable[Response], pairs: Iterable[Pair]) -> list[RewardItem]:
    """Pairs as a benchmark; the category is the first component of the media path, or the query's own."""
    asked, said = {query.id: query for query in queries}, {response.id: response.text for response in responses}
    found = []
    for pair in pairs:
        query = asked[pair.query]
        category = query.category or next(iter(query.media), "").partition("/")[0]
        texts = (query.prompt, said[pair.chosen], said[pair.rejected])
        found.append(
            RewardItem(published.original_id(query.id), query.id, category, *texts, names=(pair.chosen, pair.rejected))
        )
    return found


def read(file: str | Path, vl: bool = False) -> list[RewardItem]:
    """A published benchmark file in the order of its rows; one unusable row is an error. `vl`: VL-RewardBench."""
    found = published.read(file, None, 0.0)
    made = items(found.queries, found.responses, found.pairs)
    if not vl:
        return made
    return [RewardItem(i.id, i.query, vl_category(i.id), i.prompt, i.chosen, i.rejected, i.names) for i in made]


def differences(found: Sequence[RewardItem]) -> list[str]:
    """How queries and pairs per category differ from the published RewardBench; empty for the file itself."""
    said = []
    for category in dict.fromkeys([*PUBLISHED_COUNTS, *(item.category for item in found)]):
        mine = [item for item in found if category in (item.category, ALL_CATEGORIES)]
        counts, known = (len({item.query for item in mine}), len(mine)), PUBLISHED_COUNTS.get(category, (0, 0))
        if counts != known:
            said.append(f"{category}: {counts[0]} queries, {counts[1]} pairs; published {known[0]} and {known[1]}")
    return said


# ---------------------------------------------------------------- scores


def of_margins(found: Sequence[RewardItem], margins: Iterable[Margin]) -> list[tuple[float, float]]:
    """The scores of every item from our own reward model; each pair needs exactly one margin."""
    given = [((one.query, one.chosen, one.rejected), (one.r_w, one.r_l)) for one in margins]
    return _joined([(item.query, *item.names) for item in found], given, "the margins")


def read_scores(file: str | Path, found: Sequence[RewardItem]) -> list[tuple[float, float]]:
    """The scores of every item from any model's file: rows with id, prompt, chosen, rejected and `rewards` [r_w, r_l].

    Rows are matched by content, not by place. A missing, repeated or unknown pair is an error: a run that was
    interrupted and resumed by id has lost pairs, and its shares would be of another benchmark.
    """
    given = []
    for number, row in rows.read(storage.path(file)):
        if type(row) is not dict or type(row.get("rewards")) is not list or len(row["rewards"]) != 2:
            raise ValueError(f"Row {number} of {file} needs `rewards` with two numbers, better response first.")
        if any(type(value) not in (int, float) for value in row["rewards"]):
            raise ValueError(f"Row {number} of {file} has {row['rewards']} as `rewards`; give two numbers.")
        key = tuple(row.get(name) for name in ("id", "prompt", "chosen", "rejected"))
        given.append((key, (float(row["rewards"][0]), float(row["rewards"][1]))))
    return _joined([(item.id, item.prompt, item.chosen, item.rejected) for item in found], given, str(file))


def _joined(keys: Sequence[tuple], given: Sequence[tuple[tuple, tuple[float, float]]], name: str) -> list:
    """The given scores in the order of `keys`, one for each."""
    known = dict(given)
    missing = [key for key in keys if key not in known]
    unknown = [key for key in known if key not in set(keys)]
    if missing or unknown or len(known) != len(given) or len(set(keys)) != len(keys):
        first = f", first of id {(missing + unknown)[0][0]!r}" if missing or unknown else ""
        raise ValueError(
            f"{name} does not score the {len(keys)} pairs of the benchmark: {len(missing)} missing, {len(unknown)} "
            f"unknown, {len(given) - len(known)} repeated{first}. Score exactly these pairs, each once."
        )
    return [known[key] for key in keys]


def by_length(found: Sequence[RewardItem]) -> list[tuple[float, float]]:
    """The baseline that prefers the longer text, in characters."""
    return [(float(len(item.chosen)), float(len(item.rejected))) for item in found]


# ---------------------------------------------------------------- shares


def _by_query(found: Sequence[RewardItem], values: Sequence[bool]) -> dict[str, list[bool]]:
    """Values of the pairs of each query."""
    grouped: dict[str, list[bool]] = defaultdict(list)
    for item, value in zip(found, values, strict=True):
        grouped[item.query].append(value)
    return grouped


def shares(found: Sequence[RewardItem], scores: Scores) -> tuple[float, float]:
    """ACC and ACC+."""
    right = [r_w > r_l for r_w, r_l in scores]
    grouped = _by_query(found, right)
    return sum(right) / len(right), sum(all(part) for part in grouped.values()) / len(grouped)


def chance(found: Sequence[RewardItem]) -> tuple[float, float]:
    """Expected ACC and ACC+ of a fair coin for every pair: ½, and the mean of 2^−pairs over queries."""
    grouped = _by_query(found, [True] * len(found))
    return 0.5, sum(0.5 ** len(part) for part in grouped.values()) / len(grouped)


def _row(category: str, found: Sequence[RewardItem], scores: Scores, seed: int) -> dict[str, str | int | float]:
    """Every number of one category."""
    grouped = _by_query(found, [r_w > r_l for r_w, r_l in scores])
    sums = np.array([(sum(part), len(part)) for part in grouped.values()])
    acc = bootstrap(sums, lambda s: s[..., 0] / s[..., 1], seed=seed)  # pairs of one query are not independent
    plus = wilson(sum(all(part) for part in grouped.values()), len(grouped))
    length, coin = shares(found, by_length(found)), chance(found)
    return {
        "category": category, "queries": len(grouped), "pairs": len(found),
        "acc": acc.value, "acc_low": acc.low, "acc_high": acc.high,
        "acc_plus": plus.value, "acc_plus_low": plus.low, "acc_plus_high": plus.high,
        "ties": sum(r_w == r_l for r_w, r_l in scores),
        "nan": sum(math.isnan(r_w) or math.isnan(r_l) for r_w, r_l in scores),
        "chance_acc": coin[0], "chance_acc_plus": coin[1],
        "length_acc": length[0], "length_acc_plus": length[1],
    }  # fmt: skip


def table(found: Sequence[RewardItem], scores: Scores, seed: int = 0) -> pd.DataFrame:
    """One row for each category that has pairs, in order of appearance, and one for all."""
    if not found or len(found) != len(scores):
        raise ValueError(f"{len(found)} pairs need as many scores, and at least one; {len(scores)} were given.")
    made = []
    for category in (*dict.fromkeys(item.category for item in found), ALL_CATEGORIES):
        kept = [n for n, item in enumerate(found) if category in (item.category, ALL_CATEGORIES)]
        made.append(_row(category, [found[n] for n in kept], [scores[n] for n in kept], seed))
    return pd.DataFrame(made)


def micro_macro(made: pd.DataFrame) -> tuple[float, float]:
    """VL-RewardBench's two averages of ACC: over all pairs, and over the categories."""
    return float(made[made.category == ALL_CATEGORIES].acc.iloc[0]), float(
        made[made.category != ALL_CATEGORIES].acc.mean()
    )


# ---------------------------------------------------------------- judges of pairs

Judge = Callable[[RewardItem, str, str], int | None]  # (pair, first text, second text) → 1, 2, or None for no verdict


@dataclass(frozen=True)
class BothWays:
    """A judge's verdicts on every pair in both orders: whether it preferred the better response, None for neither."""

    better_first: tuple[bool | None, ...]
    better_second: tuple[bool | None, ...]

    def scores(self) -> list[tuple[float, float]]:
        """How often each response of a pair won: a judge that follows the position gets ties, which are wrong."""
        pairs = list(zip(self.better_first, self.better_second, strict=True))
        return [(float(pair.count(True)), float(pair.count(False))) for pair in pairs]

    def summary(self) -> dict[str, float]:
        """Shares over pairs: consistent in both orders, right in each, first position preferred, no verdict."""
        pairs, n = list(zip(self.better_first, self.better_second, strict=True)), len(self.better_first)
        given = [(a, b) for a, b in pairs if a is not None and b is not None]
        first = self.better_first.count(True) + self.better_second.count(False)
        missing = self.better_first.count(None) + self.better_second.count(None)
        return {
            "consistent": sum(a == b for a, b in given) / n,
            "right_better_first": self.better_first.count(True) / n,
            "right_better_second": self.better_second.count(True) / n,
            "prefers_first": first / max(2 * n - missing, 1),
            "no_verdict": missing / (2 * n),
        }


def judge_both_ways(judge: Judge, found: Sequence[RewardItem]) -> BothWays:
    """Ask a judge about every pair twice, with the better response first and second."""
    verdicts: tuple[list, list] = ([], [])
    for item in found:
        for place, texts in enumerate(((item.chosen, item.rejected), (item.rejected, item.chosen))):
            said = judge(item, *texts)
            if said not in (1, 2, None):
                raise ValueError(f"The judge said {said!r} about a pair of {item.id!r}; it may say 1, 2 or None.")
            verdicts[place].append(None if said is None else said == place + 1)
    return BothWays(tuple(verdicts[0]), tuple(verdicts[1]))
