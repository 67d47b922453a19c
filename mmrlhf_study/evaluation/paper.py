"""The paper's tables and figures (arXiv 2502.10391) as typed data, read from `paper.yaml`.

All numbers here are the paper's; none was measured by us. What follows from the tables is computed in
`paper_claims`. A row of Table 2 or 3 also says where lmms-eval and VLMEvalKit write its number.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

HARNESSES = ("lmms-eval", "VLMEvalKit")
FORK_MARK = "*"


class Change(NamedTuple):
    """The score of one model before and after alignment."""

    base: float
    aligned: float


class TablePart(NamedTuple):
    """One number in a results file of a harness."""

    task: str  # lmms-eval's task or VLMEvalKit's data set
    row: str  # table row; blank: first row, or lmms-eval
    column: str  # metric of lmms-eval, column of VLMEvalKit


class HarnessRecipe(NamedTuple):
    """How the numbers of a harness make one row of the paper's tables."""

    parts: tuple[TablePart, ...]
    mean: bool  # mean of the parts, else sum
    factor: float
    fork: bool  # whether only the authors' copy of the harness has the task


def _recipe(text: str) -> HarnessRecipe:
    """`task:metric x100`, with several parts joined by `+` or `&`."""
    names, *percent = text.split(" x100")
    mean = " & " in names
    parts = []
    for part in names.split(" & " if mean else " + "):
        task, *row, column = part.strip().split(":")
        parts.append(TablePart(task.removesuffix(FORK_MARK), row[0] if row else "", column))
    return HarnessRecipe(tuple(parts), mean, 100.0 if percent else 1.0, FORK_MARK in names)


class PaperRow(NamedTuple):
    """One row of Table 2 or 3."""

    name: str
    table: int
    benchmark: str
    dimension: str
    metric: str
    unit: str
    better: str  # high or low
    scores: tuple[Change, ...]
    recipes: dict[str, HarnessRecipe]
    items: int | None = None  # of Table 3's rows

    @property
    def higher(self) -> bool:
        """Whether more is better."""
        return self.better == "high"


def _changes(pairs: Iterable[Sequence[float]]) -> tuple[Change, ...]:
    return tuple(Change(*map(float, pair)) for pair in pairs)


def _row(entry: dict[str, Any]) -> PaperRow:
    recipes = {harness: _recipe(text) for harness, text in entry["recipes"].items()}
    return PaperRow(**entry | {"scores": _changes(entry["scores"]), "recipes": recipes})


_PAPER = yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8"))
SOURCE, MODELS = _PAPER["source"], tuple(_PAPER["models"])
TEN_DIMENSIONS: dict[str, str] = _PAPER["dimensions"]  # as in MiniWorld, with the paper's words
PAPER_ROWS = {entry["name"]: _row(entry) for entry in _PAPER["rows"]}
BENCHMARKS = tuple(dict.fromkeys(row.benchmark for row in PAPER_ROWS.values()))
TABLE_2, TABLE_3 = ({n: row.scores for n, row in PAPER_ROWS.items() if row.table == table} for table in (2, 3))
TABLES = {**TABLE_2, **TABLE_3}
PRINTED = {name: _changes(pairs) for name, pairs in _PAPER["printed_averages"].items()}  # Table 3's, as printed
SAFETY_COUNTS = {name: PAPER_ROWS[name].items for name in TABLE_3}
CURVES, FIGURE_12A = tuple(_PAPER["figure_5_k"]), _PAPER["figure_12a"]
FIGURE_12B_W, FIGURE_12B = _PAPER["figure_12b"]["w"], _PAPER["figure_12b"]["averages"]
COLUMNS_4, ROWS_4, ROWS_5 = _PAPER["table_4"]["columns"], _PAPER["table_4"]["rows"], _PAPER["table_5"]


def rows_of(benchmark: str) -> list[PaperRow]:
    """The rows of one benchmark."""
    return [row for row in PAPER_ROWS.values() if row.benchmark == benchmark]


def tasks_of(benchmark: str, harness: str) -> list[str]:
    """What a harness calls a benchmark: its tasks or data sets, each once."""
    recipes = [row.recipes[harness] for row in rows_of(benchmark) if harness in row.recipes]
    return list(dict.fromkeys(part.task for recipe in recipes for part in recipe.parts))


def shown(row: str) -> dict[str, str]:
    """`base → aligned` per model, for display; empty if the paper lacks the row."""
    changes = zip(MODELS, TABLES.get(row, ()), strict=row in TABLES)
    return {f"paper: {model}": f"{change.base:g} → {change.aligned:g}" for model, change in changes}


def direction(change: tuple[float, float], higher: bool) -> str:
    """Whether a change from base to aligned is better, worse or the same."""
    base, aligned = change
    return "same" if aligned == base else "better" if (aligned > base) == higher else "worse"


def table() -> pd.DataFrame:
    """Tables 2 and 3 in long format: row, dimension, table, model, base, aligned, change, and better, worse or same."""
    rows = []
    for row in (PAPER_ROWS[name] for name in TABLES):
        for model, (base, aligned) in zip(MODELS, row.scores, strict=True):
            verdict = direction((base, aligned), row.higher)
            rows.append((row.name, row.dimension, f"Tab. {row.table}", model, base, aligned, aligned - base, verdict))
    names = ["row", "dimension", "table", "model", "base", "aligned", "change", "verdict"]
    return pd.DataFrame(rows, columns=names)


def table_4() -> pd.DataFrame:
    """Table 4 in long format: category, model, acc, acc_plus."""
    rows = [(row, model, *cell) for row, cells in ROWS_4.items() for model, cell in zip(COLUMNS_4, cells, strict=True)]
    return pd.DataFrame(rows, columns=["category", "model", "acc", "acc_plus"])


def table_5() -> pd.DataFrame:
    """Table 5 with the plain mean of its three categories beside the printed average."""
    printed = pd.DataFrame(ROWS_5, index=["general", "hallucination", "reasoning", "printed"]).T
    return printed.assign(mean=printed[["general", "hallucination", "reasoning"]].mean(axis=1))
