"""The benchmarks: they draw, count and measure what they say, and their tables come from whatever was measured."""

import copy
import json
import sys

import annotation
import curation
import engine
import engine_cases
import numpy as np
import pytest
import sampling
import torch
from tiny_project import ROOT

pytestmark = pytest.mark.xdist_group("benchmarks")  # the engine's rows are measured once

TINY = {"width": 32, "layers": 1, "heads": 4, "kv_heads": 2, "mlp": 32, "vision_width": 32, "vision_layers": 1}
COMMITTED = sorted((ROOT / "reports/benchmarks").glob("*.md"))


def test_the_committed_tables_are_the_committed_numbers():
    assert {file.stem.partition("_")[0] for file in COMMITTED} == {"annotation", "curation", "engine"}
    for file in COMMITTED:
        benchmark = {"annotation": annotation, "curation": curation, "engine": engine}[file.stem.partition("_")[0]]
        assert benchmark.table(json.loads(file.with_suffix(".json").read_text())) == file.read_text(), file.name


# ---------------------------------------------------------------- annotation

CLOCKS = {"wall": 1.5, "wall_most": 2.0, "cpu": 1.0, "cpu_most": 1.25, "mib": 600.0, "mib_most": 700.0}
ANNOTATION_PARTS = {"read": CLOCKS | {"pairs": 120_000}, "agreement": CLOCKS | {"judgements": 30_000}}


def test_both_parts_measure_what_was_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(annotation, "PAIRS", 15)
    monkeypatch.setattr(annotation, "JUDGEMENTS", 240)
    monkeypatch.setattr(annotation, "DRAWS", 20)
    annotation.draw_pairs(tmp_path / "pairs.jsonl")
    read = annotation.measure("read", str(tmp_path / "pairs.jsonl"))
    # two whole queries of six pairs, and three pairs of the first response of a third with the other three
    assert (read["queries"], read["responses"], read["pairs"]) == (3, 12, 15)
    agreed = annotation.measure("agreement", "")
    people = {one.annotator for one in annotation.draw_judgements()[0]}
    # six groups (all and five classes) of 3 scales and 3 measures; for each of the people 3 scales and 4 measures
    assert (agreed["judgements"], agreed["intervals"]) == (240, 6 * 9 + len(people) * 12)
    assert min(row[clock] for row in (read, agreed) for clock in ("wall", "mib")) > 0


@pytest.mark.parametrize("names", [["read"], ["agreement"], ["read", "agreement"]])
def test_the_annotation_table_needs_no_more_than_what_was_measured(names):
    text = annotation.table({"machine": {"cores": 2}, "parts": {name: ANNOTATION_PARTS[name] for name in names}})
    assert ("| read | 1.50 (2.00) | 1.00 (1.25) | 600.00 (700.00) | under 10 s and 1 GB" in text) == ("read" in names)
    assert ("pairs 120,000 |" in text) == ("read" in names)
    assert ("judgements 30,000 |" in text) == ("agreement" in names)


# ---------------------------------------------------------------- curation

ROUND = {
    "ours": {"wall": 0.5, "cpu": 1.0, "wall_more": 0.25, "cpu_more": 0.5, "inertia": 100.0},
    "faiss": {"wall": 1.0, "cpu": 2.5, "wall_more": 0.75, "cpu_more": 2.0, "inertia": 100.01},
    "scikit-learn": {"wall": 2.0, "cpu": 4.0, "wall_more": 2.0, "cpu_more": 4.0, "inertia": 99.9},
}
ROW = {"wall": 2.0, "cpu": 4.0, "memory": 3 * 2**30, "data": 2**31}
DUPLICATES = {"n": 1000, "wall": 2.0, "cpu": 4.0, "planted": 10, "planted_found": 9, "pairs": 12, "flat_queries": 100}
CURATION_PARTS = {
    "kmeans": {"n": 1000, "rounds": [ROUND, ROUND]},
    "duplicates": DUPLICATES | {"flat_pairs": 8, "flat_pairs_found": 7, "flat_wall_all": 50, "flat_cpu_all": 80},
    "growth": {"kmeans": {str(10**k): {"n": 10**k, **ROW} for k in (3, 5, 4)}},
}


def test_embeddings_are_drawn_once_with_the_planted_ones_last(bare):
    x = curation.embeddings(2000)
    wide = x.astype(np.float32)
    assert x.shape == (2000, curation.D)
    assert np.linalg.norm(wide, axis=1) == pytest.approx(1, abs=2e-3)
    cosine = (wide[:20] * wide[-20:]).sum(1)
    assert ((cosine > curation.COSINE) & (cosine < 1)).all()
    assert ((wide[20:40] * wide[-20:]).sum(1) < curation.COSINE).all()
    file = next(bare.rglob("*.npy"))
    made = file.stat().st_mtime_ns
    curation.embeddings(2000)
    assert file.stat().st_mtime_ns == made


def test_growth_is_fitted_through_the_three_largest_sizes():
    rows = [{"n": n, "wall": wall} for n, wall in ((1, 50), (200, 8.0), (100, 2.0), (400, 32.0))]
    slope, value = curation.fitted(rows, "wall", 1000)
    assert (slope, value) == (pytest.approx(2), pytest.approx(200))


@pytest.mark.parametrize("names", [["kmeans"], ["duplicates"], ["growth"], list(CURATION_PARTS)])
def test_table_and_figure_need_no_more_than_what_was_measured(bare, names):
    curation.write({"machine": {"threads": 2}} | {name: CURATION_PARTS[name] for name in names})
    text = (bare / "reports/benchmarks/curation.md").read_text()
    assert ("| faiss | 0.750 | 2.000 | 3.00 | 4.00 | 1.000 | 2.500 | 2.00 | 2.50 | +0.01000% |" in text) == (
        "kmeans" in names
    )
    assert ("| faiss flat | 50 | 80 | 25 | 20 |" in text) == ("duplicates" in names)
    assert ("| kmeans | 10,000 | 2.0 | 4.0 | 3.00 | 1.50 |" in text) == ("growth" in names)
    assert ("grow as N^" in text) == ("growth" in names)
    assert (bare / "reports/benchmarks/curation.png").is_file() == ("growth" in names)
    assert curation.EARLIER not in text


def test_engines_start_alike_and_label_all_points():
    x = np.random.default_rng(0).standard_normal((400, curation.D)).astype(np.float32)
    engines = curation.engines(x, x)
    inertia = [curation.inertia(x, engine(5)) for engine in engines.values()]
    assert len(inertia) == 2
    assert inertia[0] == pytest.approx(inertia[1], rel=0.01)


def test_figures_of_the_earlier_version_are_marked():
    assert curation.EARLIER in curation.table({"machine": {curation.OWN_LOOP: "int8"}})


# ---------------------------------------------------------------- engine


@pytest.fixture(scope="module")
def measured():
    part = engine_cases.Part(
        "tiny", (60, 64), (3, 6), (3, 3), queries=2, side=64, sizes=TINY, words=20, trl_batches=(), bf16=True
    )
    return engine.measure(part, rounds=2)


def test_every_row_agrees_with_the_plain_computation_in_float64(measured):
    rows = {name: {"name": name, **row} for name, row in measured["rows"].items()}
    assert len(rows) == 10
    for name, row in rows.items():
        assert engine.passes(row, rows[engine.base_of(name)], "float32"), (name, row["parity"])
        assert len(row["rounds"]) == 2
    tree, plain = rows["tree, cached reference"], rows["pair by pair, full logits, online reference"]
    assert 0 < tree["parity"]["gradient"] < 1e-5 > plain["parity"]["gradient"] > 0, "every row has its own error"


def test_gradient_error_by_hand():
    model = torch.nn.Linear(2, 1)
    model.weight.grad = torch.tensor([[3.0, 4.5]])
    # true gradient (3, 4) of norm 5, off by 0.5; the bias has none in either
    assert engine.gradient_error(model, [torch.tensor([[3.0, 4.0]]), None]) == pytest.approx(0.1)
    assert model.weight.grad is None
    assert engine.gradient_error(model, [torch.tensor([[3.0, 4.0]]), None]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("error", "plain", "counts"), [(9e-6, 1e-6, True), (4e-5, 1e-6, False), (4e-5, 5e-5, True), (6e-5, 5e-5, False)]
)
def test_a_row_counts_within_the_limit_or_no_further_off_than_the_plain_row(error, plain, counts):
    rows = [
        {"name": name, "parity": {"value_per_token": 1e-8, "gradient": off}}
        for name, off in (("tree", error), ("plain", plain))
    ]
    assert engine.passes(*rows, "float32") == counts
    assert engine.passes({**rows[0], "name": "tree, bf16 weights"}, rows[1], "float32")


def test_work_is_counted_by_hand():
    part = engine_cases.Part("hand", (10, 10), (3, 3), (3, 3), sizes=TINY, words=20)
    case = engine_cases.build(part)
    # P = 10, R = 3, K = 3: tree 19 tokens, once 39, three pairs of two sequences 78; training is 3, a reference 1 more
    assert engine.work(case, "tree, cached reference") == 3 * 19
    assert engine.work(case, "each response once, cached reference") == 3 * 39
    assert engine.work(case, "pair by pair, full logits, online reference") == 4 * 78
    assert engine.work(case, "TRL, 6 pairs a batch, precomputed reference") == 3 * 78
    assert engine.work(case, "TRL, 6 pairs a batch, online reference") == 4 * 78
    assert engine.work(case, "reward scoring: tree") == 19
    assert engine.work(case, "one-time: reference pass on the tree") == 19


def test_a_wrong_row_shows_no_ratio_and_a_dead_process_is_told(measured):
    result = copy.deepcopy({**measured, "memory": {"tree, cached reference": {"ended": -9}}})
    result["rows"]["each response once, cached reference"]["parity"]["gradient"] = 1e-3
    text = engine.table({"machine": {}, "parts": {"tiny": result}})
    row = next(line for line in text.splitlines() if line.startswith("| each response once"))
    assert "parity failed" in row
    assert text.count("parity failed") == 1
    assert "| tree, cached reference | not measured: its process ended with code -9 |" in text


def test_the_fastest_precision_that_passes_is_named(measured):
    result = copy.deepcopy({**measured, "memory": {}})
    for name, seconds in (("", 3.0), (", bf16 autocast", 2.0), (", bf16 weights", 1.0)):
        result["rows"]["tree, cached reference" + name]["seconds"] = seconds
    text = engine.table({"machine": {}, "parts": {"tiny": result}})
    assert "within its limit: tree, cached reference, bf16 weights." in text
    result["rows"]["tree, cached reference, bf16 weights"]["parity"]["gradient"] = 0.06
    text = engine.table({"machine": {}, "parts": {"tiny": result}})
    assert "within its limit: tree, cached reference, bf16 autocast." in text


def test_a_memory_process_that_dies_costs_no_row(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "OUT", tmp_path)
    monkeypatch.setattr(engine, "machine", dict)
    monkeypatch.setattr(engine, "measure", lambda part, rounds: copy.deepcopy(measured))
    monkeypatch.setattr(sys, "argv", ["engine.py", "--part", "llava mini mix", "--threads", "1"])
    monkeypatch.setattr(sys, "executable", "false")
    engine.main()
    saved = json.loads(next(tmp_path.glob("*.json")).read_text())["parts"]["llava mini mix"]
    assert saved["rows"].keys() == measured["rows"].keys()
    assert saved["memory"]["tree, cached reference"] == {"ended": 1}
    monkeypatch.setattr(engine, "memory_of", lambda *_: pytest.fail("stop here"))
    next(tmp_path.glob("*.json")).unlink()
    with pytest.raises(pytest.fail.Exception):
        engine.main()
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["parts"]["llava mini mix"]["rows"]


# ---------------------------------------------------------------- sampling


def test_both_sides_write_the_same_greedy_answers_and_full_lengths(monkeypatch):
    learner, prompt = sampling.build(60, 64, TINY, 200)
    read = []
    theirs = sampling.theirs
    monkeypatch.setattr(sampling, "theirs", lambda *a: read.append(theirs(*a)) or read[-1])
    found = sampling.measure(learner, prompt, n=3, length=4, rounds=2)
    assert found["greedy_identical"]
    assert (found["prompt"], found["n"], found["written"]) == (60, 3, 4)
    assert [len(values) for values in found["seconds"].values()] == [2, 2]
    assert all(len(ids) == 4 for answers in read for ids in answers)
    assert len(read[-1]) == 3
    assert "asked: 3x" in sampling.table(found)


def test_different_greedy_answers_show_no_ratio():
    found = {"n": 8, "prompt": 9, "written": 2, "ratio": 9.0, "greedy_identical": False, "medians": {}}
    assert "9.0" not in sampling.table(found)


def test_a_prompt_of_another_length_is_refused(monkeypatch):
    monkeypatch.setattr(sampling, "Prompt", lambda text, images=(): sampling.prompts.Prompt("w1 w1", images))
    with pytest.raises(ValueError, match="60"):
        sampling.build(60, 64, TINY, 200)
