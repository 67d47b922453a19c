"""Strengths against a logistic regression, inversions and curves by hand."""

import numpy as np
import pytest
import statsmodels.api as sm

from mmrlhf_core.data.records import Ranking
from mmrlhf_study.annotation import bradley_terry
from mmrlhf_study.chapters import intervals

MODELS = ("a", "b", "c", "d")


def rankings(count: int, seed: int, strengths=(1.0, 0.3, 0.0, -1.3)) -> list[Ranking]:
    """Rankings by noisy utilities; close ones are ties."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        utility = np.round(np.array(strengths) + rng.gumbel(0, 1, 4), 0)
        levels = sorted(set(utility), reverse=True)
        ids = tuple(f"{number}/{model}" for model in MODELS)
        rows.append(Ranking(str(number), "x", ids, tuple(levels.index(u) + 1 for u in utility)))
    return rows


def model_of(rows: list[Ranking]) -> dict[str, str]:
    return {one: one.split("/")[1] for row in rows for one in row.responses}


def test_wins_by_hand():
    row = Ranking("q", "x", ("0/a", "0/b", "0/c"), (1, 2, 2))
    counts = bradley_terry.wins([row], model_of([row]), MODELS[:3]).toarray().reshape(3, 3)
    assert counts.tolist() == [[0, 1, 1], [0, 0, 0.5], [0, 0.5, 0]]
    fewer = bradley_terry.wins([row], model_of([row]), ("c", "a")).toarray().reshape(2, 2)
    assert fewer.tolist() == [[0, 0], [1, 0]]


def test_strengths_are_the_logistic_regression_and_for_two_models_the_log_odds():
    rows = rankings(150, 0)
    counts = bradley_terry.wins(rows, model_of(rows), MODELS).sum(0)
    w = counts.reshape(4, 4)
    design, target, weight = [], [], []
    for i in range(4):
        for j in range(i + 1, 4):
            design.append(np.eye(4)[i] - np.eye(4)[j])
            target.append(w[i, j] / (w[i, j] + w[j, i]))
            weight.append(w[i, j] + w[j, i])
    fit = sm.GLM(target, np.array(design)[:, :3], family=sm.families.Binomial(), freq_weights=np.array(weight)).fit()
    theirs = np.append(fit.params, 0)
    assert bradley_terry.strengths(counts) == pytest.approx(theirs - theirs.mean(), abs=1e-6)
    assert bradley_terry.strengths(np.stack((counts, 2 * counts)))[1] == pytest.approx(theirs - theirs.mean(), abs=1e-6)
    # 3 wins of 4: s_a - s_b = ln 3
    assert bradley_terry.strengths(np.array([0.0, 3, 1, 0])) == pytest.approx(np.array([1, -1]) * np.log(3) / 2)


def test_the_interval_holds_the_truth_and_the_order():
    rows = rankings(400, 1)
    found = intervals.bootstrap(bradley_terry.wins(rows, model_of(rows), MODELS), bradley_terry.strengths, 200)
    assert (np.diff(found.value) < 0).all()
    assert (found.low < found.value).all()
    assert (found.value < found.high).all()


def test_models_that_never_lose_are_refused_and_a_draw_without_maximum_stays_finite():
    counts = np.array([[0, 2, 2], [0, 0, 1], [0, 1, 0]]).ravel()
    with pytest.raises(ValueError, match="b, c"):
        bradley_terry.require_connected(counts, MODELS[:3])
    bradley_terry.require_connected(np.array([0, 1, 1, 0]), MODELS[:2])
    assert np.isfinite(bradley_terry.strengths(counts.astype(float))).all()


def test_inversions_and_order_agreement_by_hand():
    row = Ranking("q", "x", ("a", "b", "c", "d"), (1, 2, 2, 3))  # five pairs of different rank
    scores = {"a": 3.0, "b": 5.0, "c": 3.0, "d": 1.0}
    assert bradley_terry.inversions(row, scores) == (1, 1, 5)
    queries = np.array([0, 1, 0, 0, 1])
    truth = np.array([3, 1, 2, 1, 1])
    scores = np.array([3, 0, 3, 4, 9])  # query 0: tie (half), wrong, wrong; query 1: truth tells nothing
    assert bradley_terry.order_agreement(scores, truth, queries) == pytest.approx(0.5 / 3)


def test_more_judgements_come_closer_to_the_truth():
    rng = np.random.default_rng(0)
    truth, queries = rng.integers(0, 9, 400), np.arange(400) // 4
    scores = truth[:, None] + rng.normal(0, 3, (400, 8))
    found = bradley_terry.curve(scores, truth, queries, repeats=10, seed=0)
    assert found.shape == (8, 10)
    means = found.mean(-1)
    assert means[0] < means[2] < means[7]
    assert found[7] == pytest.approx(np.full(10, found[7, 0]))  # all eight are the same panel each time
    assert found[7, 0] == pytest.approx(bradley_terry.order_agreement(scores.sum(-1), truth, queries))
