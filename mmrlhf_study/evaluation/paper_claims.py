"""What follows from the paper's own tables: printed averages recomputed, gains, and which headline figures hold."""

from collections.abc import Callable, Collection, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from mmrlhf_study.chapters.intervals import wilson
from mmrlhf_study.evaluation import paper
from mmrlhf_study.evaluation.paper import MODELS, PAPER_ROWS, PRINTED, SAFETY_COUNTS, TABLE_2, TABLE_3, Change
from mmrlhf_study.evaluation.reward_bench import PUBLISHED_COUNTS

ROUNDING = 0.0501  # half of the last printed digit, and a little for floating point

# ---------------------------------------------------------------- averages of Table 3


def safety_averages(rates: Mapping[str, float]) -> dict[str, float]:
    """Means of Table 3's lower-is-better and higher-is-better rows."""
    groups = {"unsafety": False, "safety": True}
    return {
        name: float(np.mean([rate for row, rate in rates.items() if PAPER_ROWS[row].higher == higher]))
        for name, higher in groups.items()
    }


def _averages(model: str, state: int) -> dict[str, float]:
    """`safety_averages` of one model's rows, base (0) or aligned (1)."""
    place = MODELS.index(model)
    return safety_averages({row: changes[place][state] for row, changes in TABLE_3.items()})


def recomputed_averages() -> pd.DataFrame:
    """Table 3's averages, printed and recomputed, per average, model and state (base or aligned)."""
    rows = []
    for place, model in enumerate(MODELS):
        for state, word in enumerate(Change._fields):
            for name, value in _averages(model, state).items():
                printed = PRINTED[name][place][state]
                rows.append((name, model, word, printed, value, abs(value - printed) < ROUNDING))
    return pd.DataFrame(rows, columns=["average", "model", "state", "printed", "recomputed", "agrees"])


def impossible_rates() -> list[tuple[str, str, float]]:
    """(row, model, rate) of Table 3 that match no whole number of Table 6's items."""
    impossible = []
    for row, changes in TABLE_3.items():
        n = SAFETY_COUNTS[row]
        rates = [(model, rate) for model, change in zip(MODELS, changes, strict=True) for rate in change]
        impossible += [(row, m, rate) for m, rate in rates if abs(100 * round(rate * n / 100) / n - rate) > ROUNDING]
    return impossible


def safety_with_intervals() -> pd.DataFrame:
    """Table 3 with Wilson intervals for its sample sizes."""
    rows = []
    for name, changes in TABLE_3.items():
        n = SAFETY_COUNTS[name]
        for model, change in zip(MODELS, changes, strict=True):
            base, aligned = (wilson(round(rate * n / 100), n) for rate in change)
            ends = zip(change, (base, aligned), strict=True)
            texts = [f"{rate:g} [{100 * share.low:.0f}, {100 * share.high:.0f}]" for rate, share in ends]
            apart = base.low > aligned.high or aligned.low > base.high
            rows.append((name, n, model, *texts, paper.direction(change, PAPER_ROWS[name].higher), apart))
    return pd.DataFrame(rows, columns=["row", "items", "model", "base", "aligned", "change", "intervals apart"])


def unsafety_cut(model: str, recomputed: bool = True) -> float:
    """Relative fall of the unsafety average in percent, from the rows or as printed."""
    before, after = PRINTED["unsafety"][MODELS.index(model)]
    if recomputed:
        before, after = (_averages(model, state)["unsafety"] for state in (0, 1))
    return 100 * (1 - after / before)


def _cuts(model: str) -> tuple[float, float, float]:
    """Relative fall of unsafety (%): recomputed mean, printed mean, mean of row falls."""
    changes = [rows[MODELS.index(model)] for name, rows in TABLE_3.items() if not PAPER_ROWS[name].higher]
    falls = [100 * (1 - change.aligned / change.base) for change in changes if change.base]  # base 0 is skipped
    return unsafety_cut(model), unsafety_cut(model, recomputed=False), float(np.mean(falls))


# ---------------------------------------------------------------- gains in conversation

Averaging = Callable[[np.ndarray, np.ndarray], float]  # base and aligned [n] to a gain in percent or points
AVERAGINGS: dict[str, Averaging] = {
    "ratio of means, %": lambda base, aligned: 100 * (aligned.mean() / base.mean() - 1),
    "mean of ratios, %": lambda base, aligned: 100 * float((aligned / base).mean() - 1),
    "geometric mean of ratios, %": lambda base, aligned: 100 * float(np.exp(np.log(aligned / base).mean()) - 1),
    "median of ratios, %": lambda base, aligned: 100 * float(np.median(aligned / base) - 1),
    "points": lambda base, aligned: float((aligned - base).mean()),
}


def _conversation(model: str, by_benchmark: bool) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, base and aligned numbers of the conversation rows, or of their means over each benchmark."""
    place = MODELS.index(model)
    groups: dict[str, list[Change]] = {}
    for name, changes in TABLE_2.items():
        if PAPER_ROWS[name].dimension == "conversation":
            groups.setdefault(PAPER_ROWS[name].benchmark if by_benchmark else name, []).append(changes[place])
    means = np.array([np.mean(rows, axis=0) for rows in groups.values()])
    return list(groups), means[:, 0], means[:, 1]


def conversation_gains() -> pd.DataFrame:
    """Conversation gain per model by each average, over 7 rows and over 3 benchmarks."""
    rows = []
    for over, by_benchmark in (("7 rows", False), ("3 benchmarks", True)):
        for name, averaging in AVERAGINGS.items():
            gains = [float(averaging(*_conversation(model, by_benchmark)[1:])) for model in MODELS]
            rows.append((over, name, *gains, float(np.mean(gains))))
    return pd.DataFrame(rows, columns=["over", "averaging", *MODELS, "mean of the models"])


def subsets_giving(gain: float, model: str, within: float = 0.05) -> list[tuple[str, tuple[str, ...], float]]:
    """(average, rows, gain) for all subsets of the conversation rows whose gain rounds to `gain`."""
    names, base, aligned = _conversation(model, False)
    giving = []
    for chosen in (list(c) for size in range(1, len(names) + 1) for c in combinations(range(len(names)), size)):
        for averaging, compute in AVERAGINGS.items():
            value = float(compute(base[chosen], aligned[chosen]))
            if abs(value - gain) <= within:
                giving.append((averaging, tuple(names[i] for i in chosen), value))
    return giving


# ---------------------------------------------------------------- headlines

FOLLOWS, SOME, NOT = "follows", "follows by some averagings only", "does not follow"


class PaperClaim(NamedTuple):
    """A headline of the paper, what the tables give for it, and whether they support it."""

    claim: str
    where: str
    found: str
    verdict: str  # FOLLOWS, SOME or NOT


def _each(values: Collection[float]) -> str:
    return ", ".join(f"{model} {value:.1f} %" for model, value in zip(MODELS, values, strict=True))


def _verdict(near: Collection[bool]) -> str:
    """The verdict, given which averages are near the stated number."""
    return FOLLOWS if all(near) else SOME if any(near) else NOT


def _near(gains: pd.DataFrame, column: str, stated: float, within: float) -> tuple[str, str]:
    """Range of gains (%), the matching (or nearest) averages, and the verdict."""
    gains = gains[gains.averaging.str.endswith(", %")]
    apart = (gains[column] - stated).abs()
    named = gains[apart <= max(within, apart.min())]
    by = [f"{row[column]:.1f} ({row.averaging.removesuffix(', %')} over {row.over})" for _, row in named.iterrows()]
    span = f"{gains[column].min():.1f} to {gains[column].max():.1f} % by {len(gains)} averagings"
    return f"{span}, nearest {', '.join(by)}", _verdict(apart <= within)


def claims() -> list[PaperClaim]:
    """The headline figures, recomputed."""
    largest, gains = MODELS[2], conversation_gains()
    cuts = np.array([_cuts(model) for model in MODELS])  # [models, averagings]
    ways = ("from the rows", "as printed", "by the mean of the rows' falls")
    wins = [100 * (change.aligned / change.base - 1) for change in TABLE_2["WildVision win rate"]]
    one, one_follows = _near(gains, largest, 19.5, 0.05)
    many, many_follows = _near(gains, "mean of the models", 11, 0.5)
    subsets = f"{len(subsets_giving(19.5, largest))} subsets of the 7 rows give 19.5"
    falls, mean_falls = (
        ", ".join(f"{value:.1f} % {way}" for value, way in zip(row, ways, strict=True))
        for row in (cuts[2], cuts.mean(0))
    )
    each = "; ".join(f"{_each(cuts[:, i])} {way}" for i, way in enumerate(ways))
    before, after = PRINTED["safety"][2]
    rise = f"not by the safety average, which rises by {100 * (after / before - 1):.1f} % ({before} → {after})"
    return [
        PaperClaim(*claim)
        for claim in (
            (f"{largest} gains 19.5 % in conversation", "abstract", f"{one}; {subsets}", one_follows),
            (f"{largest} is 60 % safer", "abstract", f"unsafety falls by {falls}; {rise}", _verdict(cuts[2] >= 60)),
            ("about 11 % more in conversation across models", "introduction", many, many_follows),
            (
                "57 % fewer unsafe behaviours across models", "introduction", f"mean of the models {mean_falls}",
                _verdict(abs(cuts.mean(0) - 57) < 0.5),
            ),
            ("unsafe behaviours fall by at least 50 %", "text", each, _verdict(cuts.min(0) >= 50)),
            ("WildVision's win rate rises by at least 50 %", "text", _each(wins), _verdict([min(wins) >= 50])),
        )
    ]  # fmt: skip


# ---------------------------------------------------------------- totals of Table 4


def recomputed_reward_bench() -> pd.DataFrame:
    """Table 4's overall row, recomputed and printed, and whether the two agree.

    Rounding makes the printed and the recomputed ACC uncertain by 0.005. ACC+ counts whole ids (46: ten per
    category, six of safety), so rounded rows give ACC+ exactly.
    """
    long, size = paper.table_4(), pd.DataFrame(PUBLISHED_COUNTS, index=["ids", "pairs"]).T
    rows = []
    for model, column in long[long.category != "all"].groupby("model", sort=False):
        known = size.loc[column.category]
        acc = float((column.acc.to_numpy() * known.pairs.to_numpy()).sum() / known.pairs.sum())
        ids = int((column.acc_plus.to_numpy() * known.ids.to_numpy()).round().sum())
        printed = long[(long.category == "all") & (long.model == model)].iloc[0]
        plus = ids / int(known.ids.sum())
        follows = abs(acc - printed.acc) < 0.0101, abs(plus - printed.acc_plus) < 0.0051
        rows.append((model, acc, printed.acc, follows[0], ids, plus, printed.acc_plus, follows[1]))
    names = ["model", "acc", "acc_printed", "acc_follows", "ids", "acc_plus", "acc_plus_printed", "acc_plus_follows"]
    return pd.DataFrame(rows, columns=names)
