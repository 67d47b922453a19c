"""The w × k grid: cells on disk, the comparison with DPO, and sentences that follow from it."""

import numpy as np
import pandas as pd
import pytest

from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_core.training.losses import Objective
from mmrlhf_study.chapters import sensitivity
from mmrlhf_study.chapters.sensitivity import Cell
from mmrlhf_study.evaluation import paper
from mmrlhf_study.evaluation.held_out import Graded

CELLS = [Cell(w, k) for w in (0.0, 0.5) for k in (0.25, 1.0)]
SHIFT = {(0.5, 1.0): 2.0, (0.5, 0.25): 0.0}


@pytest.fixture
def grid(bare):
    """A grid in which one cell is far above DPO and the other is DPO."""
    base = np.random.default_rng(0).normal(0, 1, 30)
    for w, k in CELLS:
        graded = [
            Graded("run", seed, "dev", "math", f"q{n}", "text", float(value + SHIFT.get((w, k), 0.0)), 1)
            for seed in (1, 2)
            for n, value in enumerate(base)
        ]
        sensitivity.write(Objective("mm_dpo", 0.1, w, k), graded)


def test_cells_come_back_with_their_own_names_and_objectives(grid):
    table, objectives = sensitivity.read(CELLS)
    assert list(dict.fromkeys(table.arm)) == ["w0.0-k0.25", "w0.0-k1.0", "w0.5-k0.25", "w0.5-k1.0"]
    assert [(o.w, o.k) for o in objectives.values()] == CELLS
    found = sensitivity.scores(table, CELLS, 50, 0).set_index(["w", "k"]).value
    assert found[0.5, 1.0] - found[0.0, 1.0] == pytest.approx(2)
    assert found[0.0, 0.25] == found[0.0, 1.0]


def test_a_grid_without_dpo_or_with_a_missing_cell_is_told(grid):
    with pytest.raises(ValueError, match="DPO"):
        sensitivity.read([Cell(0.5, 1.0)])
    with pytest.raises(ValueError, match="other value"):
        sensitivity.read([Cell(0.0, 1.0)])
    with pytest.raises(ValueError, match=r"w0\.5-k3\.0/answers\.parquet"):
        sensitivity.read([*CELLS, Cell(0.5, 3.0)])


def test_only_what_exceeds_noise_is_told_from_dpo(grid):
    table, _ = sensitivity.read(CELLS)
    compared = sensitivity.against_dpo(table, CELLS, 100, 0).set_index("cell")
    assert compared.verdict.to_dict() == {"w0.5-k0.25": "not distinguished", "w0.5-k1.0": "better"}
    assert compared["p (Holm)"]["w0.5-k1.0"] == pytest.approx(2 * compared.p["w0.5-k1.0"])
    found = sensitivity.scores(table, CELLS, 50, 0).assign(beta=[0.1, 0.1, 0.11, 0.12])
    noise = sensitivity.noise(table, found, compared)
    assert noise["rank correlation of score and mean beta"] == pytest.approx(0.866, abs=1e-3)  # scores 0, 0 and 2
    assert noise["standard deviation of a cell's mean over seeds"] == 0
    best, differ, *_ = sensitivity.sentences(compared.reset_index(), noise)
    assert "w0.5-k1.0" in best
    assert "+2.00" in best
    assert "1 of 2" in best
    assert "1 of 2 cells" in differ
    assert "w0.5-k1.0 (+2.00)" in differ
    plain, best = sensitivity.headlines(found, compared.reset_index(), "MiniWorld")
    assert plain.paper.startswith("74.9")
    assert "w = 0.5 and k = 1" in best.label
    assert best.paper.startswith("+1.7 at w = 0.1, k = 1")
    assert best.value == pytest.approx(2)


def grid_of(**cells):
    """A comparison with DPO from {cell: (difference, verdict)}; every interval is ±0.1."""
    rows = [(name.replace("_", "."), d, d - 0.1, d + 0.1, verdict) for name, (d, verdict) in cells.items()]
    return pd.DataFrame(rows, columns=["cell", "difference", "low", "high", "verdict"])


NOISE = {
    "range of the cells' scores": 0.5,
    "standard deviation between cells": 0.1,
    "standard deviation of a cell's mean over seeds": 0.2,
    "half the interval of a difference to DPO": 0.1,
    "rank correlation of score and mean beta": -0.5,
}


def test_a_grid_below_dpo_has_no_cell_above_it():
    compared = grid_of(a=(-0.3, "worse"), b=(-0.05, "not distinguished"))
    best, differ, *_, correlation = sensitivity.sentences(compared, NOISE)
    assert ": 0 of 2." in best
    assert "b, minus DPO: -0.05 [-0.15, +0.05], not distinguished" in best
    assert differ.endswith("1 of 2 cells: a (-0.30).")
    assert "-0.50" in correlation


def test_equal_cells_share_the_first_place_and_have_no_correlation():
    compared = grid_of(a=(0.0, "not distinguished"), b=(0.0, "not distinguished"), c=(-0.3, "worse"))
    best, *_ = sensitivity.sentences(compared, NOISE)
    assert ": 0 of 3." in best, "equal to DPO is not above DPO"
    assert "first of 2 equal" in best
    nothing = grid_of(a=(-0.1, "not distinguished"))
    _, differ, *_, correlation = sensitivity.sentences(
        nothing, NOISE | {"rank correlation of score and mean beta": float("nan")}
    )
    assert differ.endswith("0 of 1 cells.")
    assert "nan" not in correlation


def test_the_papers_default_stands_beside_the_paper(grid):
    table, _ = sensitivity.read(CELLS)
    cells = [Cell(0.0, 0.5), Cell(0.5, 0.5)]
    table = table.assign(arm=table.arm.replace({"w0.0-k0.25": "w0.0-k0.5", "w0.5-k1.0": "w0.5-k0.5"}))
    found = sensitivity.scores(table, cells, 50, 0).assign(beta=[0.1, 0.12])
    compared = sensitivity.against_dpo(table, cells, 100, 0)
    _, usual = sensitivity.headlines(found, compared, "MiniWorld")
    assert usual.paper.startswith("+1.6")
    default, *_ = sensitivity.sentences(compared, sensitivity.noise(table, found, compared))
    assert "default, w0.5-k0.5" in default
    assert "+2.00" in default


def test_beta_of_a_cell_over_the_training_pairs(grid):
    rows = [RankedRow("q", "?", "text", (), ("a", "b"), (0, 0), (1, 1), (2.0, -1.0))]
    _, objectives = sensitivity.read(CELLS)
    found = sensitivity.beta_table(rows, objectives).set_index(["w", "k"])
    assert found.beta[0.5, 1.0] == pytest.approx(0.1 * (1 + 0.5 * (1 - np.exp(-2)) / 2))
    assert found["beta sd"][0.0, 1.0] == 0
    assert found["most beta"][0.5, 0.25] == pytest.approx(0.1 * (1 + 0.5 * (1 - np.exp(-0.5))))


def test_the_papers_figures_are_there():
    assert {row[0] for row in paper.FIGURE_12B.values()} == {paper.FIGURE_12A["dpo"]}
    assert paper.FIGURE_12B[0.5][2] == paper.FIGURE_12A["mm_dpo"]
    assert all(len(row) == len(paper.FIGURE_12B_W) for row in paper.FIGURE_12B.values())
