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
    """One cell of the grid: w says how far β may grow, k how fast."""

    w: float
    k: float

    @property
    def name(self) -> str:
        """The name of the cell's arm and of its folder."""
        return f"w{self.w}-k{self.k}"


DEFAULT = Cell(0.5, 0.5)  # the paper's


def write(objective: Objective, graded: Sequence[Graded]) -> None:
    """One cell, whole or not at all: the graded answers of its runs and the objective they were trained with."""
    name = Cell(objective.w, objective.k).name
    with storage.writing(f"{FOLDER}/{name}") as temporary:
        temporary.mkdir()
        records.write(temporary / "answers.parquet", [replace(one, arm=name) for one in graded], Graded)
        storage.write_json(temporary / "objective.json", asdict(objective))


def read(cells: Sequence[Cell]) -> tuple[pd.DataFrame, dict[Cell, Objective]]:
    """The grades of all cells as one table, and the objective of each."""
    if len({cell.w == 0 for cell in cells}) < 2:
        raise ValueError(
            "The grid needs cells with w = 0, which is DPO, and cells to compare with them: sensitivity.w."
        )
    graded, objectives = [], {}
    for cell in cells:
        graded += records.read(f"{FOLDER}/{cell.name}/answers.parquet", Graded)
        objectives[cell] = Objective(**storage.read_json(f"{FOLDER}/{cell.name}/objective.json"))
    return held_out.table(graded), objectives


def beta_table(rows: Sequence[RankedRow], objectives: Mapping[Cell, Objective]) -> pd.DataFrame:
    """Mean, standard deviation and ends of β over the training pairs of every cell."""
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
    """The differences between cells beside the variation by seed and the interval of a difference from DPO.

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
    """Front-page numbers: DPO, and the best cell and the paper's default less DPO, beside the paper's."""
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
    """What the grid shows; every sentence follows its numbers."""
    best, shown_ = compared.loc[compared.difference.idxmax()], compared[compared.verdict != compare.OPEN]
    differ = ", ".join(f"{row.cell} {row.verdict} by {row.difference:+.2f}" for row in shown_.itertuples())
    named = [("The paper's default", row) for _, row in compared[compared.cell == DEFAULT.name].iterrows()]
    named.append((f"The best of the {(compared.difference > 0).sum()} cells above DPO", best))
    return [
        *(
            f"{name}, {row.cell}, less DPO: {shown(row.difference, row.low, row.high, sign='+')}, {row.verdict}."
            for name, row in named
        ),
        f"After correction {len(shown_)} of {len(compared)} cells differ from DPO{': ' + differ if differ else ''}.",
        "The scores of the cells span {:.2f} points; a difference from DPO is known to about ± {:.2f}.".format(
            noise["range of the cells' scores"], noise["half the interval of a difference to DPO"]
        ),
        "The standard deviation is {:.2f} between cells, and {:.2f} for one cell's mean over its seeds.".format(
            noise["standard deviation between cells"], noise["standard deviation of a cell's mean over seeds"]
        ),
        f"Over the cells, score and mean β have a rank correlation of "
        f"{noise['rank correlation of score and mean beta']:+.2f}.",
    ]
