"""What the reward-model chapter reports: metrics, headline numbers, sentences that say only what the numbers show."""

from typing import Any

import pandas as pd

from mmrlhf_study.chapters.intervals import Estimate
from mmrlhf_study.chapters.reporting import Headline
from mmrlhf_study.evaluation.reward_bench import ALL_CATEGORIES

WORLD = "MiniWorld"
PAPER = {  # what the front page quotes beside our arms
    "no critique": "ACC 0.75, ACC+ 0.50 (Tab. 4)",
    "raw reasons": "ACC 0.79, ACC+ 0.57 (Tab. 4)",
    "expanded reasons": "ACC 0.85, ACC+ 0.67 (Tab. 4)",
    "given critiques": "ACC 0.93, ACC+ 0.87 (Tab. 4)",
}


def keyed(made: pd.DataFrame, *names: str) -> dict[str, Any]:
    """A table as nested plain numbers under the values of some columns; NaN cells are left out."""
    nested: dict[str, Any] = {}
    for row in made.to_dict("records"):
        place = nested
        for name in names:
            place = place.setdefault(str(row[name]), {})
        rest = {key: value for key, value in row.items() if key not in names}
        place.update({key: value for key, value in rest.items() if not pd.isna(value)})
    return nested


def headlines(made: pd.DataFrame, error: Estimate) -> list[Headline]:
    """ACC and ACC+ of the arms the paper has too, and the calibration error of the full model."""
    numbers = []
    for row in made[(made.category == ALL_CATEGORIES) & made.arm.isin(PAPER)].itertuples():
        acc, plus = (row.acc, row.acc_low, row.acc_high), (row.acc_plus, row.acc_plus_low, row.acc_plus_high)
        numbers.append((f"reward model, {row.arm}: ACC", *acc, PAPER[row.arm]))
        numbers.append((f"reward model, {row.arm}: ACC+", *plus, PAPER[row.arm]))
    numbers.append(("reward model: expected calibration error", *map(float, error), ""))
    return [Headline(label, v, min(low, v), max(high, v), WORLD, paper) for label, v, low, high, paper in numbers]


def metrics(
    overview: pd.DataFrame, compared: pd.DataFrame, controls: pd.DataFrame, fallen: pd.DataFrame, quality: pd.DataFrame,
    costs: pd.DataFrame, pairs: pd.Series,
) -> dict[str, Any]:  # fmt: skip
    """All tables as nested plain numbers; without clock times."""
    return {
        "arms": keyed(overview[overview.category == ALL_CATEGORIES], "arm"),
        "comparisons": keyed(compared, "arm", "against"),
        "controls": keyed(controls, "arm"),
        "other_pictures": keyed(fallen, "arm"),
        "critiques": keyed(quality, "writer", "measure"),
        "costs": keyed(costs.drop(columns="ms"), "way"),
        "pairs": {str(name): int(number) for name, number in pairs.items()},
    }


# ---------------------------------------------------------------- sentences


def _shown(value: float, low: float, high: float) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _of_arm(row: Any) -> str:
    """ACC of one arm, how it stands to a coin, and how many ties count as wrong in it."""
    side = "above chance" if row.acc_low > 0.5 else "below chance" if row.acc_high < 0.5 else "not told from chance"
    tied = f", {row.ties / row.pairs:.0%} of the pairs tied" if row.ties else ""
    return f"{row.arm}: ACC {_shown(row.acc, row.acc_low, row.acc_high)} ({side}{tied}), ACC+ {row.acc_plus:.2f}."


def _of_difference(row: Any) -> str:
    verdict = "differ" if row.p_holm < 0.05 else "are not told apart"
    numbers = f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}], p {row.p_holm:.3f}"
    return f"{row.arm} and {row.against} {verdict}: {numbers}."


def _of_costs(costs: pd.DataFrame) -> str:
    """The ways between the cheapest and the dearest."""
    rows = costs.sort_values("GFLOP")
    first, last = rows.iloc[0], rows.iloc[-1]
    return (
        f"{last['way']} takes {last['GFLOP'] / first['GFLOP']:.1f} times the operations of {first['way']} "
        f"({last['tokens written']:.0f} tokens written against {first['tokens written']:.0f}), for an ACC of "
        f"{last['acc']:.2f} against {first['acc']:.2f}."
    )


def sentences(
    overview: pd.DataFrame, compared: pd.DataFrame, error: Estimate, controls: pd.DataFrame, fallen: pd.DataFrame,
    quality: pd.DataFrame, costs: pd.DataFrame,
) -> list[str]:  # fmt: skip
    """One sentence per finding, each with its numbers; p-values are after Holm's correction."""
    said = [_of_arm(row) for row in overview[(overview.category == ALL_CATEGORIES) & (overview.seeds > 0)].itertuples()]
    arms = compared[compared.arm.isin(PAPER) & compared.against.isin(PAPER)]
    said += [_of_difference(row) for row in arms.itertuples()]
    said.append(f"Expected calibration error of the full model: {_shown(*map(float, error))}.")
    for measure in dict.fromkeys(quality.measure):
        rows = quality[quality.measure == measure].itertuples()
        said.append(f"{measure}: " + "; ".join(f"{r.writer} {_shown(r.value, r.low, r.high)}" for r in rows) + ".")
    said += [f"Control: {_of_arm(row)}" for row in controls.itertuples()]
    said += [f"Control: {_of_difference(row)}" for row in fallen.itertuples()]
    return [*said, _of_costs(costs)]
