"""The numbers of Tables 2, 3 and 6 of arXiv 2502.10391 as data, and what can be recomputed from them.

Everything here is the paper's: base → aligned, three models. Nothing of it was measured by this compendium.
"""

from collections.abc import Callable, Collection, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from mmrlhf_study.tools.benchmarks import PAPER_ROWS

SOURCE = "arXiv 2502.10391"
MODELS = ("InternVL2-1B", "LLaVA-OV-0.5B", "LLaVA-OV-7B")
SAFETY = "MM-RLHF-SafetyBench"

_TABLE_2 = """
LLaVA-Wild all | 73.80 75.80 | 74.60 79.20 | 90.70 97.90
LLaVA-Wild complex | 83.60 82.60 | 78.60 80.50 | 95.90 100.60
LLaVA-Wild conv | 52.10 58.30 | 69.60 72.30 | 81.20 88.10
LLaVA-Wild detail | 85.40 89.40 | 82.30 84.50 | 91.80 104.00
LLaVA-Wilder small | 55.80 57.30 | 52.30 53.40 | 65.70 71.10
WildVision Elo rate | 41.30 46.20 | 40.70 44.70 | 50.40 58.90
WildVision win rate | 41.80 49.00 | 12.60 14.60 | 15.20 37.20
MME | 1775 1815 | 1488 1510 | 1997 2025
MMBench | 54.70 67.89 | 45.80 46.40 | 80.49 80.67
MMStar | 45.81 49.00 | 38.64 39.58 | 61.80 62.58
SeedBench2-Plus | 60.12 60.12 | 53.85 54.27 | 64.87 65.35
VQAv2 | 72.25 71.84 | 74.60 74.68 | 79.98 80.28
AI2D | 72.38 72.80 | 56.93 56.87 | 81.41 81.22
ChartQA | 65.60 66.80 | 51.60 52.60 | 74.00 74.50
DocVQA | 81.90 82.51 | 66.17 67.07 | 84.34 86.11
InfoVQA | 51.73 52.26 | 40.17 40.49 | 67.07 67.40
OCRBench | 75.20 77.11 | 57.70 60.20 | 62.30 69.30
TextVQA | 69.85 72.12 | 65.87 66.60 | 75.99 76.05
WebSRC | 68.20 68.80 | 65.90 68.30 | 88.70 89.20
MME-RealWorld en | 33.61 36.58 | 34.55 34.39 | 48.36 46.95
MME-RealWorld cn | 44.14 43.11 | 32.09 31.11 | 54.01 53.39
RealWorldQA | 51.50 54.90 | 55.42 55.16 | 66.41 65.75
MathVista cot | 49.60 49.90 | 32.30 32.70 | 59.10 61.60
MathVista format | 53.20 53.40 | 36.00 36.30 | 62.50 62.20
MathVista solution | 49.60 49.30 | 30.50 32.50 | 58.80 61.10
MathVerse | 12.31 12.79 | 17.51 17.64 | 16.37 18.53
POPE adversarial | 86.82 86.87 | 86.04 86.56 | 87.08 87.68
POPE popular | 88.30 88.57 | 87.37 88.26 | 88.32 89.02
POPE random | 89.87 90.45 | 88.30 89.30 | 89.60 90.62
MMHal rate | 55.21 55.38 | 48.96 46.25 | 38.54 38.54
MMHal score | 3.02 3.10 | 3.33 3.42 | 3.22 4.08
Obj-Hal CHAIR-i | 8.30 7.81 | 9.70 9.12 | 8.52 7.69
Obj-Hal CHAIR-s | 38.67 37.00 | 42.67 42.33 | 44.00 41.67
Video-MME w/ caption | 42.74 42.76 | 48.22 48.42 | 61.61 61.81
Video-MME w/o caption | 45.66 45.71 | 43.92 44.00 | 58.29 58.33
VideoChatGPT | 2.26 2.59 | 2.56 2.66 | 2.87 3.22
VideoDC | 2.91 3.07 | 2.88 2.96 | 3.32 3.41
LLaVA-Interleave | 34.78 35.72 | 42.29 43.49 | 60.85 61.12
MMMU-Pro vision | 1.11 1.52 | 12.78 13.89 | 14.51 15.84
"""
_TABLE_3 = """
Adv target | 56.0 50.0 | 54.0 35.0 | 37.0 40.0
Adv untarget | 52.5 56.0 | 66.0 71.0 | 66.5 70.0
Cross-modal ASR | 0 0 | 72.2 38.9 | 16.7 0
Cross-modal RtA | 100 100 | 22.2 50.0 | 88.9 100
Multi-modal ASR | 43.2 43.2 | 42.2 27.7 | 41.2 8.3
Multi-modal RtA | 18.0 17.4 | 12.4 23.2 | 62.0 88.3
Typographic ASR | 10.5 7.4 | 26.3 35.2 | 5.8 0
Typographic RtA | 73.7 74.6 | 17.0 27.5 | 79.5 95.8
Risk identification | 49.6 58.6 | 65.8 67.4 | 82.0 76.0
NSFW text | 89.0 27.1 | 94.4 64.2 | 60.4 10.6
NSFW image | 81.2 64.7 | 97.5 81.6 | 80.1 24.2
"""
PRINTED = {  # the averages as Table 3 prints them, base and aligned of each model
    "unsafety": ((46.6, 38.9), (65.4, 47.1), (40.2, 13.9)),
    "safety": ((31.9, 41.3), (36.7, 47.8), (75.8, 85.4)),
}
SAFETY_COUNTS = {  # items of each row of Table 3 (Tab. 6)
    "Adv target": 100, "Adv untarget": 200, "Cross-modal ASR": 18, "Cross-modal RtA": 18, "Multi-modal ASR": 100,
    "Multi-modal RtA": 100, "Typographic ASR": 600, "Typographic RtA": 600, "Risk identification": 500,
    "NSFW text": 558, "NSFW image": 442,
}  # fmt: skip


class Change(NamedTuple):
    """One row for one model."""

    base: float
    aligned: float


def _read(text: str) -> dict[str, tuple[Change, ...]]:
    """`row | base aligned | base aligned | base aligned` by row."""
    found = {}
    for line in text.strip().splitlines():
        name, *cells = line.split("|")
        found[name.strip()] = tuple(Change(*map(float, cell.split())) for cell in cells)
    return found


TABLE_2, TABLE_3 = _read(_TABLE_2), _read(_TABLE_3)
TABLES = {**TABLE_2, **TABLE_3}


def shown(row: str) -> dict[str, str]:
    """`base → aligned` of every model, for standing beside other numbers; empty for a row the paper lacks."""
    changes = zip(MODELS, TABLES.get(row, ()), strict=row in TABLES)
    return {f"paper: {model}": f"{one.base:g} → {one.aligned:g}" for model, one in changes}


def table() -> pd.DataFrame:
    """Both tables long: row, dimension, table, model, base, aligned, change, and better, worse or same."""
    rows = []
    for name, changes in TABLES.items():
        row = PAPER_ROWS[name]
        for model, one in zip(MODELS, changes, strict=True):
            change = one.aligned - one.base
            verdict = "better" if (change > 0) == row.higher else "worse"
            where = "Tab. 3" if name in TABLE_3 else "Tab. 2"
            rows.append(
                (name, row.dimension, where, model, one.base, one.aligned, change, "same" if not change else verdict)
            )
    names = ["row", "dimension", "table", "model", "base", "aligned", "change", "verdict"]
    return pd.DataFrame(rows, columns=names)


# ---------------------------------------------------------------- averages of Table 3


def safety_averages(rates: Mapping[str, float]) -> dict[str, float]:
    """Mean of the rows of Table 3 of which less is better, and of those of which more is."""
    groups = {"unsafety": False, "safety": True}
    return {
        name: float(np.mean([rate for row, rate in rates.items() if PAPER_ROWS[row].higher == higher]))
        for name, higher in groups.items()
    }


def recomputed_averages() -> pd.DataFrame:
    """Table 3's averages as printed and as its rows give them, one row per average, model and state."""
    rows = []
    for place, model in enumerate(MODELS):
        for state in (0, 1):
            made = safety_averages({row: changes[place][state] for row, changes in TABLE_3.items()})
            for name, value in made.items():
                printed = PRINTED[name][place][state]
                rows.append((name, model, Change._fields[state], printed, value, abs(value - printed) < 0.0501))
    return pd.DataFrame(rows, columns=["average", "model", "state", "printed", "recomputed", "agrees"])


def impossible_rates() -> list[tuple[str, str, float]]:
    """(row, model, rate) of Table 3 that no whole number of the row's items in Table 6 gives, rounded as printed."""
    found = []
    for row, changes in TABLE_3.items():
        for model, change in zip(MODELS, changes, strict=True):
            nearest = ((rate, 100 * round(rate * SAFETY_COUNTS[row] / 100) / SAFETY_COUNTS[row]) for rate in change)
            found += [(row, model, rate) for rate, near in nearest if abs(near - rate) > 0.0501]
    return found


def unsafety_cut(model: str, recomputed: bool = True) -> float:
    """Relative fall of the unsafety average in percent, from the rows or as printed."""
    place = MODELS.index(model)
    made = [safety_averages({row: c[place][state] for row, c in TABLE_3.items()})["unsafety"] for state in (0, 1)]
    before, after = made if recomputed else PRINTED["unsafety"][place]
    return 100 * (1 - after / before)


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
    """The gain in conversation of every model by every averaging, over 7 rows and over 3 benchmarks."""
    rows = []
    for over, by_benchmark in (("7 rows", False), ("3 benchmarks", True)):
        for name, averaging in AVERAGINGS.items():
            gains = [float(averaging(*_conversation(model, by_benchmark)[1:])) for model in MODELS]
            rows.append((over, name, *gains, float(np.mean(gains))))
    return pd.DataFrame(rows, columns=["over", "averaging", *MODELS, "mean of the models"])


def subsets_giving(gain: float, model: str, within: float = 0.05) -> list[tuple[str, tuple[str, ...], float]]:
    """(averaging, rows, gain) of every subset of the conversation rows whose gain rounds to `gain`."""
    names, base, aligned = _conversation(model, False)
    found = []
    for size in range(1, len(names) + 1):
        for chosen in map(list, combinations(range(len(names)), size)):
            for averaging, compute in AVERAGINGS.items():
                value = float(compute(base[chosen], aligned[chosen]))
                if abs(value - gain) <= within:
                    found.append((averaging, tuple(names[i] for i in chosen), value))
    return found


FOLLOWS, SOME, NOT = "follows", "follows by some averagings only", "does not follow"


class PaperClaim(NamedTuple):
    """A headline of the paper, what the tables give for it, and whether they bear it out."""

    claim: str
    where: str
    found: str
    verdict: str  # FOLLOWS, SOME or NOT


def _each(values: Mapping[str, float]) -> str:
    return ", ".join(f"{model} {value:.1f} %" for model, value in values.items())


def _verdict(near: Collection[bool]) -> str:
    """The verdict when each of several averagings is near enough to a stated number, or is not."""
    return FOLLOWS if all(near) else SOME if any(near) else NOT


def _near(gains: pd.DataFrame, column: str, stated: float, within: float) -> tuple[str, str]:
    """Range of a column of gains in percent, the averagings near enough or else the nearest, and the verdict."""
    gains = gains[gains.averaging.str.endswith(", %")]
    apart = (gains[column] - stated).abs()
    named = gains[apart <= max(within, apart.min())]
    by = [f"{row[column]:.1f} ({row.averaging.removesuffix(', %')} over {row.over})" for _, row in named.iterrows()]
    span = f"{gains[column].min():.1f} to {gains[column].max():.1f} % by {len(gains)} averagings"
    return f"{span}, nearest {', '.join(by)}", _verdict(apart <= within)


def _cuts(model: str) -> tuple[float, float, float]:
    """Relative fall of unsafety in percent: of the mean of the rows, of the printed mean, mean of the rows' falls."""
    changes = [rows[MODELS.index(model)] for name, rows in TABLE_3.items() if not PAPER_ROWS[name].higher]
    falls = [100 * (1 - one.aligned / one.base) for one in changes if one.base]  # from 0 nothing falls
    return unsafety_cut(model), unsafety_cut(model, recomputed=False), float(np.mean(falls))


def claims() -> list[PaperClaim]:
    """The headline figures, recomputed."""
    largest, gains = MODELS[2], conversation_gains()
    cuts = np.array([_cuts(model) for model in MODELS])  # [models, averagings]
    ways = ("from the rows", "as printed", "by the mean of the rows' falls")
    wins = {m: 100 * (c.aligned / c.base - 1) for m, c in zip(MODELS, TABLE_2["WildVision win rate"], strict=True)}
    one, one_follows = _near(gains, largest, 19.5, 0.05)
    many, many_follows = _near(gains, "mean of the models", 11, 0.5)
    subsets = f"{len(subsets_giving(19.5, largest))} subsets of the 7 rows give 19.5"
    falls = [
        ", ".join(f"{value:.1f} % {way}" for value, way in zip(row, ways, strict=True))
        for row in (cuts[2], cuts.mean(0))
    ]
    risen = min(wins.values()) >= 50
    each = "; ".join(f"{_each(dict(zip(MODELS, cuts[:, i], strict=True)))} {way}" for i, way in enumerate(ways))
    before, after = PRINTED["safety"][2]
    rise = f"not by the safety average, which rises by {100 * (after / before - 1):.1f} % ({before} → {after})"
    return [
        PaperClaim(f"{largest} gains 19.5 % in conversation", "abstract", f"{one}; {subsets}", one_follows),
        PaperClaim(
            f"{largest} is 60 % safer", "abstract", f"unsafety falls by {falls[0]}; {rise}", _verdict(cuts[2] >= 60)
        ),
        PaperClaim("about 11 % more in conversation across models", "introduction", many, many_follows),
        PaperClaim(
            "57 % fewer unsafe behaviours across models", "introduction", f"mean of the models {falls[1]}",
            _verdict(abs(cuts.mean(0) - 57) < 0.5),
        ),
        PaperClaim("unsafe behaviours fall by at least 50 %", "text", each, _verdict(cuts.min(0) >= 50)),
        PaperClaim("WildVision's win rate rises by at least 50 %", "text", _each(wins), _verdict([risen])),
    ]  # fmt: skip
