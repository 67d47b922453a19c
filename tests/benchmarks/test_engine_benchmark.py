"""The benchmark measures what it says: rows agree, work is counted, and a row that is wrong shows no ratio."""

import copy
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import engine  # noqa: E402
import engine_cases  # noqa: E402

TINY = {"width": 32, "layers": 1, "heads": 4, "kv_heads": 2, "mlp": 32, "vision_width": 32, "vision_layers": 1}


@pytest.fixture(scope="module")
def measured():
    part = engine_cases.Part(
        "tiny", (60, 64), (3, 6), (3, 3), queries=2, side=64, sizes=TINY, words=20, trl_batches=(), bf16=True
    )
    return engine.measure(part, rounds=2)


def test_every_row_agrees_with_the_plain_computation(measured):
    assert len(measured["rows"]) == 9
    for name, row in measured["rows"].items():
        assert engine.passes({"name": name, **row}, "float32"), (name, row["parity"])
        assert len(row["rounds"]) == 2


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


def test_a_wrong_row_shows_no_ratio(measured):
    result = copy.deepcopy({**measured, "memory": {}})
    result["rows"]["each response once, cached reference"]["parity"]["gradient"] = 1e-3
    text = engine.table({"machine": {}, "parts": {"tiny": result}})
    row = next(line for line in text.splitlines() if line.startswith("| each response once"))
    assert "parity failed" in row
    assert text.count("parity failed") == 1


@pytest.mark.parametrize("file", sorted((ROOT / "reports" / "benchmarks").glob("engine_*.json")), ids=lambda f: f.stem)
def test_the_committed_table_is_the_committed_numbers(file):
    assert engine.table(json.loads(file.read_text())) == file.with_suffix(".md").read_text()
