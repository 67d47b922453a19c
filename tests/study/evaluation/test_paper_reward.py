"""The paper's tables as data: their shape, their own arithmetic, and the column that does not follow from its rows."""

import pytest

from mmrlhf_study.evaluation import paper_reward as paper
from mmrlhf_study.evaluation.reward_bench import PUBLISHED_COUNTS


def test_every_cell_is_a_share_and_every_column_is_whole():
    made = paper.table_4()
    assert len(made) == len(PUBLISHED_COUNTS) * len(paper.COLUMNS_4)
    assert set(made.category) == set(PUBLISHED_COUNTS)
    assert made[["acc", "acc_plus"]].stack().between(0, 1).all()
    assert (made.acc >= made.acc_plus).all()
    overall = made[made.category == "all"].set_index("model")
    assert (overall.acc["MM-RLHF-Reward"], overall.acc_plus["MM-RLHF-Reward"]) == (0.85, 0.67)


def test_all_columns_follow_from_their_rows_but_one():
    made = paper.recomputed().set_index("model")
    assert made.ids.tolist() == [3, 8, 7, 23, 26, 26, 31, 40]  # of 46
    assert made.index[~made.acc_plus_follows].tolist() == ["no critique"]
    # 10·(.80 + .40 + .60 + .60) + 6·.33 = 26 of 46 = .57, where .50 is printed: no difference to the raw reasons
    assert made.acc_plus["no critique"] == pytest.approx(26 / 46) == made.acc_plus["raw reasons"]
    # (42·.90 + 37·.70 + 34·.79 + 32·.69 + 25·.70) / 170 = .766, where .75 is printed
    assert made.acc["no critique"] == pytest.approx(0.7655, abs=1e-4)
    assert made.index[~made.acc_follows].tolist() == ["no critique"]


def test_the_plain_means_of_table_5():
    made = paper.table_5()
    differ = made.index[(made["mean"] - made.printed).abs() > 0.0051].tolist()
    assert differ == ["VITA-1.5", "SliME-8B", "MM-RLHF-Reward-7B"]
    assert made["mean"]["MM-RLHF-Reward-7B"] == pytest.approx(51.01, abs=0.005)
