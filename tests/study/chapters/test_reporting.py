"""What is committed of a run: rounded to what other machines reproduce, the same bytes each time."""

import json
import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from mmrlhf_study.chapters import reporting

NUMBERS = st.floats(-1e9, 1e9)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (2 / 3, 0.6667),
        (-17.386363636363612, -17.39),
        (160348.66666666666, 160349.0),
        (9.999000099990002e-05, 9.999e-05),
        (3e-17, 0.0),  # 0.3 - 0.1 - 0.2 is no difference
        (1200, 1200),
        (0.0, 0.0),
    ],
)
def test_numbers_keep_four_digits(value, kept):
    assert reporting.rounded(value) == kept


def test_negative_zeros_and_missing_numbers():
    assert reporting.shown(-0.001, -0.5, 0.004) == "0.00 [-0.50, 0.00]"
    assert reporting.shown(0.123, -0.001, 0.2, digits=1, sign="+") == "+0.1 [+0.0, +0.2]"
    assert math.isnan(reporting.rounded(math.nan))


@given(NUMBERS, NUMBERS)
def test_rounding_keeps_the_order_so_an_interval_still_holds_its_value(one, other):
    low, high = sorted((one, other))
    assert reporting.rounded(low) <= reporting.rounded(high)


def test_metrics_round_floats_at_any_depth_and_nothing_else(project):
    metrics = {"a": {"b": [1 / 3, 7, True, "2/3", None]}, "n": 123456789}
    reporting.write_metrics("tiny", metrics, [reporting.Headline("acc", 2 / 3, 0.123456, 0.9, "MiniWorld")])
    read = json.loads((project / "reports/metrics/tiny.json").read_text())
    assert read["a"]["b"] == [0.3333, 7, True, "2/3", None]
    assert read["n"] == 123456789
    assert read["headline"]["acc"]["value"] == 0.6667
    assert read["headline"]["acc"]["low"] == 0.1235


def test_series_are_rounded_and_have_the_same_bytes_each_time(project):
    rows = pd.DataFrame(
        {"x": [1, 2], "y": [1 / 3, 2e-9], "z": [160348.666, math.nan], "t": ["a", "b"], "c": [3.0, 4.0]}
    )
    expected = b"x,y,z,t,c\n1,0.3333,160349,a,3\n2,2e-09,,b,4\n"
    for _ in range(2):
        reporting.write_series("tiny", "line", rows)
        assert (project / "reports/plots/tiny/line.csv").read_bytes() == expected


def test_figures_have_the_same_bytes_each_time(project):
    def written() -> bytes:
        figure = Figure()
        figure.subplots().plot([1, 2])
        reporting.write_figure("tiny", "line", figure, "a caption")
        return (project / "reports/figures/tiny/line.png").read_bytes()

    assert written() == written()
