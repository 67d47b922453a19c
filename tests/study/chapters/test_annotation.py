"""The tables, figures and headlines of chapter 02: planted traits are found, empty judgements give empty tables."""

import annotation_world as world
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmrlhf_core.data.records import Pair, Query, Ranking, Response
from mmrlhf_study.annotation import agreement, campaign, pairs
from mmrlhf_study.annotation.records import SCALES
from mmrlhf_study.chapters import annotation
from mmrlhf_study.chapters.intervals import Estimate
from mmrlhf_study.chapters.reporting import ENDS

CATEGORY = annotation.categories(world.QUERIES)
CLASSES = ["all", *sorted(set(CATEGORY.values()))]


@pytest.fixture(scope="module")
def made() -> campaign.Campaign:
    return world.result()


@pytest.fixture(scope="module")
def table(made) -> pd.DataFrame:
    return agreement.frame(pairs.latest(made.judgements))


@pytest.fixture(scope="module")
def agreed(table) -> pd.DataFrame:
    return annotation.agreement_table(table, CATEGORY, 100, 0)


def holds(rows: pd.DataFrame) -> bool:
    known = rows.dropna()
    return bool(((known["low"] <= known["value"]) & (known["value"] <= known["high"])).all()) and len(known) > 0


def test_agreement_has_every_class_scale_and_measure(table, agreed):
    assert list(agreed) == ["class", "scale", "measure", "queries", *ENDS]
    assert list(dict.fromkeys(agreed["class"])) == CLASSES
    assert len(agreed) == len(CLASSES) * 3 * 3
    assert holds(agreed)
    assert agreed.equals(annotation.agreement_table(table, CATEGORY, 100, 0))


def test_the_strict_annotator_stands_out(table):
    found = annotation.annotator_table(table, 100, 0)
    strict = found[(found["measure"] == "bias") & (found["scale"] == "helpfulness")].set_index("annotator")
    assert strict["value"].idxmin() == world.STRICT.name
    assert strict.loc[world.STRICT.name, "high"] < -0.3
    assert set(found["measure"]) == {"weighted kappa", "equals majority", "bias", "spread"}


def test_strengths_times_histograms_and_biases_have_intervals(made, table):
    shares, strengths = annotation.strength_table(made.panel, made.responses, 100, 0)
    assert list(strengths["model"]) == ["model 2", "model 1", "model 0"]
    assert holds(strengths)
    assert np.allclose((shares + shares.T).to_numpy()[~np.eye(3, dtype=bool)], 1)
    times = annotation.time_table(table, CATEGORY, 100, 0).set_index("class")
    assert holds(times)
    assert times.loc["all", "value"] == pytest.approx(table.groupby(["query", "annotator"])["seconds"].sum().mean())
    counts = annotation.score_table(table)
    assert (counts.sum() == len(table)).all()
    assert list(counts.columns) == list(SCALES)
    slopes = annotation.bias_table(table, {one.id: one.text for one in made.responses}, 100, 0)
    assert holds(slopes)
    assert len(slopes) == 3
    longer = annotation.longer_table(made.panel, made.responses, CATEGORY, 100, 0).set_index("class")
    assert holds(longer)
    assert longer.loc["all", "pairs"] == longer["pairs"].drop("all").sum()


def test_longer_counts_only_pairs_of_different_length():
    said = [Response(name, "q", "m", "x" * size) for name, size in {"a": 5, "b": 3, "c": 3, "d": 4, "e": 4}.items()]
    orders = [Ranking("q1", "panel", ("a", "b", "c"), (2, 1, 3)), Ranking("q2", "panel", ("d", "e"), (1, 2))]
    rows = annotation.longer_table(orders, said, {"q1": "long", "q2": "mcq"}, 20, 0).set_index("class")
    assert rows["pairs"].to_dict() == {"all": 4, "long": 3, "mcq": 1}
    assert rows.loc["long", "value"] == 0.5  # 3 beats 5, 5 beats 3, 3 beats 3
    assert np.isnan(rows.loc["mcq", "value"])


def test_a_judge_that_is_the_panel_inverts_nothing_and_its_opposite_all(made):
    scores = {name: -float(rank) for one in made.panel for name, rank in zip(one.responses, one.ranks, strict=True)}

    def shares(score) -> pd.DataFrame:
        rows = annotation.inversion_table(
            made.panel, {name: score(one) for name, one in scores.items()}, CATEGORY, 50, 0
        )
        assert list(dict.fromkeys(rows["outcome"])) == list(annotation.OUTCOMES)
        return rows.pivot(index="class", columns="outcome", values="value")[list(annotation.OUTCOMES)]

    assert (shares(lambda one: one) == 0).all(axis=None)
    assert (shares(lambda one: -one) == [1, 0, 1]).all(axis=None)
    flat = shares(lambda one: 0.0)
    assert (flat.iloc[:, :2] == [0, 1]).all(axis=None)
    assert flat.iloc[:, 2].isna().all()


def test_more_annotators_come_closer(made, table):
    sampled = [one.id for one in made.responses if one.responder != "annotator"]
    found = annotation.enough_table(table, campaign.truth_scores(made), sampled, 20, 0)
    assert len(found) == 12
    assert found["value"].iloc[0] < found["value"].iloc[-1]


def test_cases_are_counted_per_kind_and_judge():
    rows = annotation.case_table(["a", "b", "a"], {"people": [1, 0.5, 0], "model": [1, 1, 1]}, 20, 0)
    assert rows[["kind", "judge", "cases", "value"]].to_numpy().tolist() == [
        ["a", "people", 2, 0.5], ["a", "model", 2, 1.0], ["b", "people", 1, 0.5], ["b", "model", 1, 1.0],
    ]  # fmt: skip


def test_without_judgements_tables_are_empty():
    empty = agreement.frame([])
    tables = [annotation.agreement_table(empty, {}, 10, 0), annotation.annotator_table(empty, 10, 0)]
    tables += [annotation.bias_table(empty, {}, 10, 0), annotation.time_table(empty, {}, 10, 0)]
    tables += [annotation.inversion_table([], {}, {}, 10, 0), annotation.case_table([], {}, 10, 0)]
    tables += [enough := annotation.enough_table(empty, {}, [], 10, 0), annotation.longer_table([], [], {}, 10, 0)]
    for rows in tables:
        assert rows.empty
        assert set(ENDS) <= set(rows)
    assert not annotation.curve(enough, "x").axes[0].lines[0].get_xdata().size


def test_figures_draw_every_row(made, table, agreed):
    figure = annotation.intervals(agreed.query("measure == 'alpha'"), "class", "x", 0)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == CLASSES
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == list(SCALES)
    assert len(annotation.histograms(annotation.score_table(table)).axes) == 3
    shares, strengths = annotation.strength_table(made.panel, made.responses, 20, 0)
    assert len(annotation.matrix(shares, "x").axes[0].texts) == 6
    plain = annotation.intervals(strengths, "model", "x")
    assert len(plain.axes[0].get_yticks()) == 3
    assert plain.axes[0].get_legend() is None


def test_written_figures_say_what_they_were_measured_on(project, agreed):
    figure = annotation.intervals(agreed.query("measure == 'alpha'"), "class", "x")
    annotation.write_figures({"alpha": figure, "cases": figure}, "published pairs")
    for name, measured_on in (("alpha", "published pairs"), ("cases", "MiniWorld")):
        with Image.open(project / f"reports/figures/annotation/{name}.png") as picture:
            assert measured_on in picture.text["Description"]


def test_headlines_hold_what_was_measured_and_leave_out_the_rest(agreed):
    nothing = [annotation.inversion_table([], {}, {}, 10, 0), annotation.case_table([], {}, 10, 0)]
    heads = annotation.headlines(agreed, *nothing, Estimate(0.7, 0.6, 0.8), "MiniWorld")
    assert [head.label.split()[-1] for head in heads] == [*SCALES, "kept"]
    alpha = agreed.query("`class` == 'all' and measure == 'alpha' and scale == 'ethics'").iloc[0]
    assert (heads[2].value, heads[2].low, heads[2].high) == tuple(alpha[list(ENDS)])
    assert (heads[3].value, heads[3].world, heads[0].paper) == (0.7, "MiniWorld", "")
    assert "72 %" in heads[3].paper
    nothing = [annotation.agreement_table(agreement.frame([]), {}, 10, 0), *nothing]
    (only,) = annotation.headlines(*nothing, Estimate(0.7, 0.6, 0.8), "published pairs")
    assert (only.value, only.world) == (0.7, "published pairs")


def test_right_and_kept_shares_by_hand():
    pair_list = [Pair("q", a, b) for a, b in (("x", "y"), ("y", "z"), ("z", "x"), ("x", "w"))]
    scores = {"x": 3.0, "y": 2.0, "z": 1.0, "w": 3.0}  # x > y and y > z are right, z > x is wrong, x and w are equal
    assert annotation.right_share(pair_list, scores) == pytest.approx(2 / 3)
    assert annotation.right_share(pair_list, {}) is None
    said = tuple(Response(name, "q", "m", name.lower()) for name in "xyzwW")  # w and W say the same: six possible pairs
    order = Ranking("q", "panel", tuple("xyzwW"), (1, 2, 3, 4, 4))
    result = campaign.Campaign((Query("q", "?", "text", ()),), said, (), (order,), (), 0, 0)
    assert annotation.kept_share(result, pair_list, 20, 0).value == pytest.approx(4 / 6)
