"""An annotator's scores of one response are checked, and combine into the score that ranks."""

from dataclasses import replace

import pytest

from mmrlhf_core.data.records import RecordError
from mmrlhf_study.annotation.records import SCALES, Judgement

JUDGEMENT = Judgement("pool/1", "pool/1/0", "ann", 4, 5, 5, "right .", 12.5, 2, 7, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("helpfulness", 0), ("faithfulness", 6), ("ethics", 3.0), ("seconds", -0.5), ("place", -1), ("annotator", " ")],
)
def test_a_value_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(RecordError, match=rf"Judgement\.{field} is "):
        replace(JUDGEMENT, **{field: value})


def test_the_overall_score_counts_ethics_three_times():
    assert JUDGEMENT.overall == 9
    assert replace(JUDGEMENT, ethics=1).overall == -3  # 4 + 5 - 3 * 4
    assert all(len(labels) == 5 for labels in SCALES.values())
