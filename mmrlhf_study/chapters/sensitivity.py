"""Chapter 05: the cells of the w × k grid, their comparison with DPO, and the size of the noise."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from mmrlhf_core.data import records, storage
from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_core.training.losses import Objective
from mmrlhf_study.chapters import experiment
from mmrlhf_study.chapters.reporting import ENDS, Headline, shown
from mmrlhf_study.evaluation import compare, held_out
from mmrlhf_study.evaluation.held_out import AVERAGE, Graded
from mmrlhf_study.evaluation.paper import FIGURE_12B, FIGURE_12B_W

FOLDER = "data/sensitivity"


class Cell(NamedTuple):
    """One cell of the grid: w sets how far β can grow, k how fast it grows with δ."""

    w: float
    k: float

    @property
    def name(self) -> str:
        """The name of the cell's arm and of its folder."""
        return f"w{self.w}-k{self.k}"


DEFAULT = Cell(0.5, 0.5)  # the paper's


def write(objective: Objective, graded: Sequence[Graded]) -> None:
    """Write one cell atomically: the graded answers of its runs, and their objective."""
    name = Cell(objective.w, objective.k).name
    with storage.writing(f"{FOLDER}/{name}") as temporary:
        temporary.mkdir()
        records.write(temporary / "answers.parquet", [replace(one, arm=name) for one in graded], Graded)
        storage.write_json(temporary / "objective.json", asdict(objective))


def read(cells: Sequence[Cell]) -> tuple[pd.DataFrame, dict[Cell, Objective]]:
    """The grades of all cells as one table, and the objective of each."""
    if len({cell.w == 0 for cell in cells}) < 2:
        given = ", ".join(f"{w:g}" for w in dict.fromkeys(cell.w for cell in cells)) or "nothing"
        raise ValueError(f"sensitivity.w has {given}; it needs 0 (DPO) and at least one other value.")
    graded, objectives = [], {}
    for cell in cells:
        graded += records.read(f"{FOLDER}/{cell.name}/answers.parquet", Graded)
        objectives[cell] = Objective(**storage.read_json(f"{FOLDER}/{cell.name}/objective.json"))
    return held_out.table(graded), objectives


def beta_table(rows: Sequence[RankedRow], objectives: Mapping[Cell, Objective]) -> pd.DataFrame:
    """Mean, standard deviation and range of β over the training pairs, for each cell."""
    table = []
    for cell, objective in objectives.items():
        beta = np.array([pair.beta for pair in experiment.betas(rows, objective)])
        table.append((*cell, beta.mean(), beta.std(), beta.min(), beta.max()))
    return pd.DataFrame(table, columns=["w", "k", "beta", "beta sd", "least beta", "most beta"])


def scores(table: pd.DataFrame, cells: Sequence[Cell], draws: int, seed: int) -> pd.DataFrame:
    """Mean score of every cell over questions and seeds: w, k, value, low, high."""
    means = held_out.means(table, "dev", draws, seed)
    means = means[means.family == AVERAGE].set_index("arm")
    return pd.DataFrame([(*cell, *means.loc[cell.name, list(ENDS)]) for cell in cells], columns=["w", "k", *ENDS])


def against_dpo(table: pd.DataFrame, cells: Sequence[Cell], draws: int, seed: int) -> pd.DataFrame:
    """Every cell with w > 0 against DPO on the same questions; columns of `held_out.compared`, a row for each cell."""
    dpo = next(cell for cell in cells if cell.w == 0)
    others = [cell for cell in cells if cell.w > 0]
    rows = pd.concat([held_out.compared(table, "dev", cell.name, [dpo.name], draws, seed) for cell in others])
    rows = rows.drop(columns=["against", "p (Holm)", "verdict"]).reset_index(drop=True)
    rows.insert(0, "cell", [cell.name for cell in others])
    return held_out.judged(rows)


def noise(table: pd.DataFrame, grid: pd.DataFrame, compared: pd.DataFrame) -> dict[str, float]:
    """Spread between cells, standard error over seeds, and half-width of the interval of a difference from DPO.

    `grid` holds the columns of `scores` and of `beta_table`.
    """
    by_arm = held_out.by_seed(table, "dev").groupby("arm").value
    cells = pd.concat([grid[grid.w == 0].head(1), grid[grid.w > 0]])  # DPO once
    return {
        "range of the cells' scores": float(grid.value.max() - grid.value.min()),
        "standard deviation between cells": float(cells.value.std()),
        "standard deviation of a cell's mean over seeds": float((by_arm.std() / np.sqrt(by_arm.size())).mean()),
        "half the interval of a difference to DPO": float((compared.high - compared.low).mean() / 2),
        "rank correlation of score and mean beta": float(cells.value.corr(cells.beta, method="spearman")),
    }


# ---------------------------------------------------------------- report


def headlines(grid: pd.DataFrame, compared: pd.DataFrame, world: str) -> list[Headline]:
    """Front-page numbers: DPO; the highest cell and the paper's default minus DPO; the paper's values."""
    dpo, scaled = grid[grid.w == 0].iloc[0], grid[grid.w > 0]
    best = Cell(*scaled.loc[scaled.value.idxmax(), ["w", "k"]])
    paper = {Cell(w, k): value for k, row in FIGURE_12B.items() for w, value in zip(FIGURE_12B_W, row, strict=True)}
    none, top = paper[Cell(0.0, min(FIGURE_12B))], max(paper, key=lambda cell: (paper[cell], cell))
    rows = [Headline("DPO (w = 0)", dpo.value, dpo.low, dpo.high, world, f"{none}, one run (Fig. 12b)")]
    quotes = {best: f"{paper[top] - none:+.1f} at w = {top.w:g}, k = {top.k:g}, one run (Fig. 12b)"}
    quotes |= {DEFAULT: f"{paper[DEFAULT] - none:+.1f}, one run (Fig. 12b)"}
    labels = {DEFAULT: "w = k = 0.5 less DPO", best: f"best cell, w = {best.w:g} and k = {best.k:g}, less DPO"}
    for cell, quote in quotes.items():
        for row in compared[compared.cell == cell.name].itertuples():
            rows.append(Headline(labels[cell], row.difference, row.low, row.high, world, quote))
    return rows


def sentences(compared: pd.DataFrame, noise: Mapping[str, float]) -> list[str]:
    """What the grid shows, computed from its numbers."""
    best, differ = compared.loc[compared.difference.idxmax()], compared[compared.verdict != compare.OPEN]
    equal = int((compared.difference == best.difference).sum())
    above = f"Cells with a higher mean than DPO: {(compared.difference > 0).sum()} of {len(compared)}"
    highest = f"The highest cell{f', the first of {equal} equal ones' if equal > 1 else ''}"
    default = [
        f"The paper's default, {_minus_dpo(row)}" for _, row in compared[compared.cell == DEFAULT.name].iterrows()
    ]
    names = ", ".join(f"{row.cell} ({row.difference:+.2f})" for row in differ.itertuples())
    named = f": {names}" if names else ""
    correlation = noise["rank correlation of score and mean beta"]
    return [
        *default,
        f"{above}. {highest}, {_minus_dpo(best)}",
        f"Different from DPO after Holm's correction: {len(differ)} of {len(compared)} cells{named}.",
        "The scores of the cells span {:.2f} points; the interval of a difference is about ± {:.2f}, without the "
        "variation between seeds.".format(
            noise["range of the cells' scores"], noise["half the interval of a difference to DPO"]
        ),
        "Standard deviation between cells: {:.2f}; standard error of a cell's mean over its seeds: {:.2f}.".format(
            noise["standard deviation between cells"], noise["standard deviation of a cell's mean over seeds"]
        ),
        "Score and mean β have no rank correlation over the cells, because one of them does not vary."
        if np.isnan(correlation)
        else f"Rank correlation of score and mean β over the cells, without an interval: {correlation:+.2f}.",
    ]


def _minus_dpo(row: pd.Series) -> str:
    """The end of a sentence about one cell: its difference from DPO, and the verdict by the corrected p."""
    numbers = shown(row.difference, row.low, row.high, sign="+")
    return f"{row.cell}, minus DPO: {numbers}, {row.verdict} after Holm's correction."
