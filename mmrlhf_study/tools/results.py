"""Results files of lmms-eval and VLMEvalKit read into the rows of the paper's tables; nothing in them is dropped.

| harness | files | where a number stands |
|---|---|---|
| lmms-eval | `<date>_results.json` | `results` → task → `metric,filter` |
| VLMEvalKit | `<model>_<dataset>_acc`, `_score` or `_rating` as .csv, .xlsx or .json | column of a row, or a path |
| VLMEvalKit | `<model>_<dataset>_<judge>_result.xlsx` | mean of the column `hit` over its items |
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mmrlhf_core.data import storage
from mmrlhf_study.evaluation import paper
from mmrlhf_study.evaluation.paper import HARNESSES, PAPER_ROWS, HarnessRecipe, TablePart
from mmrlhf_study.tools import sheets

LMMS, KIT = HARNESSES
_SUFFIX = r"(?:(?P<judge>[a-z][\w.\-]*?)_)?(?P<kind>acc|score|rating|result)"  # a judge's name begins in lower case
_DATE = re.compile(r"T\d{8}")  # VLMEvalKit's folder of one run
Numbers = dict[TablePart, float]


@dataclass(frozen=True)
class Results:
    """What one model's files hold: values by row of the paper's tables, and everything that is none of them."""

    values: dict[str, float]
    unknown: tuple[str, ...]  # numbers and files that belong to no row
    incomplete: tuple[str, ...]  # rows of which some numbers are missing


def read(place: str | Path) -> dict[str, Results]:
    """The results of every model in a file or folder, by name of the model as the harness wrote it."""
    root = storage.path(place)
    files = [root] if root.is_file() else sorted(file for file in root.glob("**/*") if file.is_file())
    if not files:
        raise ValueError(f"{place} holds no files. Give a results file or folder of {' or '.join(HARNESSES)}.")
    numbers: dict[tuple[str, str], Numbers] = {}
    notes: dict[str, list[str]] = {}
    for file in files:
        if (content := _lmms(file)) is not None:
            model = _lmms_model(content, file)
            numbers.setdefault((model, LMMS), {}).update(_lmms_numbers(content))
        elif file.suffix in (".csv", ".xlsx", ".json"):
            model, found, note = _kit(file)
            numbers.setdefault((model, KIT), {}).update(found)
            notes.setdefault(model, []).extend([note] if note else [])
    return {model: _results(model, numbers, notes) for model in dict.fromkeys(model for model, _ in numbers)}


def _results(model: str, numbers: Mapping[tuple[str, str], Numbers], notes: Mapping[str, list[str]]) -> Results:
    """The numbers of one model from both harnesses, put into rows."""
    values, incomplete, unknown = {}, [], list(notes.get(model, ()))
    for harness in HARNESSES:
        mine = numbers.get((model, harness), {})
        used: set[TablePart] = set()
        for name, row in PAPER_ROWS.items():
            if recipe := row.recipes.get(harness):
                here = [part for part in recipe.parts if part in mine]
                used |= set(recipe.parts)
                if len(here) == len(recipe.parts):
                    values[name] = _combined(recipe, mine)
                elif any(part.task in {one.task for one in mine} for part in recipe.parts):
                    absent = [":".join(part) for part in recipe.parts if part not in mine]
                    incomplete.append(f"{name}: {harness} gave no {', '.join(absent)}")
        unknown += [f"{harness} {':'.join(part)} = {mine[part]:g}" for part in _rest(mine, used)]
    return Results(values, tuple(unknown), tuple(incomplete))


def _rest(numbers: Numbers, used: set[TablePart]) -> list[TablePart]:
    """The numbers that no row uses; the first row of a table, which also stands without a name, counts once."""
    named = {(part.task, part.column): part for part in reversed(numbers) if part.row}  # the first of each column
    twins = {first: TablePart(task, "", column) for (task, column), first in named.items()}
    once = used | {first for first, twin in twins.items() if twin in used} | set(twins.values())
    return [part for part in numbers if part not in once]


def _combined(recipe: HarnessRecipe, numbers: Numbers) -> float:
    total = sum(numbers[part] for part in recipe.parts)
    return recipe.factor * (total / len(recipe.parts) if recipe.mean else total)


def _float(value: Any) -> float | None:
    """A finite number, also when it is written as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


# ---------------------------------------------------------------- lmms-eval


def _lmms(file: Path) -> dict[str, Any] | None:
    """The content of a results file of lmms-eval, or None for any other file."""
    if file.suffix != ".json":
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no readable JSON ({error}); write it again.") from error
    held = content.get("results") if isinstance(content, dict) else None
    return content if isinstance(held, dict) and all(isinstance(one, dict) for one in held.values()) else None


def _lmms_model(content: Mapping[str, Any], file: Path) -> str:
    """The checkpoint that was evaluated, or the folder the file is in."""
    arguments = content.get("config", {}).get("model_args") or ""
    found = re.search(r"(?:^|,)pretrained=([^,]+)", arguments) if isinstance(arguments, str) else None
    return str(content.get("model_name") or (found[1] if found else file.parent.name))


def _lmms_numbers(content: Mapping[str, Any]) -> Numbers:
    """Every number of every task; of several filters of one metric, the one called `none`, else the first."""
    numbers: Numbers = {}
    for task, metrics in content["results"].items():
        for key in sorted(metrics, key=lambda key: not key.endswith(",none")):
            metric = key.partition(",")[0].removeprefix(f"{task}/").replace("percetion", "perception")
            if metric.endswith("_stderr") or (number := _float(metrics[key])) is None:
                continue
            numbers.setdefault(TablePart(task, "", metric), number)
    return numbers


# ---------------------------------------------------------------- VLMEvalKit

_DATASETS = sorted(
    {p.task for row in PAPER_ROWS.values() if KIT in row.recipes for p in row.recipes[KIT].parts}, key=len
)


def _kit(file: Path) -> tuple[str, Numbers, str]:
    """(model, numbers, note) of one file; the note says what the file is when it gives no known number."""
    for dataset in reversed(_DATASETS):  # the longest name that fits
        if found := re.fullmatch(rf"(?P<model>.+)_{re.escape(dataset)}_{_SUFFIX}", file.stem):
            return found["model"], _table(dataset, sheets.read(file), found["kind"] == "result"), ""
    folder = next((name for name in (one.name for one in file.parents) if not _DATE.match(name)), "")
    rest = file.stem.removeprefix(f"{folder}_")
    scored = re.search(rf"_{_SUFFIX}$", rest)
    if not scored:
        return folder, {}, f"{KIT} {file.name}: predictions or notes, no scores"
    dataset = rest[: scored.start()]
    return folder, _table(dataset, sheets.read(file), scored["kind"] == "result"), ""


def _table(dataset: str, rows: Iterable[Mapping[str, Any]], items: bool) -> Numbers:
    """The numbers of a table by row and column, its first row also without a name; of items, the share of hits."""
    rows = list(rows)
    if items:
        hits = [hit for row in rows if (hit := _float(row.get("hit"))) is not None]
        return {TablePart(dataset, "", "Overall"): sum(hits) / len(hits)} if hits else {}
    numbers: Numbers = {}
    for place, row in enumerate(rows):
        label = next((str(value) for value in row.values() if _float(value) is None and str(value).strip()), "")
        for column, value in row.items():
            if (number := _float(value)) is not None:
                numbers[TablePart(dataset, label, column)] = number
                if place == 0:
                    numbers[TablePart(dataset, "", column)] = number
    return numbers


# ---------------------------------------------------------------- beside the paper


def beside(found: Mapping[str, Results]) -> pd.DataFrame:
    """Rows of the paper's tables that any of these models has: unit, direction, the models, then the paper's three."""
    rows = []
    for name, row in PAPER_ROWS.items():
        if any(name in one.values for one in found.values()):
            ours = {model: one.values.get(name) for model, one in found.items()}
            theirs = paper.shown(name)
            rows.append({"row": name, "unit": row.unit, "better": "high" if row.higher else "low", **ours, **theirs})
    return pd.DataFrame(rows)
