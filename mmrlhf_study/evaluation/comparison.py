"""From answers to tables: every bench with its interval, every policy against the first one on the same items.

A bench's value is in its own unit. A gain is in points of how good the answers are, 0 to 100 on every bench, above 0
for the better. Intervals are 95 %: Wilson's and Newcombe's for right and wrong on scenes of one item, else bootstraps
over scenes. p-values are exact McNemar or permutations of the paired differences, adjusted for all tests of a table by
Holm and by Benjamini–Hochberg. A gain or loss counts as shown when Benjamini–Hochberg keeps it at 5 %; the others are
neither as far as these items can tell.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmrlhf_core.data import storage
from mmrlhf_core.models import policy
from mmrlhf_study.chapters.intervals import Estimate, bootstrap, wilson
from mmrlhf_study.evaluation import paper, paper_claims, statistics
from mmrlhf_study.evaluation.answers import PolicyAnswers
from mmrlhf_study.evaluation.paper import TEN_DIMENSIONS
from mmrlhf_study.miniworld.benches import WON, Bench

LEVEL = 0.05  # of the adjusted p-value below which a change is shown
COST = "training.json"  # beside a checkpoint: `passes`, what its training took, as in `training.rounds`


def columns(made: PolicyAnswers, bench: Bench, name: str) -> np.ndarray:
    """What one policy's answers to a bench add up from, [items, columns + 1]; the last column counts."""
    texts = zip(made.items, made.texts[name], made.texts[made.reference], strict=True)
    rows = [(*bench.measure.columns(t, item, other), 1.0) for item, t, other in texts if item.set in bench.sets]
    if not rows:
        raise ValueError(f"No item belongs to {bench.name!r}; draw the sets {', '.join(bench.sets)}.")
    return np.array(rows)


def _scenes(made: PolicyAnswers, bench: Bench) -> np.ndarray:
    """The number of each item's scene, [items]."""
    return np.unique([item.scene for item in made.items if item.set in bench.sets], return_inverse=True)[1]


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


def _gain(mine: np.ndarray, theirs: np.ndarray, scenes: np.ndarray, draws: int, seed: int) -> tuple[Estimate, float]:
    """The mean difference in how good two policies' answers are, in points, and its p-value."""
    a, b = mine[:, 0], theirs[:, 0]
    if len(np.unique(scenes)) == len(scenes) and np.isin((a, b), (0, 1)).all():
        found, p = statistics.rate_difference(a, b), statistics.mcnemar(a, b)
    else:
        found = statistics.mean_interval(a - b, scenes, draws, seed)
        p = statistics.paired_permutation(a, b, scenes, seed=seed)
    return Estimate(*(100 * end for end in found)), p


def _effect(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Cohen's d_z of how good two policies' answers are; NaN where all differences are the same."""
    a, b = mine[:, 0], theirs[:, 0]
    return statistics.paired_effect(a, b) if np.ptp(a - b) > 1e-9 else np.nan


def table(made: PolicyAnswers, benches: Sequence[Bench], draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """One row per bench and policy: its value, the gain against the first policy, and whether that is shown."""
    rows = []
    for bench in benches:
        scenes, theirs = _scenes(made, bench), columns(made, bench, made.reference)
        about = (bench.name, bench.dimension, bench.counterpart)
        measured = (bench.measure.name, bench.measure.unit, bench.measure.higher)
        for name in made.texts:
            mine = columns(made, bench, name)
            value = _value(mine, bench, scenes, draws, seed)
            itself = name == made.reference
            gain, p = (Estimate(0, 0, 0), np.nan) if itself else _gain(mine, theirs, scenes, draws, seed)
            rows.append((*about, *measured, name, len(mine), *map(float, (*value, *gain)), _effect(mine, theirs), p))
    about = ["bench", "dimension", "counterpart", "measure", "unit", "higher", "policy", "n"]
    found = pd.DataFrame(rows, columns=[*about, "value", "low", "high", "gain", "gain_low", "gain_high", "d_z", "p"])
    return _judged(found)


def _judged(found: pd.DataFrame) -> pd.DataFrame:
    """The table with adjusted p-values and verdicts; the first policy is not tested against itself."""
    tested, found = found.p.notna(), found.assign(p_holm=np.nan, p_bh=np.nan)
    if tested.any():
        found.loc[tested, "p_holm"] = statistics.holm(found.p[tested])
        found.loc[tested, "p_bh"] = statistics.benjamini_hochberg(found.p[tested])
    verdict = np.where(found.p_bh >= LEVEL, "not shown", np.where(found.gain > 0, "better", "worse"))
    return found.assign(verdict=np.where(tested, verdict, ""))


# ---------------------------------------------------------------- dimensions


def _difference(sums: np.ndarray) -> np.ndarray:
    """The mean over benches of one policy, the first half of the columns, minus that of another."""
    half = sums.shape[-1] // 2
    return _mean_of_benches(sums[..., :half]) - _mean_of_benches(sums[..., half:])


def _mean_of_benches(sums: np.ndarray) -> np.ndarray:
    """The mean over benches of how good their answers are; columns are a sum and a count of each, [..., 2 B].

    A bench none of whose scenes is in a bootstrap's draw has no value there and is left out of that draw.
    """
    good, counts = sums[..., 0::2], sums[..., 1::2]
    return 100 * (good / np.maximum(counts, 1)).sum(-1) / np.maximum((counts > 0).sum(-1), 1)


def _goodness(made: PolicyAnswers, benches: Sequence[Bench], name: str) -> np.ndarray:
    """(how good, 1) of every bench side by side for each item, 0 where it is no item of the bench; [items, 2 B]."""
    parts = []
    for bench in benches:
        part = np.zeros((len(made.items), 2))
        part[[item.set in bench.sets for item in made.items]] = columns(made, bench, name)[:, [0, -1]]
        parts.append(part)
    return np.hstack(parts)


def dimensions(made: PolicyAnswers, benches: Sequence[Bench], draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How good the answers are in each dimension and over all, 0 to 100, as the mean of its benches.

    It leaves out what is measured against another policy, so that all policies stand on one scale.
    """
    benches = [bench for bench in benches if bench.measure is not WON]
    scenes = np.unique([item.scene for item in made.items], return_inverse=True)[1]
    rows = []
    for dimension in (*TEN_DIMENSIONS, "all"):
        mine = [bench for bench in benches if dimension in (bench.dimension, "all")]
        theirs = _goodness(made, mine, made.reference)
        for name in made.texts:
            ours = _goodness(made, mine, name)
            value = bootstrap(_by_scene(ours, scenes), _mean_of_benches, draws, seed)
            both = _by_scene(np.hstack((ours, theirs)), scenes)
            gain = bootstrap(both, _difference, draws, seed)
            rows.append((dimension, name, len(mine), *map(float, (*value, *gain))))
    names = ["dimension", "policy", "benches", "value", "low", "high", "gain", "gain_low", "gain_high"]
    return pd.DataFrame(rows, columns=names)


# ---------------------------------------------------------------- tables to read


def _text(row: Any, digits: int) -> str:
    return f"{row.value:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]"


def beside_paper(found: pd.DataFrame) -> pd.DataFrame:
    """The benches as text, one column per policy, and beside them the paper's rows they stand for."""
    rows = []
    for bench, mine in found.groupby("bench", sort=False):
        first = mine.iloc[0]
        ours = {row.policy: _text(row, 0 if "%" in first.unit else 1) for row in mine.itertuples()}
        stands = first.counterpart or "not in the paper"
        better = "higher" if first.higher else "lower"
        about = {"bench": bench, "measure": f"{first.measure} ({first.unit}, {better}, {first.n} items)"}
        rows.append({**about, **ours, "stands for": stands, **paper.shown(first.counterpart)})
    return pd.DataFrame(rows).fillna("").set_index(["bench", "measure"])


def averages(found: pd.DataFrame) -> pd.DataFrame:
    """Table 3's two averages for every policy, from the rows of the safety bench."""
    rows = found[found.counterpart.isin(paper.TABLE_3)]
    rates = rows.pivot(index="policy", columns="counterpart", values="value").reindex(list(dict.fromkeys(rows.policy)))
    return pd.DataFrame({name: paper_claims.safety_averages(dict(row)) for name, row in rates.iterrows()}).T


def verdicts(found: pd.DataFrame) -> pd.DataFrame:
    """How many benches got better, got worse, and show no difference, per policy."""
    counted = found[found.verdict != ""].groupby(["policy", "verdict"], sort=False).size().unstack(fill_value=0)
    return counted.reindex(columns=["worse", "better", "not shown"], fill_value=0)


def largest(found: pd.DataFrame, better: bool, most: int = 3) -> pd.DataFrame:
    """The largest gains, or the largest losses, of every policy, at most `most` of each."""
    mine = found[(found.verdict != "") & (found.gain > 0 if better else found.gain < 0)]
    mine = mine.sort_values("gain", ascending=not better, kind="stable").groupby("policy", sort=False).head(most)
    shown = [
        "policy",
        "bench",
        "measure",
        "value",
        "gain",
        "gain_low",
        "gain_high",
        "d_z",
        "p",
        "p_bh",
        "p_holm",
        "verdict",
    ]
    return mine[shown].reset_index(drop=True)


def what_sizes_show(draws_of: Mapping[str, int]) -> pd.DataFrame:
    """For benches of some sizes: how wide a share of ½ is known, and the smallest difference found 4 times of 5."""
    rows = []
    for name, n in draws_of.items():
        share = wilson(n // 2, n)
        least = 100 * statistics.detectable_difference(n)
        rows.append((name, n, f"{100 * share.low:.0f} to {100 * share.high:.0f}", least))
    return pd.DataFrame(
        rows, columns=["bench", "items", "a share of about 50 % lies in", "smallest difference found, points"]
    )


def paper_safety() -> pd.DataFrame:
    """The paper's Table 3 as printed, with the Wilson intervals its sizes give; its answers are not known: no tests."""
    rows = []
    for one in paper.table().query("table == 'Tab. 3'").itertuples():
        n = paper.SAFETY_COUNTS[one.row]
        rates = (one.base, one.aligned)
        base, aligned = ends = [wilson(round(rate * n / 100), n) for rate in rates]
        texts = [f"{rate:g} [{100 * end.low:.0f}, {100 * end.high:.0f}]" for rate, end in zip(rates, ends, strict=True)]
        apart = base.low > aligned.high or aligned.low > base.high
        rows.append((one.row, n, one.model, *texts, one.verdict, apart))
    return pd.DataFrame(rows, columns=["row", "items", "model", "base", "aligned", "change", "intervals apart"])


# ---------------------------------------------------------------- cost


def training_of(checkpoint: str) -> float:
    """Passes of tokens through a text model that a checkpoint's training took; NaN where they were not written."""
    file = policy.locate(checkpoint) / COST
    return float(storage.read_json(file)["passes"]) if file.is_file() else np.nan


def costs(
    made: PolicyAnswers, checkpoints: Mapping[str, str], found: pd.DataFrame, draws: int, seed: int
) -> pd.DataFrame:
    """What each policy costs and gains: tokens per answer with interval, training, change over all benches.

    Clock times are kept out: they are in `milliseconds`.
    """
    overall = found[found.dimension == "all"].set_index("policy")
    rows = []
    for name, tokens in made.tokens.items():
        mean = Estimate(*statistics.mean_interval(tokens, [item.scene for item in made.items], draws, seed))
        gain = overall.loc[name, ["gain", "gain_low", "gain_high"]].tolist()
        rows.append((name, *mean, training_of(checkpoints[name]), *gain))
    names = ["policy", "tokens", "tokens_low", "tokens_high", "training_passes"]
    return pd.DataFrame(rows, columns=[*names, "gain", "gain_low", "gain_high"])


def milliseconds(made: PolicyAnswers) -> dict[str, float]:
    """Wall time per answer on this machine, in batches; it is different every time."""
    return {name: 1000 * seconds / len(made.items) for name, seconds in made.seconds.items()}
