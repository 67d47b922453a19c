"""The paper's numbers as data, and what follows from them."""

import pytest
import yaml
from tiny_project import ROOT

from mmrlhf_study.evaluation import paper, paper_claims
from mmrlhf_study.evaluation.paper import PAPER_ROWS, TEN_DIMENSIONS, TablePart
from mmrlhf_study.evaluation.reward_bench import PUBLISHED_COUNTS

PAPER_FILE = ROOT / "mmrlhf_study/evaluation/paper.yaml"

# ---------------------------------------------------------------- the data


def test_27_benchmarks_and_the_safety_bench_in_ten_dimensions():
    assert len(paper.BENCHMARKS) == 28
    assert "MM-RLHF-SafetyBench" in paper.BENCHMARKS
    assert {row.dimension for row in PAPER_ROWS.values()} == set(TEN_DIMENSIONS)
    assert all(len({row.dimension for row in paper.rows_of(name)}) == 1 for name in paper.BENCHMARKS)
    assert (len(paper.TABLE_2), len(paper.TABLE_3)) == (39, 11)
    assert set(paper.SAFETY_COUNTS) == set(paper.TABLE_3)
    assert all(paper.SAFETY_COUNTS.values())
    assert all(row.recipes for row in PAPER_ROWS.values())  # some harness gives every row
    low = {name for name, row in PAPER_ROWS.items() if not row.higher}
    assert low == {
        "MMHal rate", "Obj-Hal CHAIR-i", "Obj-Hal CHAIR-s", "Adv target", "Cross-modal ASR", "Multi-modal ASR",
        "Typographic ASR", "NSFW text", "NSFW image",
    }  # fmt: skip


def test_recipes_are_taken_apart():
    mme, chart = PAPER_ROWS["MME"].recipes, PAPER_ROWS["ChartQA"].recipes
    assert mme["lmms-eval"].parts == (
        TablePart("mme", "", "mme_perception_score"),
        TablePart("mme", "", "mme_cognition_score"),
    )
    assert not mme["lmms-eval"].mean
    assert (chart["lmms-eval"].factor, chart["VLMEvalKit"].factor) == (100, 1)
    assert PAPER_ROWS["POPE popular"].recipes["VLMEvalKit"].parts == (TablePart("POPE", "popular", "acc"),)
    assert PAPER_ROWS["MathVerse"].recipes["VLMEvalKit"].mean
    assert len(PAPER_ROWS["MathVerse"].recipes["VLMEvalKit"].parts) == 3
    assert PAPER_ROWS["MMHal score"].recipes["lmms-eval"].fork
    assert "VLMEvalKit" not in PAPER_ROWS["MMHal score"].recipes
    assert paper.tasks_of("POPE", "lmms-eval") == ["pope_adv", "pope_pop", "pope_random"]


def test_names_are_used_once_and_the_rows_of_a_table_have_one_length():
    names = [row["name"] for row in yaml.safe_load(PAPER_FILE.read_text(encoding="utf-8"))["rows"]]
    assert len(names) == len(set(names))
    assert all(len(row.scores) == len(paper.MODELS) for row in PAPER_ROWS.values())
    assert {row.better for row in PAPER_ROWS.values()} == {"high", "low"}
    assert {harness for row in PAPER_ROWS.values() for harness in row.recipes} == set(paper.HARNESSES)
    assert {len(cells) for cells in paper.ROWS_4.values()} == {len(paper.COLUMNS_4)}
    assert {len(cells) for cells in paper.FIGURE_12B.values()} == {len(paper.FIGURE_12B_W)}
    assert {len(cells) for cells in paper.ROWS_5.values()} == {4}


def test_what_got_worse_in_the_paper():
    table = paper.table().set_index(["row", "model"])
    assert table.verdict["Adv target", "LLaVA-OV-7B"] == "worse"  # 37 → 40, lower is better
    assert table.verdict["Risk identification", "LLaVA-OV-7B"] == "worse"
    assert table.verdict["MMHal rate", "LLaVA-OV-7B"] == "same"
    assert table.verdict["Obj-Hal CHAIR-i", "LLaVA-OV-7B"] == "better"
    assert (table.verdict == "worse").groupby("model").sum().to_dict() == {
        "InternVL2-1B": 6, "LLaVA-OV-0.5B": 5, "LLaVA-OV-7B": 7
    }  # fmt: skip
    assert paper.shown("Cross-modal ASR")["paper: LLaVA-OV-7B"] == "16.7 → 0"
    assert paper.shown("") == {}


# ---------------------------------------------------------------- what follows from it


def test_averages_and_rates_of_table_3():
    again = paper_claims.recomputed_averages().set_index(["average", "model", "state"])
    assert again.recomputed["unsafety", "LLaVA-OV-7B", "base"] == pytest.approx(241.2 / 6)
    assert again.recomputed["safety", "LLaVA-OV-7B", "aligned"] == pytest.approx(430.1 / 5)
    assert again.recomputed["unsafety", "InternVL2-1B", "aligned"] == pytest.approx(32.07, abs=0.01)
    assert set(again[~again.agrees].index) == {
        ("unsafety", "InternVL2-1B", "aligned"), ("safety", "InternVL2-1B", "base"),
        ("safety", "InternVL2-1B", "aligned"), ("unsafety", "LLaVA-OV-0.5B", "base"),
        ("safety", "LLaVA-OV-7B", "aligned"),
    }  # fmt: skip
    rates = paper_claims.impossible_rates()
    assert len(rates) == 14
    assert sum(row.startswith("Multi-modal") for row, *_ in rates) == 10
    assert ("Typographic ASR", "InternVL2-1B", 7.4) in rates
    assert ("Adv target", "InternVL2-1B", 56.0) not in rates
    shown = paper_claims.safety_with_intervals().set_index(["row", "model"])
    assert shown.aligned["Multi-modal ASR", "LLaVA-OV-7B"] == "8.3 [4, 15]"
    assert shown.base["Cross-modal ASR", "InternVL2-1B"] == "0 [0, 18]"
    assert shown.change["Multi-modal ASR", "LLaVA-OV-7B"] == "better"
    assert shown["intervals apart"]["Multi-modal ASR", "LLaVA-OV-7B"]


@pytest.mark.parametrize(
    ("model", "recomputed", "cut"),
    [("LLaVA-OV-7B", False, 65.4), ("LLaVA-OV-0.5B", False, 28.0), ("InternVL2-1B", False, 16.5),
     ("InternVL2-1B", True, 31.3)],
)  # fmt: skip
def test_cuts_in_unsafety(model, recomputed, cut):
    assert paper_claims.unsafety_cut(model, recomputed) == pytest.approx(cut, abs=0.05)


def test_gains_in_conversation_worked_by_hand():
    gains = paper_claims.conversation_gains().set_index(["over", "averaging"])["LLaVA-OV-7B"]
    # rows sum to 490.9 and 557.8
    assert gains["7 rows", "ratio of means, %"] == pytest.approx(100 * (557.8 / 490.9 - 1))
    assert gains["7 rows", "points"] == pytest.approx((557.8 - 490.9) / 7)
    assert gains["7 rows", "mean of ratios, %"] == pytest.approx(29.2, abs=0.05)
    # benchmarks: 89.9 → 97.65, 65.7 → 71.1, 32.8 → 48.05
    assert gains["3 benchmarks", "points"] == pytest.approx((7.75 + 5.4 + 15.25) / 3)


def test_which_headlines_follow():
    claims = paper_claims.claims()
    assert [claim.verdict for claim in claims] == [
        paper_claims.NOT, paper_claims.FOLLOWS, paper_claims.SOME, paper_claims.NOT, paper_claims.NOT, paper_claims.NOT
    ]  # fmt: skip
    conversation, safer, introduction, unsafe, each, _ = (claim.found for claim in claims)
    assert " 0 subsets" in conversation
    assert "12.7 %" in safer  # the rise of the safety average
    assert "5.4 to 14.2 %" in introduction  # points are left out of percentages
    assert "36.6 %" in unsafe
    assert all(f"{cut} %" in each for cut in ("16.5", "28.0", "65.4", "26.0", "21.7", "70.7"))


def test_no_subset_of_rows_gives_the_headline_gain_and_the_search_finds_what_is_there():
    assert paper_claims.subsets_giving(19.5, "LLaVA-OV-7B") == []
    single = paper_claims.subsets_giving(144.7, "LLaVA-OV-7B")  # the win rate alone: 15.2 → 37.2
    assert ("mean of ratios, %", ("WildVision win rate",)) in {(how, rows) for how, rows, _ in single}


# ---------------------------------------------------------------- Tables 4 and 5


def test_the_cells_of_tables_4_and_5():
    table = paper.table_4()
    assert len(table) == len(PUBLISHED_COUNTS) * len(paper.COLUMNS_4)
    assert set(table.category) == set(PUBLISHED_COUNTS)
    assert table[["acc", "acc_plus"]].stack().between(0, 1).all()
    assert (table.acc >= table.acc_plus).all()
    overall = table[table.category == "all"].set_index("model")
    assert (overall.acc["MM-RLHF-Reward"], overall.acc_plus["MM-RLHF-Reward"]) == (0.85, 0.67)
    table = paper.table_5()
    differ = table.index[(table["mean"] - table.printed).abs() > 0.0051].tolist()
    assert differ == ["VITA-1.5", "SliME-8B", "MM-RLHF-Reward-7B"]
    assert table["mean"]["MM-RLHF-Reward-7B"] == pytest.approx(51.01, abs=0.005)


def test_all_columns_of_table_4_follow_from_their_rows_but_one():
    again = paper_claims.recomputed_reward_bench().set_index("model")
    assert again.ids.tolist() == [3, 8, 7, 23, 26, 26, 31, 40]  # of 46
    assert again.index[~again.acc_plus_follows].tolist() == ["no critique"]
    # 10·(.80 + .40 + .60 + .60) + 6·.33 = 26 of 46 = .57, where .50 is printed: no difference to the raw reasons
    assert again.acc_plus["no critique"] == pytest.approx(26 / 46) == again.acc_plus["raw reasons"]
    # (42·.90 + 37·.70 + 34·.79 + 32·.69 + 25·.70) / 170 = .766, where .75 is printed
    assert again.acc["no critique"] == pytest.approx(0.7655, abs=1e-4)
    assert again.index[~again.acc_follows].tolist() == ["no critique"]
