"""The chapter's tables: planted traits are found, empty judgements give empty tables."""

from random import Random

import numpy as np
import pandas as pd
import pytest

from mmrlhf_core.data.records import Response
from mmrlhf_study.annotation import agreement, campaign, pairs, report
from mmrlhf_study.annotation.records import SCALES
from mmrlhf_study.chapters import annotation_plots
from mmrlhf_study.miniworld import annotators, pool, questions, truth

QUERIES = pool.draw_pool(9, 120)
CATEGORY = report.categories(QUERIES)


def responses() -> list[Response]:
    rows = []
    for query in QUERIES:
        one = questions.question(query.id)
        for k, right in enumerate((0.1, 0.5, 0.9)):
            rng = Random(f"{query.id} {k}")
            text = one.answer if rng.random() < right else truth.corrupt(one, rng.choice(truth.corruptions(one)), k)
            rows.append(Response(f"{query.id}/{k}", query.id, f"model {k}", text))
    return rows


@pytest.fixture(scope="module")
def made() -> campaign.Campaign:
    people = list(annotators.panel(12, 1))
    people[2] = annotators.Annotator("ann-03", (-1.0, 0.0, 0.0), (0.3,) * 3, (0.9,) * 3)
    return campaign.simulate(people, QUERIES, responses(), 4, 20, 0.1, 0)


@pytest.fixture(scope="module")
def table(made) -> pd.DataFrame:
    return agreement.frame(pairs.latest(made.judgements))


def holds(rows: pd.DataFrame) -> bool:
    known = rows.dropna()
    return bool(((known["low"] <= known["value"]) & (known["value"] <= known["high"])).all()) and len(known) > 0


def test_agreement_has_every_class_scale_and_measure(table):
    found = report.agreement_table(table, CATEGORY, 100, 0)
    assert len(found) == (1 + len(set(CATEGORY.values()))) * 3 * 3
    assert holds(found)
    assert found.equals(report.agreement_table(table, CATEGORY, 100, 0))


def test_the_strict_annotator_stands_out(table):
    found = report.annotator_table(table, 100, 0)
    strict = found[(found["measure"] == "bias") & (found["scale"] == "helpfulness")].set_index("annotator")
    assert strict["value"].idxmin() == "ann-03"
    assert strict.loc["ann-03", "high"] < -0.3
    assert set(found["measure"]) == {"weighted kappa", "equals majority", "bias", "spread"}


def test_strengths_times_and_histograms(made, table):
    matrix, strengths = report.strength_table(made.panel, made.responses, 100, 0)
    assert list(strengths.index) == ["model 2", "model 1", "model 0"]
    assert holds(strengths)
    assert np.allclose((matrix + matrix.T).to_numpy()[~np.eye(3, dtype=bool)], 1)
    times = report.time_table(table, CATEGORY, 100, 0)
    assert holds(times)
    by_hand = table.groupby(["query", "annotator"])["seconds"].sum().mean()
    assert times.loc["all", "value"] == pytest.approx(by_hand)
    counts = report.score_table(table)
    assert (counts.sum() == len(table)).all()
    assert list(counts.columns) == list(SCALES)


def test_biases_and_length(made, table):
    texts = {one.id: one.text for one in made.responses}
    assert holds(report.bias_table(table, texts, 100, 0))
    found = report.longer_table(made.panel, made.responses, CATEGORY, 100, 0)
    assert holds(found)
    assert found.loc["all", "pairs"] == found["pairs"].drop("all").sum()


def test_a_judge_that_is_the_panel_inverts_nothing_and_its_opposite_all(made):
    scores = {name: -float(rank) for one in made.panel for name, rank in zip(one.responses, one.ranks, strict=True)}
    same = report.inversion_table(made.panel, scores, CATEGORY, 50, 0)
    assert (same["value"] == 0).all()
    other = report.inversion_table(made.panel, {name: -score for name, score in scores.items()}, CATEGORY, 50, 0)
    assert (other[other["outcome"] != "tied"]["value"] == 1).all()
    flat = report.inversion_table(made.panel, dict.fromkeys(scores, 0.0), CATEGORY, 50, 0)
    assert (flat[flat["outcome"] == "tied"]["value"] == 1).all()
    assert flat[flat["outcome"] == report.TOLD]["value"].isna().all()


def test_more_annotators_come_closer(made, table):
    text = {one.id: one for one in made.responses}
    score = {name: float(annotators.verdict(one.text, one.query.partition("~")[0]).score) for name, one in text.items()}
    found = report.enough_table(table, score, [one.id for one in made.responses if one.responder != "annotator"], 20, 0)
    assert len(found) == 12
    assert found["value"].iloc[0] < found["value"].iloc[-1]


def test_without_judgements_tables_are_empty():
    empty = agreement.frame([])
    assert report.agreement_table(empty, {}, 10, 0).empty
    assert report.annotator_table(empty, 10, 0).empty
    assert report.bias_table(empty, {}, 10, 0).empty
    assert report.time_table(empty, {}, 10, 0).empty
    enough = report.enough_table(empty, {}, [], 10, 0)
    assert enough.empty
    assert not annotation_plots.curve(enough, "x").axes[0].lines[0].get_xdata().size


def test_figures_draw_every_row(made, table):
    figure = annotation_plots.by_scale(
        report.agreement_table(table, CATEGORY, 50, 0).query("measure == 'alpha'"), "class", "x", 0
    )
    assert len(figure.axes[0].get_yticks()) == 1 + len(set(CATEGORY.values()))
    assert len(annotation_plots.histograms(report.score_table(table)).axes) == 3
    matrix, strengths = report.strength_table(made.panel, made.responses, 20, 0)
    assert len(annotation_plots.matrix(matrix, "x").axes[0].texts) == 6
    assert len(annotation_plots.intervals(strengths, "x").axes[0].get_yticks()) == 3
