"""What a chapter leaves for readers: metrics, headline numbers beside the paper's, captioned figures, plot series."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from mmrlhf_core.data import storage

ENDS = ("value", "low", "high")  # columns of an estimate
DIGITS = 4  # significant digits of committed numbers; later ones depend on the processor and say nothing here
ROUNDED_TO_ZERO = 1e-12  # what is smaller is the rounding error of a difference


@dataclass(frozen=True)
class Headline:
    """One number for the report's front page.

    `low` and `high` bound the 95 % interval, `world` says what it was measured on (such as "MiniWorld"), and
    `paper` quotes the paper's own number with its table or figure, or is empty. The two are never merged.
    """

    label: str
    value: float
    low: float
    high: float
    world: str
    paper: str = ""


def rounded(value: float) -> float:
    """A number as it is committed: four significant digits, whole numbers in full, rounding errors as 0."""
    if not math.isfinite(value) or value == 0:
        return value
    if abs(value) < ROUNDED_TO_ZERO:
        return 0.0
    return round(value, max(DIGITS - 1 - math.floor(math.log10(abs(value))), 0))


def _rounded(content: Any) -> Any:
    """`rounded` of every float in nested mappings and lists."""
    if isinstance(content, Mapping):
        return {name: _rounded(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value) for value in content]
    return rounded(float(content)) if isinstance(content, float) else content


def write_metrics(stage: str, metrics: Mapping[str, Any], headlines: Iterable[Headline]) -> None:
    """Write `reports/metrics/<stage>.json`: nested plain numbers, rounded, and the headline rows; no clock times."""
    rows = {row.label: {k: v for k, v in asdict(row).items() if k != "label"} for row in headlines}
    storage.write_json(f"reports/metrics/{stage}.json", _rounded({"headline": rows, **metrics}))


def write_figure(stage: str, name: str, figure: Figure, caption: str) -> None:
    """Write `reports/figures/<stage>/<name>.png` with its caption inside the file."""
    target = storage.path(f"reports/figures/{stage}/{name}.png")
    with storage.writing(target) as temporary:
        metadata = {"Description": caption, "Software": None}
        figure.savefig(temporary, format="png", dpi=120, bbox_inches="tight", metadata=metadata)


def write_series(stage: str, name: str, rows: pd.DataFrame) -> None:
    """Write `reports/plots/<stage>/<name>.csv`, the numbers behind a figure, rounded."""
    kept = rows.assign(**{name: rows[name].map(rounded) for name in rows.select_dtypes("float")})
    with storage.writing(f"reports/plots/{stage}/{name}.csv") as temporary:
        kept.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")


def shown(value: float, low: float, high: float, digits: int = 2, sign: str = "") -> str:
    """`0.74 [0.70, 0.77]`; with `sign` "+" all three carry one."""
    plain = (round(number, digits) + 0.0 for number in (value, low, high))  # no -0.00
    return "{:{s}.{d}f} [{:{s}.{d}f}, {:{s}.{d}f}]".format(*plain, s=sign, d=digits)


def in_words(rows: pd.DataFrame, digits: int = 2, sign: str = "", columns: Sequence[str] = ENDS) -> pd.Series:
    """`shown` of every row of a table."""
    return rows[list(columns)].apply(lambda row: shown(*row, digits=digits, sign=sign), axis=1)


def nested(rows: pd.DataFrame, *names: str) -> dict[str, Any]:
    """A table as nested plain numbers: one level for each of these columns, then the others; NaN cells are left out."""
    found: dict[str, Any] = {}
    for row in rows.to_dict("records"):
        place = found
        for name in names:
            place = place.setdefault(str(row[name]), {})
        place |= {key: value for key, value in row.items() if key not in names and not pd.isna(value)}
    return found
