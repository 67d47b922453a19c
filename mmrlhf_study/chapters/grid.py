"""The w × k grid of chapter 05: cells written and read back, compared with DPO, and held against noise."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd

from mmrlhf_core.data import records, storage
from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_core.training.losses import Objective
from mmrlhf_study.chapters import ranked_rows
from mmrlhf_study.chapters.reporting import Headline
from mmrlhf_study.evaluation import gains
from mmrlhf_study.evaluation.gains import AVERAGE, Graded
from mmrlhf_study.evaluation.paper import FIGURE_12B, FIGURE_12B_W

FOLDER = "data/sensitivity"
Cell = tuple[float, float]  # w, k
DEFAULT = (0.5, 0.5)  # the paper's


def name(cell: Cell) -> str:
    """What a cell is called: its arm, and its folder."""
    return f"w{cell[0]}-k{cell[1]}"


def write(objective: Objective, graded: Sequence[Graded]) -> None:
    """One cell: the answers of its runs and the objective they were trained with, whole or not at all."""
    called = name((objective.w, objective.k))
    with storage.writing(f"{FOLDER}/{called}") as temporary:
        temporary.mkdir()
        records.write(temporary / "answers.parquet", [replace(one, arm=called) for one in graded], Graded)
        storage.write_json(temporary / "objective.json", asdict(objective))


def read(cells: Sequence[Cell]) -> tuple[pd.DataFrame, dict[Cell, Objective]]:
    """The grades of all cells as one table, and what each was trained with."""
    if len({w == 0 for w, _ in cells}) < 2:
        raise ValueError("The grid needs a column w = 0, which is DPO, and others to hold against it: sensitivity.w.")
    graded, objectives = [], {}
    for cell in cells:
        folder = f"{FOLDER}/{name(cell)}"
        graded += records.read(f"{folder}/answers.parquet", Graded)
        objectives[cell] = Objective(**storage.read_json(f"{folder}/objective.json"))
    return gains.table(graded), objectives


def spread(rows: Sequence[RankedRow], objectives: Mapping[Cell, Objective]) -> pd.DataFrame:
    """Mean, standard deviation and ends of β over the training pairs of every cell."""
    found = []
    for (w, k), objective in objectives.items():
        beta = np.array([one.beta for one in ranked_rows.betas(rows, objective)])
        found.append((w, k, beta.mean(), beta.std(), beta.min(), beta.max()))
    return pd.DataFrame(found, columns=["w", "k", "beta", "beta sd", "least beta", "most beta"])


def scores(table: pd.DataFrame, cells: Sequence[Cell], draws: int, seed: int) -> pd.DataFrame:
    """Mean score of every cell over questions and seeds: w, k, value, low, high."""
    found = gains.means(table, "dev", draws, seed)
    found = found[found.family == AVERAGE].set_index("arm")
    rows = [(*cell, *found.loc[name(cell), ["value", "low", "high"]]) for cell in cells]
    return pd.DataFrame(rows, columns=["w", "k", "value", "low", "high"])


def against_dpo(table: pd.DataFrame, cells: Sequence[Cell], draws: int, seed: int) -> pd.DataFrame:
    """Every cell with w > 0 against DPO on the same questions; columns of `gains.compare`, a row for each cell."""
    plain = name(next(cell for cell in cells if cell[0] == 0))
    others = [cell for cell in cells if cell[0] > 0]
    made = pd.concat([gains.compare(table, "dev", name(cell), [plain], draws, seed) for cell in others])
    made.insert(0, "cell", [name(cell) for cell in others])
    made["p (Holm)"] = gains.statistics.holm(made.p)
    return gains.judged(made.drop(columns="against").reset_index(drop=True))


def noise(table: pd.DataFrame, found: pd.DataFrame, compared: pd.DataFrame) -> dict[str, float]:
    """How far cells lie apart, beside what seeds alone and the interval of a difference to DPO reach."""
    single = gains.by_seed(table, "dev")
    cells = pd.concat([found[found.w == 0].head(1), found[found.w > 0]])  # DPO once
    seeds = single.groupby("arm").value
    return {
        "range of the cells' scores": float(found.value.max() - found.value.min()),
        "standard deviation between cells": float(cells.value.std()),
        "standard deviation of a cell's mean over seeds": float((seeds.std() / np.sqrt(seeds.size())).mean()),
        "half the interval of a difference to DPO": float((compared.high - compared.low).mean() / 2),
        "rank correlation of score and mean beta": float(cells.value.corr(cells.beta, method="spearman")),
    }


def _at(compared: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    return compared[compared.cell == name(cell)]


def _difference(row: pd.Series) -> str:
    return f"{row.difference:+.2f} [{row.low:.2f}, {row.high:.2f}], {row.verdict}"


def headlines(found: pd.DataFrame, compared: pd.DataFrame, world: str) -> list[Headline]:
    """Front-page numbers: DPO, the best cell with w > 0 and the paper's default against it, beside the paper's."""
    plain, scaled = found[found.w == 0].iloc[0], found[found.w > 0]
    best = scaled.loc[scaled.value.idxmax()]
    none = FIGURE_12B[min(FIGURE_12B)][0]
    paper = max((value, w, k) for k, row in FIGURE_12B.items() for w, value in zip(FIGURE_12B_W, row, strict=True))
    rows = [Headline("DPO (w = 0)", plain.value, plain.low, plain.high, world, f"{none}, one run (Fig. 12b)")]
    quoted = {(best.w, best.k): f"{paper[0] - none:+.1f} at w = {paper[1]:g}, k = {paper[2]:g}, one run (Fig. 12b)"}
    usual = FIGURE_12B[DEFAULT[1]][FIGURE_12B_W.index(DEFAULT[0])]
    quoted |= {DEFAULT: f"{usual - none:+.1f}, one run (Fig. 12b)"}
    labels = {DEFAULT: "w = k = 0.5 less DPO"} | {
        (best.w, best.k): f"best cell, w = {best.w:g} and k = {best.k:g}, less DPO"
    }
    for cell, paper_says in quoted.items():
        for row in _at(compared, cell).itertuples():
            rows.append(Headline(labels[cell], row.difference, row.low, row.high, world, paper_says))
    return rows


def sentences(found: pd.DataFrame, compared: pd.DataFrame, spread: Mapping[str, float]) -> list[str]:
    """What the grid shows, with its numbers."""
    best, sure = compared.loc[compared.difference.idxmax()], compared[compared.verdict != "not told apart"]
    told = ", ".join(f"{row.cell} {row.verdict} by {row.difference:+.2f}" for row in sure.itertuples())
    reach, apart = spread["half the interval of a difference to DPO"], spread["range of the cells' scores"]
    seeds, between = (
        spread["standard deviation of a cell's mean over seeds"],
        spread["standard deviation between cells"],
    )
    follows = spread["rank correlation of score and mean beta"]
    said = [
        f"{row.cell}, the paper's default, less DPO: {_difference(row)}; the paper has +1.6 points, one run."
        for _, row in _at(compared, DEFAULT).iterrows()
    ]
    above = int((compared.difference > 0).sum())
    return [
        *said,
        f"Of {len(compared)} cells with w > 0, {above} lie above DPO; the best of them, {best.cell}, less DPO: "
        f"{_difference(best)}.",
        f"{len(sure)} differ from DPO after correction{': ' + told if told else ''}.",
        f"Cells lie within {apart:.2f} of one another; a difference to DPO is known to about {reach:.2f} either way.",
        f"Standard deviation between cells {between:.2f}, of one cell's mean over its seeds {seeds:.2f}.",
        f"Over the cells, score and mean β have a rank correlation of {follows:+.2f}.",
    ]
