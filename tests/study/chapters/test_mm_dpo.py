"""Chapter 04's report: sentences that follow from the numbers, front-page numbers beside the paper's, and Fig. 5."""

import numpy as np
import pandas as pd

from mmrlhf_study.chapters import mm_dpo
from mmrlhf_study.evaluation import paper


def averages(**values):
    """Mean scores of arms from {arm: score}, each with an interval of ±0.1."""
    rows = [(arm, "average", v, v - 0.1, v + 0.1, 9) for arm, v in values.items()]
    return pd.DataFrame(rows, columns=["arm", "family", "value", "low", "high", "questions"])


def measured(width, measures, **arms):
    """Measures of arms from {arm: values}, each with an interval of ±width."""
    rows = [
        (a, m, v, v - width, v + width) for a, values in arms.items() for m, v in zip(measures, values, strict=True)
    ]
    return pd.DataFrame(rows, columns=["arm", "measure", "value", "low", "high"])


def comparisons(**verdicts):
    """Differences of 1 from these arms, with their verdicts."""
    rows = [(arm, 1.0, 0.5, 1.5, 0.0125, verdict) for arm, verdict in verdicts.items()]
    return pd.DataFrame(rows, columns=["against", "difference", "low", "high", "p (Holm)", "verdict"])


def test_reward_hacking_is_reported_only_where_intervals_show_it():
    changes = measured(1, ("reward", "score"), mm_dpo=(2, 2), dpo=(2, -2), sft=(0.5, 2), odpo=(2, 0.5))
    both, hacked, without = mm_dpo.hacking(changes)
    assert both.endswith(": MM-DPO.")
    assert hacked.endswith(": DPO.")
    assert without.endswith(": SFT on chosen.")


def test_the_price_of_a_score_is_reported_where_intervals_lie_apart():
    means = averages(base=1, dpo=2, sft=2, odpo=1.1)
    style = measured(0.1, ("right", "claims"), base=(0.5, 3), dpo=(0.2, 1), sft=(0.5, 1), odpo=(0.1, 1))
    above, right, claims = mm_dpo.price(means, style).removesuffix(".").split(". ")
    assert above.endswith(": DPO, SFT on chosen")
    assert right.endswith("right answers: DPO")
    assert claims.endswith("claims: DPO, SFT on chosen")
    assert mm_dpo.price(averages(base=1, dpo=2), style).endswith(". Fewer claims: DPO.")
    equal = measured(0.1, ("right", "claims"), base=(1, 3), sft=(1, 3))
    assert mm_dpo.price(averages(base=1, sft=2), equal).count(": none") == 2


def test_no_arm_above_the_base_is_said_without_a_list():
    style = measured(0.1, ("right", "claims"), base=(0.5, 3), dpo=(0.2, 1))
    for score in (1.1, 0.5):  # intervals overlap; the arm is below the base
        sentence = mm_dpo.price(averages(base=1, dpo=score), style)
        assert sentence.startswith("No arm")
        assert "DPO" not in sentence


def test_a_gain_has_to_survive_and_every_comparison_has_its_verdict():
    none = mm_dpo.explanations(comparisons(dpo="not distinguished", shuffled="better"))
    every = mm_dpo.explanations(comparisons(dpo="better", shuffled="better", sft="better"))
    some = mm_dpo.explanations(comparisons(dpo="better", shuffled="not distinguished", sft="better"))
    assert "no gain" in none
    assert "every control" in every
    assert "no control" in mm_dpo.explanations(comparisons(dpo="better", odpo="better"))
    assert "worse than DPO: no gain" in mm_dpo.explanations(comparisons(dpo="worse", sft="better"))
    assert "not compared" in mm_dpo.explanations(comparisons(sft="better"))
    assert "MM-DPO, shuffled δ" in some
    assert "SFT on chosen" not in some
    first, second = mm_dpo.against(comparisons(dpo="better", sft="not distinguished"))
    assert "better than DPO" in first
    assert "+1.00 [+0.50, +1.50], p = 0.013" in first
    assert "cannot be distinguished from SFT on chosen" in second


def test_headlines_stand_beside_the_paper_and_name_their_world():
    means = averages(mm_dpo=2.5, dpo=1.5, base=0.5)
    lines = {
        line.label: line for line in mm_dpo.headlines(means, comparisons(dpo="better", odpo="better"), "MiniWorld")
    }
    assert lines["MM-DPO less DPO"].value == 1
    assert lines["MM-DPO less DPO"].paper.startswith("+1.6")
    assert "MM-DPO less DPO with offset" not in lines, "only the arms of the table"
    assert {line.world for line in lines.values()} == {"MiniWorld"}
    assert mm_dpo.order(means).count("MM-DPO > DPO > base") == 2, "here and in the paper"
    assert "DPO = MM-DPO > base" in mm_dpo.order(averages(mm_dpo=1.5, dpo=1.5, base=0.5))


def test_figure_5_is_the_papers_curve():
    figure = mm_dpo.scaling_figure(paper.CURVES)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert set(lines) == {f"k = {k:g}" for k in paper.CURVES}
    for k in paper.CURVES:
        delta, drawn = lines[f"k = {k:g}"].get_data()
        np.testing.assert_allclose(drawn, 1 - np.exp(-k * np.asarray(delta)), atol=1e-12)
