"""The sentences and headlines of chapter 02 say what the numbers show, and leave out what was not measured."""

import pandas as pd
import pytest

from mmrlhf_core.data.records import SCALES, Pair
from mmrlhf_study.annotation import report
from mmrlhf_study.chapters import annotation
from mmrlhf_study.chapters.intervals import Estimate

ENDS = list(report.INTERVAL_COLUMNS)


def table(rows, names):
    return pd.DataFrame([(*row, 0.5, 0.4, 0.6) for row in rows], columns=[*names, *ENDS])


AGREED = table(
    [(group, scale, "alpha") for group in ("all", "safety") for scale in SCALES], ["class", "scale", "measure"]
)
OUTCOMES = [("all", "inverted", 9), ("all", "tied", 9), ("all", report.TOLD, 9)]
INVERTED = table(OUTCOMES, ["class", "outcome", "pairs"])
CASES = table([("odd", "people"), ("odd", "model judge")], ["kind", "judge"])
ENOUGH = table([(1,), (2,), (3,)], ["annotators"])


def by_name(*rows):
    return pd.DataFrame([row[1:] for row in rows], index=[row[0] for row in rows], columns=ENDS)


STRENGTHS = by_name(("a", 1, 0.9, 1.1), ("b", -1, -1.1, -0.9))
LONGER = by_name(("all", 0.6, 0.55, 0.65))
BIASES = by_name(("length", -1.0, -1.2, -0.8), ("list", 0.1, -0.1, 0.3))


def test_one_sentence_per_finding_with_its_numbers():
    said = annotation.sentences(AGREED, STRENGTHS, ENOUGH, INVERTED, CASES, LONGER, BIASES)
    assert said[3] == "On the safety queries alone, ethics has alpha 0.50 [0.40, 0.60]."
    assert said[4] == "The strongest responder is a at 1.00 [0.90, 1.10], the weakest b at -1.00 [-1.10, -0.90]."
    assert said[5] == "Pairs ordered as the truth orders them, by number of judgements: 1: 0.500, 3: 0.500."
    assert "more often than not: 0.60 [0.55, 0.65]" in said[6]
    assert said[7] == "Change of the overall score with length: -1.00 [-1.20, -0.80]."
    assert said[8] == "Change of the overall score with list: 0.10 [-0.10, 0.30], which may be none."
    assert "of those it tells apart it turns 0.50 [0.40, 0.60] around" in said[9]
    assert said[10].endswith("(intervals overlap).")


@pytest.mark.parametrize(("low", "high", "side"), [(0.2, 0.4, "less often"), (0.4, 0.6, "about as often as not")])
def test_what_an_interval_does_not_show_is_not_said(low, high, side):
    longer = by_name(("all", 0.5, low, high))
    assert side in annotation.sentences(AGREED, STRENGTHS, ENOUGH, INVERTED, CASES, longer, BIASES)[6]


def test_published_pairs_leave_only_what_they_hold():
    one = STRENGTHS[:1]
    said = annotation.sentences(AGREED[:0], one, ENOUGH[:0], INVERTED[:0], CASES[:0], LONGER, BIASES[:0])
    assert len(said) == 1
    heads = annotation.headlines(
        AGREED[:0], INVERTED[:0], CASES[:0], Estimate(0.7, 0.6, 0.8), "published pairs"
    )
    assert [(head.label, head.world) for head in heads] == [("Share of possible pairs kept", "published pairs")]


def test_right_share_by_hand():
    pairs = [Pair("q", a, b) for a, b in (("x", "y"), ("y", "z"), ("z", "x"), ("x", "w"))]
    scores = {"x": 3.0, "y": 2.0, "z": 1.0, "w": 3.0}  # x > y and y > z are right, z > x is wrong, x and w are equal
    assert annotation.right_share(pairs, scores) == pytest.approx(2 / 3)
    assert annotation.right_share(pairs, {}) is None
