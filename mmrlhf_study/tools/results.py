"""Results files of lmms-eval and VLMEvalKit, read into the rows of the paper's tables.

| harness | file | where a number is |
|---|---|---|
| lmms-eval | `<model>/<date>_results.json` | `results` → task → `metric,filter` |
| VLMEvalKit | `<model>/T<date>_G<commit>/<model>_<dataset>[_<judge>]_<acc, score or rating>` | a column, or a path |
| VLMEvalKit | the same with `_result.xlsx` | the mean of the column `hit` over the items |

Every file is one run. Where several runs of a model have the same task, one is used: a full run before a limited one,
of limited ones the one with most items, a score before a share counted from items, then the newest, then the last by
file name. The others are listed as set aside, with the reason. A file that cannot be read is named with its reason.
"""

import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd

from mmrlhf_core.data import storage
from mmrlhf_study.evaluation import paper
from mmrlhf_study.evaluation.paper import HARNESSES, PAPER_ROWS, TablePart

LMMS, KIT = HARNESSES
MAX_BOOK = 2**28  # bytes that an .xlsx file may unpack to
Numbers = dict[TablePart, float]
_USED = {  # the numbers that the paper's rows are made of
    harness: {part for row in PAPER_ROWS.values() if harness in row.recipes for part in row.recipes[harness].parts}
    for harness in HARNESSES
}


@dataclass(frozen=True)
class HarnessRun:
    """What one file holds, and what identifies it."""

    file: str  # seen from the folder that was read
    model: str
    harness: str
    date: str  # as the harness wrote it; blank where it did not
    judge: str  # blank where none is named
    numbers: Numbers
    tasks: tuple[str, ...]
    limits: Mapping[str, tuple[int, str]]  # of the tasks that were cut: items that were evaluated, and in words
    missing: tuple[str, ...] = ()  # numbers that are NaN or cannot be read
    from_items: bool = False  # counted here from single items


@dataclass(frozen=True)
class ModelResults:
    """What the runs of one model give together."""

    values: dict[str, float]  # by row of the paper's tables
    limited: dict[str, str]  # rows of `values` from limited runs, and how far these were cut
    unknown: tuple[str, ...]  # numbers that belong to no row
    incomplete: tuple[str, ...]  # rows that lack some numbers, and numbers that are NaN or cannot be read
    set_aside: tuple[str, ...]  # tasks of runs that another run replaces, with the reason
    runs: tuple[HarnessRun, ...]


@dataclass(frozen=True)
class ResultsFolder:
    """Everything that was read from a file or folder."""

    models: dict[str, ModelResults]
    refused: dict[str, str]  # file → reason
    item_files: int  # files about single items, which hold no scores
    other_files: int

    @property
    def runs(self) -> pd.DataFrame:
        """One row for every file that was read."""
        rows = [run for results in self.models.values() for run in results.runs]
        limits = [", ".join(dict.fromkeys(words for _, words in run.limits.values())) or "none" for run in rows]
        cells = [(r.model, r.harness, r.file, r.date, r.judge, lim) for r, lim in zip(rows, limits, strict=True)]
        return pd.DataFrame(cells, columns=["model", "harness", "file", "date", "judge", "limit"])

    def notes(self) -> list[str]:
        """Everything that is not in the table beside the paper, one line each."""
        lines = [f"not read: {file}: {reason}" for file, reason in self.refused.items()]
        for model, results in self.models.items():
            parts = {"missing": results.incomplete, "set aside": results.set_aside, "not in the paper": results.unknown}
            lines += [f"{model}, {kind}: {text}" for kind, texts in parts.items() for text in texts]
        return [
            *lines,
            f"{self.item_files} files about single items and {self.other_files} other files hold no scores.",
        ]


class _FileError(ValueError):
    """One file cannot be read."""


def read(place: str | Path) -> ResultsFolder:
    """The results of every model in a file or folder, by the name that the harness wrote."""
    root = storage.path(place)
    files = [root] if root.is_file() else sorted(file for file in root.glob("**/*") if file.is_file())
    if not files:
        raise ValueError(f"{place} holds no files. Give a results file or folder of {' or '.join(HARNESSES)}.")
    runs, refused, counts = [], {}, {"items": 0, "other": 0}
    once = {file.resolve(): file for file in sorted(files, key=lambda file: not file.is_symlink())}  # links only once
    for file in sorted(once.values()):
        name = file.name if file == root else file.relative_to(root).as_posix()
        try:
            content = _read_file(file, name)
        except _FileError as error:
            refused[name] = str(error)
            continue
        if isinstance(content, HarnessRun):
            runs.append(content)
        else:
            counts[content] += 1
    models = {
        model: _results([run for run in runs if run.model == model])
        for model in dict.fromkeys(run.model for run in runs)
    }
    return ResultsFolder(models, refused, counts["items"], counts["other"])


def _read_file(file: Path, name: str) -> HarnessRun | str:
    """The run in a file; `items` for a file about single items, `other` for what is no result."""
    if file.suffix == ".jsonl":
        return "items"
    if file.suffix == ".json" and (run := _lmms_run(file, name)):
        return run
    return _kit_run(file, name) if file.suffix in (".csv", ".xlsx", ".json") else "other"


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _FileError(f"no readable JSON ({error}); evaluate again") from error


def _number(value: Any) -> tuple[float | None, str]:
    """A finite number, or None and the reason where a number was meant; other text gives None and no reason."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None, ""
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        meant = re.fullmatch(r"[-+]?\d[\d.,]*\s*%?", text)
        return None, f"is written {text!r}: write a plain number with a decimal point, without %" if meant else ""
    return (number, "") if math.isfinite(number) else (None, f"is missing ({text})")


# ---------------------------------------------------------------- several runs of one model


def _best_first(runs: Iterable[HarnessRun], task: str) -> list[HarnessRun]:
    """The runs that have a task, in the order of the module's text."""
    newest = sorted((run for run in runs if task in run.tasks), key=lambda run: (run.date, run.file), reverse=True)
    return sorted(newest, key=lambda run: (task in run.limits, -run.limits.get(task, (0, ""))[0], run.from_items))


def _reason(run: HarnessRun, best: HarnessRun, task: str) -> str:
    """Why a run is not the one whose numbers are used."""
    if task in run.limits and (task not in best.limits or run.limits[task][0] < best.limits[task][0]):
        return f"it is limited: {run.limits[task][1]}"
    if run.from_items and not best.from_items:
        return f"it counts single items, {best.file} has the score"
    if run.date < best.date:
        return f"it is older than {best.file}"
    return f"it has the same date as {best.file}, which is the last by name"


def _results(runs: Sequence[HarnessRun]) -> ModelResults:
    """The numbers of one model's runs, put into rows."""
    offers: dict[str, list[tuple[float, str, str]]] = {}  # row → value, how far it was cut, harness
    unknown, incomplete, set_aside = [], [], []
    for harness in dict.fromkeys(run.harness for run in runs):
        here = [run for run in runs if run.harness == harness]
        ranked = {task: _best_first(here, task) for task in dict.fromkeys(task for run in here for task in run.tasks)}
        numbers = {
            part: n for task, (best, *_) in ranked.items() for part, n in best.numbers.items() if part[0] == task
        }
        rows, absent = _rows(numbers, harness, ranked)
        for row, value in rows.items():
            tasks = {part.task: None for part in PAPER_ROWS[row].recipes[harness].parts}
            cuts = dict.fromkeys(ranked[task][0].limits[task][1] for task in tasks if task in ranked[task][0].limits)
            offers.setdefault(row, []).append((value, ", ".join(cuts), harness))
        incomplete += absent
        unknown += [f"{harness} {':'.join(part)} = {numbers[part]:g}" for part in numbers if part not in _USED[harness]]
        set_aside += [_set_aside(run, best, task) for task, (best, *others) in ranked.items() for run in others]
    chosen = {row: min(given, key=lambda offer: bool(offer[1])) for row, given in offers.items()}
    set_aside += [
        f"{row} = {value:g} of {harness} is set aside, {chosen[row][2]} gives this row too"
        for row, given in offers.items() for value, _, harness in given if harness != chosen[row][2]
    ]  # fmt: skip
    incomplete += [f"{run.file}: {text}" for run in runs for text in run.missing]
    values = {row: value for row, (value, _, _) in chosen.items()}
    limited = {row: cut for row, (_, cut, _) in chosen.items() if cut}
    return ModelResults(values, limited, tuple(unknown), tuple(incomplete), tuple(set_aside), tuple(runs))


def _set_aside(run: HarnessRun, best: HarnessRun, task: str) -> str:
    """One task of a run that is not used, with the rows that it alone would give."""
    rows, _ = _rows({part: n for part, n in run.numbers.items() if part.task == task}, run.harness, ())
    gave = ", ".join(f"{row} {value:g}" for row, value in rows.items())
    judge = f" (judge {run.judge})" if run.judge else ""
    return f"{run.file}{judge}: {task} is set aside, {_reason(run, best, task)}" + (f"; it gave {gave}" if gave else "")


def _rows(numbers: Numbers, harness: str, tasks: Iterable[str]) -> tuple[dict[str, float], list[str]]:
    """The paper's rows that these numbers give, and those that lack some of them although their task was run."""
    values, incomplete = {}, []
    for name, row in PAPER_ROWS.items():
        if recipe := row.recipes.get(harness):
            absent = [":".join(part) for part in recipe.parts if part not in numbers]
            if not absent:
                total = sum(numbers[part] for part in recipe.parts)
                values[name] = recipe.factor * (total / len(recipe.parts) if recipe.mean else total)
            elif {part.task for part in recipe.parts} & set(tasks):
                incomplete.append(f"{name}: {harness} gave no {', '.join(absent)}")
    return values, incomplete


# ---------------------------------------------------------------- lmms-eval


def _lmms_run(file: Path, name: str) -> HarnessRun | None:
    """The run in a results file of lmms-eval, or None for any other JSON file."""
    content = _json(file)
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict) or not all(isinstance(metrics, dict) for metrics in results.values()):
        return None
    config = _mapping(content, "config") or _mapping(content, "model_configs")
    samples, limit = _mapping(content, "n-samples"), config.get("limit")
    date = re.search(r"\d{8}_\d{6}", name)
    numbers, missing = _lmms_numbers(results)
    configs = [_mapping(_mapping(content, "configs").get(task, {}), "metadata") for task in results]
    judges = dict.fromkeys(str(c["gpt_eval_model_name"]) for c in configs if c.get("gpt_eval_model_name"))
    return HarnessRun(
        name, _lmms_model(content, config, name), LMMS, date[0] if date else str(content.get("date") or ""),
        ", ".join(judges), numbers, tuple(results),
        {task: cut for task in results if (cut := _cut(samples.get(task), limit))}, tuple(missing),
    )  # fmt: skip


def _mapping(content: Any, key: str) -> dict[str, Any]:
    value = content.get(key) if isinstance(content, dict) else None
    return value if isinstance(value, dict) else {}


def _cut(samples: Any, limit: Any) -> tuple[int, str] | None:
    """How many items of a task were evaluated, and in words, where these were not all; `limit` -1 means all."""
    total, done = (samples.get(key) for key in ("original", "effective")) if isinstance(samples, dict) else (None, None)
    if isinstance(total, int) and isinstance(done, int) and done >= 0:
        return (done, f"{done:,} of {total:,} items") if done < total else None
    number, _ = _number(limit)
    return (int(number), f"limit {number:g}") if number is not None and number > 0 else None


def _lmms_model(content: Mapping[str, Any], config: Mapping[str, Any], name: str) -> str:
    """The checkpoint that was evaluated; without a name the wrapper with its arguments, else the file itself."""
    arguments = config.get("model_args") or ""
    if isinstance(arguments, dict):
        arguments = ",".join(f"{key}={value}" for key, value in arguments.items())
    known = re.search(r"(?:^|,)pretrained=([^,]+)", str(arguments))
    if content.get("model_name") or known:
        return str(content.get("model_name") or known[1])
    return f"{config['model']} ({arguments or 'its defaults'})" if config.get("model") else name


def _lmms_numbers(results: Mapping[str, Mapping[str, Any]]) -> tuple[Numbers, list[str]]:
    """Every number of every task, and what is missing; of several filters, `none` or the first has the plain name."""
    numbers: Numbers = {}
    missing = []
    for task, metrics in results.items():
        for key in sorted(metrics, key=lambda key: not key.endswith(",none")):
            metric = key.partition(",")[0].removeprefix(f"{task}/").replace("percetion", "perception")
            if metric.endswith("_stderr"):
                continue
            number, reason = _number(metrics[key])
            part = TablePart(task, "", metric)
            if number is not None:
                numbers[part if part not in numbers else TablePart(task, "", key)] = number
            elif reason:
                missing.append(f"{task}:{key} {reason}")
    return numbers, missing


# ---------------------------------------------------------------- VLMEvalKit

_UNREADABLE = (
    ValueError, KeyError, IndexError, TypeError, OSError, zipfile.BadZipFile, zlib.error, ElementTree.ParseError
)  # fmt: skip
_RUN_FOLDER = re.compile(r"T(\d{8})(?:_\d+)?_G")
# the harness's own short names of judges, and families of models that people judge with
_JUDGE = r"(?:_(?P<judge>exact_matching|(?i:chatgpt|gpt|openai|claude|gemini|llama|qwen|deepseek)[^_]*))?"
_SCORES = rf"{_JUDGE}_(?P<kind>acc|score|rating|result)"
_KNOWN = "|".join(map(re.escape, sorted({part.task for part in _USED[KIT]}, key=len, reverse=True)))
_FIRST_ROW = {part.task for part in _USED[KIT] if not part.row}  # data sets of which the first row counts


def _kit_run(file: Path, name: str) -> HarnessRun | str:
    """The run in a file of VLMEvalKit, `items` or `other`."""
    folder = next((f.name for f in file.parents if not _RUN_FOLDER.match(f.name)), "")
    in_folder = re.fullmatch(rf"(?P<model>{re.escape(folder)})_(?P<dataset>.+?){_SCORES}", file.stem)
    parts = in_folder or re.fullmatch(rf"(?P<model>.+?)_(?P<dataset>{_KNOWN}){_SCORES}", file.stem)
    if not parts:
        if re.search(rf"{_SCORES}$", file.stem):
            raise _FileError(f"its model is not clear; put it in a folder named after the model, not {folder!r}")
        return "items" if file.suffix == ".xlsx" else "other"
    dataset, rows = parts["dataset"], list(_table(file))
    columns = {str(column).lower() for column in rows[0]} if rows else set()
    items = parts["kind"] == "result" or bool(columns & {"index", "prediction"})
    if items and "hit" not in columns:
        return "items"
    numbers, missing = (_share_of_hits if items else _table_numbers)(dataset, rows)
    date, cut = _RUN_FOLDER.match(file.parent.name), re.search(r"_limit([\d.]+)$", dataset)
    limits = {dataset: (0, f"limit {cut[1]}")} if cut else {}
    return HarnessRun(
        name, parts["model"], KIT, date[1] if date else "", parts["judge"] or "", numbers, (dataset,), limits,
        tuple(missing), items,
    )  # fmt: skip


def _table(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table by the names in its first line; a JSON object is one row, with paths as names."""
    if file.suffix == ".json":
        content = _json(file)
        rows = content if isinstance(content, list) else [content]
        if not all(isinstance(row, dict) for row in rows):
            raise _FileError("holds no JSON object and no list of objects, so it is no table")
        yield from (dict(_paths(row, "")) for row in rows)
        return
    try:
        if file.suffix == ".csv":
            table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        else:
            with zipfile.ZipFile(file) as book:
                if sum(part.file_size for part in book.infolist()) > MAX_BOOK:
                    raise ValueError(f"it unpacks to over {MAX_BOOK:,} bytes")
            table = pd.read_excel(file, dtype=object, keep_default_na=False, engine="openpyxl")
    except _UNREADABLE as error:
        raise _FileError(f"no readable {file.suffix[1:]} table ({error}); write it again, as CSV if need be") from error
    yield from table.to_dict("records")


def _paths(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Nested names joined by `/`."""
    if not isinstance(value, dict):
        yield path, value
        return
    for name, inner in value.items():
        yield from _paths(inner, f"{path}/{name}" if path else str(name).replace("|", "/"))


def _share_of_hits(dataset: str, rows: Sequence[Mapping[str, Any]]) -> tuple[Numbers, list[str]]:
    """The share of items that are hits, and how many items say nothing."""
    hits = [hit for row in rows if (hit := _number(row.get("hit"))[0]) is not None]
    numbers = {TablePart(dataset, "", "Overall"): sum(hits) / len(hits)} if hits else {}
    lost = len(rows) - len(hits)
    return numbers, [f"{dataset}:hit is missing for {lost} of {len(rows)} items"] if lost else []


def _table_numbers(dataset: str, rows: Sequence[Mapping[str, Any]]) -> tuple[Numbers, list[str]]:
    """The numbers of a table by row and column, and what is missing."""
    numbers: Numbers = {}
    missing = []
    for place, row in enumerate(rows):
        cells = {str(column): _number(value) for column, value in row.items()}
        texts = (str(value) for value, cell in zip(row.values(), cells.values(), strict=True) if cell == (None, ""))
        label = "" if place == 0 and dataset in _FIRST_ROW else next((text for text in texts if text.strip()), "")
        for column, (number, reason) in cells.items():
            if number is not None:
                numbers[TablePart(dataset, label, column)] = number
            elif reason:
                missing.append(f"{dataset}:{label}:{column} {reason}")
    return numbers, missing


# ---------------------------------------------------------------- beside the paper


def beside(models: Mapping[str, ModelResults]) -> pd.DataFrame:
    """Rows of the paper's tables that any of these models has: unit, direction, the models, then the paper's three.

    A number of a limited run says how far the run was cut.
    """
    rows = []
    for name, row in PAPER_ROWS.items():
        if any(name in results.values for results in models.values()):
            ours = {
                model: f"{results.values[name]:g} ({results.limited[name]})" if name in results.limited
                else results.values.get(name) for model, results in models.items()
            }  # fmt: skip
            rows.append({"row": name, "unit": row.unit, "better": row.better, **ours, **paper.shown(name)})
    return pd.DataFrame(rows)
