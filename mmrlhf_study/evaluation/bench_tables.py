"""Tables from policies' answers: benches with intervals, policies against the base (the first policy).

The value of a bench is in its own unit. A gain is in points of answer quality (0 to 100); positive is better. Intervals
(95 %): Wilson and Newcombe for binary answers with one item per scene, else bootstrap over scenes. p-values are exact
McNemar tests or permutations of the paired differences. A policy is better or worse if its Benjamini-Hochberg p over
the table is below 5 %; Holm's p is given too.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mmrlhf_core.data import storage
from mmrlhf_core.models import policy
from mmrlhf_study.chapters.intervals import Estimate, bootstrap, wilson
from mmrlhf_study.chapters.reporting import ENDS, shown
from mmrlhf_study.evaluation import compare, paper, paper_claims, statistics
from mmrlhf_study.evaluation.paper import TEN_DIMENSIONS
from mmrlhf_study.evaluation.policy_answers import PolicyAnswers
from mmrlhf_study.miniworld.benches import WON, Bench

COST = "training.json"  # file of a checkpoint with the `passes` of its training
GAIN = ("gain", "gain_low", "gain_high")
ABOUT = ["bench", "dimension", "counterpart", "measure", "unit", "higher", "policy", "n"]


def columns(given: PolicyAnswers, bench: Bench, name: str) -> np.ndarray:
    """Per-item summands of one policy's bench value, [items, columns + 1]; last column: 1."""
    texts = zip(given.items, given.texts[name], given.texts[given.reference], strict=True)
    rows = [(*bench.measure.columns(t, item, other), 1.0) for item, t, other in texts if item.set in bench.sets]
    if not rows:
        raise ValueError(f"No item belongs to {bench.name!r}; include the sets {', '.join(bench.sets)}.")
    return np.array(rows)


def _by_scene(rows: np.ndarray, scenes: np.ndarray) -> np.ndarray:
    """Sums of the columns within each scene, [scenes, columns]."""
    sums = np.zeros((scenes.max() + 1, rows.shape[1]))
    np.add.at(sums, scenes, rows)
    return sums


def _value(rows: np.ndarray, bench: Bench, scenes: np.ndarray, draws: int, seed: int) -> Estimate:
    """A bench's number in its own unit."""
    if bench.measure.share is not None and len(np.unique(scenes)) == len(scenes):
        return Estimate(*(100 * end for end in wilson(int(rows[:, bench.measure.share].sum()), len(rows))))
    return bootstrap(_by_scene(rows, scenes), bench.measure.statistic, draws, seed)


def _gain(a: np.ndarray, b: np.ndarray, scenes: np.ndarray, draws: int, seed: int) -> tuple[Estimate, float, float]:
    """Mean quality difference in points, with d_z (NaN if all differences are equal) and p."""
    if len(np.unique(scenes)) == len(scenes) and np.isin((a, b), (0, 1)).all():
        gain, p = statistics.rate_difference(a, b), statistics.mcnemar(a, b)
    else:
        gain = statistics.mean_interval(a - b, scenes, draws, seed)
        p = statistics.paired_permutation(a, b, scenes, seed=seed)
    d_z = statistics.paired_effect(a, b) if np.ptp(a - b) > 1e-9 else np.nan
    return Estimate(*(100 * end for end in gain)), d_z, p


def table(given: PolicyAnswers, benches: Sequence[Bench], draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """One row per bench and policy: its value, the gain over the base, and the verdict."""
    rows = []
    for bench in benches:
        scenes = np.unique([item.scene for item in given.items if item.set in bench.sets], return_inverse=True)[1]
        theirs = columns(given, bench, given.reference)
        measured = (bench.measure.name, bench.measure.unit, bench.measure.higher)
        for name in given.texts:
            ours = columns(given, bench, name)
            value = _value(ours, bench, scenes, draws, seed)
            gain, d_z, p = Estimate(0, 0, 0), np.nan, np.nan
            if name != given.reference:
                gain, d_z, p = _gain(ours[:, 0], theirs[:, 0], scenes, draws, seed)
            about = (bench.name, bench.dimension, bench.counterpart, *measured, name, len(ours))
            rows.append((*about, *map(float, (*value, *gain)), d_z, p))
    rows = pd.DataFrame(rows, columns=[*ABOUT, *ENDS, *GAIN, "d_z", "p"])
    return compare.judged(rows, "gain", by="p_bh")


# ---------------------------------------------------------------- dimensions


def _mean_of_benches(sums: np.ndarray) -> np.ndarray:
    """Mean quality over benches; columns: sum and count per bench, [..., 2 B].

    Benches without scenes in a bootstrap sample are skipped in that sample.
    """
    good, counts = sums[..., 0::2], sums[..., 1::2]
    return 100 * (good / np.maximum(counts, 1)).sum(-1) / np.maximum((counts > 0).sum(-1), 1)


def _difference(sums: np.ndarray) -> np.ndarray:
    """Mean over benches of one policy (first half of the columns) minus another's."""
    half = sums.shape[-1] // 2
    return _mean_of_benches(sums[..., :half]) - _mean_of_benches(sums[..., half:])


def _goodness(given: PolicyAnswers, benches: Sequence[Bench], name: str) -> np.ndarray:
    """(quality, 1) per item and bench, 0 for other benches' items; [items, 2 B]."""
    parts = np.zeros((len(given.items), 2 * len(benches)))
    for place, bench in enumerate(benches):
        inside = [item.set in bench.sets for item in given.items]
        parts[inside, 2 * place : 2 * place + 2] = columns(given, bench, name)[:, [0, -1]]
    return parts


def dimensions(given: PolicyAnswers, benches: Sequence[Bench], draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Answer quality per dimension and overall, 0 to 100: the mean of the benches.

    Benches measured against another policy are left out.
    """
    benches = [bench for bench in benches if bench.measure is not WON]
    scenes = np.unique([item.scene for item in given.items], return_inverse=True)[1]
    rows = []
    for dimension in (*TEN_DIMENSIONS, "all"):
        inside = [bench for bench in benches if dimension in (bench.dimension, "all")]
        theirs = _goodness(given, inside, given.reference)
        for name in given.texts:
            ours = _goodness(given, inside, name)
            value = bootstrap(_by_scene(ours, scenes), _mean_of_benches, draws, seed)
            gain = bootstrap(_by_scene(np.hstack((ours, theirs)), scenes), _difference, draws, seed)
            rows.append((dimension, name, len(inside), *map(float, (*value, *gain))))
    return pd.DataFrame(rows, columns=["dimension", "policy", "benches", *ENDS, *GAIN])


# ---------------------------------------------------------------- tables to read


def beside_paper(table: pd.DataFrame) -> pd.DataFrame:
    """The benches as text, one column per policy, beside the corresponding rows of the paper."""
    rows = []
    for bench, mine in table.groupby("bench", sort=False):
        first = mine.iloc[0]
        digits = 0 if "%" in first.unit else 1
        ours = {row.policy: shown(row.value, row.low, row.high, digits) for row in mine.itertuples()}
        better = "higher" if first.higher else "lower"
        about = {"bench": bench, "measure": f"{first.measure} ({first.unit}, {better}, {first.n} items)"}
        stands = {"stands for": first.counterpart or "not in the paper"}
        rows.append(about | ours | stands | paper.shown(first.counterpart))
    return pd.DataFrame(rows).fillna("").set_index(["bench", "measure"])


def averages(table: pd.DataFrame) -> pd.DataFrame:
    """Table 3's two averages for every policy, from the rows of the safety bench."""
    rows = table[table.counterpart.isin(paper.TABLE_3)]
    rates = rows.pivot(index="policy", columns="counterpart", values="value").reindex(list(dict.fromkeys(rows.policy)))
    return pd.DataFrame({name: paper_claims.safety_averages(dict(row)) for name, row in rates.iterrows()}).T


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Number of benches and controls that are worse, better, or not distinguished from the base."""
    tested = table[table.verdict != ""]
    counted = tested.groupby(["policy", "verdict"], sort=False).size().unstack(fill_value=0)
    return counted.reindex(columns=[compare.WORSE, compare.BETTER, compare.OPEN], fill_value=0)


def largest(table: pd.DataFrame, better: bool, most: int = 3) -> pd.DataFrame:
    """Up to `most` largest gains (or losses) per policy."""
    changed = table[(table.verdict != "") & (table.gain > 0 if better else table.gain < 0)]
    changed = changed.sort_values("gain", ascending=not better, kind="stable").groupby("policy", sort=False).head(most)
    shown = ["policy", "bench", "measure", "value", *GAIN, "d_z", "p", "p_bh", "p_holm", "verdict"]
    return changed[shown].reset_index(drop=True)


# ---------------------------------------------------------------- cost


def training_of(checkpoint: str) -> float:
    """Token passes of a checkpoint's training; NaN if not recorded."""
    file = policy.locate(checkpoint) / COST
    return float(storage.read_json(file)["passes"]) if file.is_file() else np.nan


def costs(
    given: PolicyAnswers, checkpoints: Mapping[str, str], dimensions: pd.DataFrame, draws: int, seed: int
) -> pd.DataFrame:
    """Cost and gain per policy: tokens per answer, training passes, overall gain."""
    overall = dimensions[dimensions.dimension == "all"].set_index("policy")
    scenes = [item.scene for item in given.items]
    rows = []
    for name, tokens in given.tokens.items():
        mean = statistics.mean_interval(tokens, scenes, draws, seed)
        rows.append((name, *mean, training_of(checkpoints[name]), *overall.loc[name, list(GAIN)]))
    return pd.DataFrame(rows, columns=["policy", "tokens", "tokens_low", "tokens_high", "training_passes", *GAIN])
