"""The w × k grid: cells on disk, the comparison with DPO, and sentences that follow from it."""

import numpy as np
import pytest

from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_core.training.losses import Objective
from mmrlhf_study.chapters import gain_plots, grid
from mmrlhf_study.evaluation import paper
from mmrlhf_study.evaluation.gains import Graded

CELLS = [(w, k) for w in (0.0, 0.5) for k in (0.25, 1.0)]
SHIFT = {(0.5, 1.0): 2.0, (0.5, 0.25): 0.0}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A grid in which one cell is far above DPO and the other is DPO."""
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    base = np.random.default_rng(0).normal(0, 1, 30)
    for w, k in CELLS:
        graded = [
            Graded("run", seed, "dev", "math", f"q{n}", "text", float(value + SHIFT.get((w, k), 0.0)), 1)
            for seed in (1, 2)
            for n, value in enumerate(base)
        ]
        grid.write(Objective("mm_dpo", 0.1, w, k), graded)
    return tmp_path


def test_cells_come_back_with_their_own_names_and_objectives(project):
    table, objectives = grid.read(CELLS)
    assert list(dict.fromkeys(table.arm)) == ["w0.0-k0.25", "w0.0-k1.0", "w0.5-k0.25", "w0.5-k1.0"]
    assert [(o.w, o.k) for o in objectives.values()] == CELLS
    found = grid.scores(table, CELLS, 50, 0).set_index(["w", "k"]).value
    assert found[0.5, 1.0] - found[0.0, 1.0] == pytest.approx(2)
    assert found[0.0, 0.25] == found[0.0, 1.0]


def test_a_grid_without_dpo_or_with_a_missing_cell_is_told(project):
    with pytest.raises(ValueError, match="needs a column w = 0, which is DPO"):
        grid.read([(0.5, 1.0)])
    with pytest.raises(ValueError, match="and others to hold against it"):
        grid.read([(0.0, 1.0)])
    with pytest.raises(ValueError, match=r"w0\.5-k3\.0/answers\.parquet is not there"):
        grid.read([*CELLS, (0.5, 3.0)])


def test_only_what_exceeds_noise_is_told_from_dpo(project):
    table, _ = grid.read(CELLS)
    compared = grid.against_dpo(table, CELLS, 100, 0).set_index("cell")
    assert compared.verdict.to_dict() == {"w0.5-k0.25": "not told apart", "w0.5-k1.0": "ahead"}
    assert compared["p (Holm)"]["w0.5-k1.0"] == pytest.approx(2 * compared.p["w0.5-k1.0"])
    found = grid.scores(table, CELLS, 50, 0).assign(beta=[0.1, 0.1, 0.11, 0.12])
    noise = grid.noise(table, found, compared)
    assert noise["rank correlation of score and mean beta"] == pytest.approx(0.866, abs=1e-3)  # scores 0, 0 and 2
    assert noise["standard deviation of a cell's mean over seeds"] == 0
    said = grid.sentences(found, compared.reset_index(), noise)
    assert said[0].startswith("Of 2 cells with w > 0, 1 lie above DPO; the best of them, w0.5-k1.0, less DPO: +2.00")
    assert said[1] == "1 differ from DPO after correction: w0.5-k1.0 ahead by +2.00."
    plain, best = grid.headlines(found, compared.reset_index(), "MiniWorld")
    assert plain.paper == "74.9, one run (Fig. 12b)"
    assert best.label == "best cell, w = 0.5 and k = 1, less DPO"
    assert best.paper == "+1.7 at w = 0.1, k = 1, one run (Fig. 12b)"
    assert best.value == pytest.approx(2)


def test_the_papers_default_stands_beside_the_paper(project):
    table, _ = grid.read(CELLS)
    cells = [(0.0, 0.5), (0.5, 0.5)]
    table = table.assign(arm=table.arm.replace({"w0.0-k0.25": "w0.0-k0.5", "w0.5-k1.0": "w0.5-k0.5"}))
    found = grid.scores(table, cells, 50, 0).assign(beta=[0.1, 0.12])
    compared = grid.against_dpo(table, cells, 100, 0)
    _, usual = grid.headlines(found, compared, "MiniWorld")
    assert usual.paper.startswith("+1.6")
    said = grid.sentences(found, compared, grid.noise(table, found, compared))
    assert said[0].startswith("w0.5-k0.5, the paper's default, less DPO: +2.00")


def test_beta_of_a_cell_over_the_training_pairs(project):
    rows = [RankedRow("q", "?", "text", (), ("a", "b"), (0, 0), (1, 1), (2.0, -1.0))]
    _, objectives = grid.read(CELLS)
    found = grid.spread(rows, objectives).set_index(["w", "k"])
    assert found.beta[0.5, 1.0] == pytest.approx(0.1 * (1 + 0.5 * (1 - np.exp(-2)) / 2))
    assert found["beta sd"][0.0, 1.0] == 0
    assert found["most beta"][0.5, 0.25] == pytest.approx(0.1 * (1 + 0.5 * (1 - np.exp(-0.5))))


def test_the_papers_figures_are_there():
    assert {row[0] for row in paper.FIGURE_12B.values()} == {paper.FIGURE_12A["dpo"]}
    assert paper.FIGURE_12B[0.5][2] == paper.FIGURE_12A["mm_dpo"]
    assert all(len(row) == len(paper.FIGURE_12B_W) for row in paper.FIGURE_12B.values())


def test_figure_5_is_the_papers_curve():
    figure = gain_plots.scaling_figure(paper.CURVES)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert set(lines) == {f"k = {k:g}" for k in paper.CURVES}
    for k in paper.CURVES:
        delta, drawn = lines[f"k = {k:g}"].get_data()
        np.testing.assert_allclose(drawn, 1 - np.exp(-k * np.asarray(delta)), atol=1e-12)
