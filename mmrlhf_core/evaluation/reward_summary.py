"""What the reward-model chapter reports: metrics, headline numbers, sentences that say only what the numbers show."""

from typing import Any

import pandas as pd

from mmrlhf_core.evaluation.reward_bench import ALL
from mmrlhf_core.intervals import Estimate
from mmrlhf_core.reporting import Headline

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
    for row in made[(made.category == ALL) & made.arm.isin(PAPER)].itertuples():
        acc, plus = (row.acc, row.acc_low, row.acc_high), (row.acc_plus, row.acc_plus_low, row.acc_plus_high)
        numbers.append((f"reward model, {row.arm}: ACC", *acc, PAPER[row.arm]))
        numbers.append((f"reward model, {row.arm}: ACC+", *plus, PAPER[row.arm]))
    numbers.append(("reward model: expected calibration error", *map(float, error), ""))
    return [Headline(label, v, min(low, v), max(high, v), WORLD, paper) for label, v, low, high, paper in numbers]


def _shown(value: float, low: float, high: float) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _beside_chance(row: Any) -> str:
    side = "above chance" if row.acc_low > 0.5 else "below chance" if row.acc_high < 0.5 else "not told from chance"
    return f"{row.arm}: ACC {_shown(row.acc, row.acc_low, row.acc_high)} ({side}), ACC+ {row.acc_plus:.2f}."


def sentences(
    made: pd.DataFrame, compared: pd.DataFrame, error: Estimate, quality: pd.DataFrame, controls: pd.DataFrame,
    costs: pd.DataFrame,
) -> list[str]:  # fmt: skip
    """One sentence per finding, each with its numbers."""
    said = [_beside_chance(row) for row in made[(made.category == ALL) & (made.seeds > 0)].itertuples()]
    for row in compared.itertuples():
        verdict = "differ" if row.p_holm < 0.05 else "are not told apart"
        numbers = f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}], p after Holm {row.p_holm:.3f}"
        said.append(f"{row.arm} and {row.against} {verdict}: {numbers}.")
    said.append(f"Expected calibration error of the full model: {_shown(*map(float, error))}.")
    for row in quality.itertuples():
        said.append(f"{row.measure}, {row.writer}: {_shown(row.value, row.low, row.high)} of {row.of}.")
    said += [f"Control, {row.arm}: ACC {_shown(row.acc, row.acc_low, row.acc_high)}." for row in controls.itertuples()]
    for row in costs.to_dict("records"):
        said.append(
            f"{row['way']}: {row['tokens written']:.0f} tokens written and {row['GFLOP']:.2f}·10⁹ operations per "
            f"response, ACC {row['acc']:.2f}."
        )
    return said
