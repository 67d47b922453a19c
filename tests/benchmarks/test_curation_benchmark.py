"""The curation benchmark: what it draws is what it says, and table and figure come from whatever was measured."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import curation as benchmark  # noqa: E402

ROUND = {
    "ours": {"wall": 0.5, "cpu": 1.0, "wall_more": 0.25, "cpu_more": 0.5, "inertia": 100.0},
    "faiss": {"wall": 1.0, "cpu": 2.5, "wall_more": 0.75, "cpu_more": 2.0, "inertia": 100.01},
    "scikit-learn": {"wall": 2.0, "cpu": 4.0, "wall_more": 2.0, "cpu_more": 4.0, "inertia": 99.9},
}
ROW = {"wall": 2.0, "cpu": 4.0, "memory": 3 * 2**30, "data": 2**31}
DUPLICATES = {"n": 1000, "wall": 2.0, "cpu": 4.0, "planted": 10, "planted_found": 9, "pairs": 12, "flat_queries": 100}
PARTS = {
    "kmeans": {"n": 1000, "rounds": [ROUND, ROUND]},
    "duplicates": DUPLICATES | {"flat_pairs": 8, "flat_pairs_found": 7, "flat_wall_all": 50, "flat_cpu_all": 80},
    "growth": {"kmeans": {str(10**k): {"n": 10**k, **ROW} for k in (3, 5, 4)}},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_embeddings_are_drawn_once_with_the_planted_ones_last(here):
    x = benchmark.embeddings(2000)
    wide = x.astype(np.float32)
    assert x.shape == (2000, benchmark.D)
    assert np.linalg.norm(wide, axis=1) == pytest.approx(1, abs=2e-3)
    cosine = (wide[:20] * wide[-20:]).sum(1)
    assert ((cosine > benchmark.COSINE) & (cosine < 1)).all()
    assert ((wide[20:40] * wide[-20:]).sum(1) < benchmark.COSINE).all()
    file = next(here.rglob("*.npy"))
    made = file.stat().st_mtime_ns
    benchmark.embeddings(2000)
    assert file.stat().st_mtime_ns == made


def test_growth_is_fitted_through_the_three_largest_sizes():
    rows = [{"n": n, "wall": wall} for n, wall in ((1, 50), (200, 8.0), (100, 2.0), (400, 32.0))]
    slope, value = benchmark.fitted(rows, "wall", 1000)
    assert (slope, value) == (pytest.approx(2), pytest.approx(200))


@pytest.mark.parametrize("names", [["kmeans"], ["duplicates"], ["growth"], list(PARTS)])
def test_table_and_figure_need_no_more_than_what_was_measured(here, names):
    benchmark.write({"machine": {"threads": 2}} | {name: PARTS[name] for name in names})
    text = (here / "reports/benchmarks/curation.md").read_text()
    assert ("| faiss | 0.750 | 2.000 | 3.00 | 4.00 | 1.000 | 2.500 | 2.00 | 2.50 | +0.01000% |" in text) == (
        "kmeans" in names
    )
    assert ("| faiss flat | 50 | 80 | 25 | 20 |" in text) == ("duplicates" in names)
    assert ("| kmeans | 10,000 | 2.0 | 4.0 | 3.00 | 1.50 |" in text) == ("growth" in names)
    assert ("grow as N^" in text) == ("growth" in names)
    assert (here / "reports/benchmarks/curation.png").is_file() == ("growth" in names)
    assert benchmark.EARLIER not in text


def test_engines_start_alike_and_label_all_points():
    x = np.random.default_rng(0).standard_normal((400, benchmark.D)).astype(np.float32)
    engines = benchmark.engines(x, x)
    inertia = [benchmark.inertia(x, engine(5)) for engine in engines.values()]
    assert len(inertia) == 2
    assert inertia[0] == pytest.approx(inertia[1], rel=0.01)


def test_figures_of_the_earlier_version_are_marked():
    assert benchmark.EARLIER in benchmark.table({"machine": {benchmark.OWN_LOOP: "int8"}})


@pytest.mark.parametrize("file", sorted((ROOT / "reports" / "benchmarks").glob("curation.json")), ids=lambda f: f.stem)
def test_the_committed_table_is_the_committed_numbers(file):
    assert benchmark.table(json.loads(file.read_text())) == file.with_suffix(".md").read_text()
