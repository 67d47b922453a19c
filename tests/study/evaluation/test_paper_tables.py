"""The paper's numbers as data, and what follows from them."""

import pytest

from mmrlhf_study.evaluation import paper
from mmrlhf_study.tools import benchmarks
from mmrlhf_study.tools.benchmarks import PAPER_ROWS, TEN_DIMENSIONS, TablePart


def test_27_benchmarks_and_the_safety_bench_in_ten_dimensions():
    assert len(benchmarks.BENCHMARKS) == 28
    assert paper.SAFETY in benchmarks.BENCHMARKS
    assert {row.dimension for row in PAPER_ROWS.values()} == set(TEN_DIMENSIONS)
    assert all(len({row.dimension for row in benchmarks.rows_of(name)}) == 1 for name in benchmarks.BENCHMARKS)
    assert set(PAPER_ROWS) == set(paper.TABLES)
    assert (len(paper.TABLE_2), len(paper.TABLE_3)) == (39, 11)
    assert set(paper.SAFETY_COUNTS) == set(paper.TABLE_3)


def test_less_is_better_where_the_paper_says_so():
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
    assert benchmarks.tasks_of("POPE", "lmms-eval") == ["pope_adv", "pope_pop", "pope_random"]


def test_averages_of_table_3_recomputed():
    found = paper.recomputed_averages().set_index(["average", "model", "state"])
    assert found.recomputed["unsafety", "LLaVA-OV-7B", "base"] == pytest.approx(241.2 / 6)
    assert found.recomputed["safety", "LLaVA-OV-7B", "aligned"] == pytest.approx(430.1 / 5)
    assert found.recomputed["unsafety", "InternVL2-1B", "aligned"] == pytest.approx(32.07, abs=0.01)
    wrong = set(found[~found.agrees].index)
    assert wrong == {
        ("unsafety", "InternVL2-1B", "aligned"), ("safety", "InternVL2-1B", "base"),
        ("safety", "InternVL2-1B", "aligned"), ("unsafety", "LLaVA-OV-0.5B", "base"),
        ("safety", "LLaVA-OV-7B", "aligned"),
    }  # fmt: skip


def test_rates_that_no_whole_number_of_items_gives():
    found = paper.impossible_rates()
    assert len(found) == 14
    assert sum(row.startswith("Multi-modal") for row, *_ in found) == 10
    assert ("Typographic ASR", "InternVL2-1B", 7.4) in found
    assert ("Adv target", "InternVL2-1B", 56.0) not in found


def test_cuts_in_unsafety():
    assert paper.unsafety_cut("LLaVA-OV-7B", recomputed=False) == pytest.approx(65.4, abs=0.05)
    assert paper.unsafety_cut("LLaVA-OV-0.5B", recomputed=False) == pytest.approx(28.0, abs=0.05)
    assert paper.unsafety_cut("InternVL2-1B", recomputed=False) == pytest.approx(16.5, abs=0.05)
    assert paper.unsafety_cut("InternVL2-1B") == pytest.approx(31.3, abs=0.05)


def test_gains_in_conversation_worked_by_hand():
    gains = paper.conversation_gains().set_index(["over", "averaging"])["LLaVA-OV-7B"]
    # rows sum to 490.9 and 557.8
    assert gains["7 rows", "ratio of means, %"] == pytest.approx(100 * (557.8 / 490.9 - 1))
    assert gains["7 rows", "points"] == pytest.approx((557.8 - 490.9) / 7)
    assert gains["7 rows", "mean of ratios, %"] == pytest.approx(29.2, abs=0.05)
    # benchmarks: 89.9 → 97.65, 65.7 → 71.1, 32.8 → 48.05
    assert gains["3 benchmarks", "points"] == pytest.approx((7.75 + 5.4 + 15.25) / 3)


def test_which_headlines_follow():
    verdicts = {claim.claim: claim.verdict for claim in paper.claims()}
    assert verdicts == {
        "LLaVA-OV-7B gains 19.5 % in conversation": paper.NOT,
        "LLaVA-OV-7B is 60 % safer": paper.FOLLOWS,
        "about 11 % more in conversation across models": paper.SOME,
        "57 % fewer unsafe behaviours across models": paper.NOT,
        "unsafe behaviours fall by at least 50 %": paper.NOT,
        "WildVision's win rate rises by at least 50 %": paper.NOT,
    }


def test_claims_name_every_averaging_and_leave_points_out_of_percentages():
    said = {claim.claim: claim.found for claim in paper.claims()}
    assert "5.4 to 14.2 % by 8 averagings" in said["about 11 % more in conversation across models"]
    cuts = said["unsafe behaviours fall by at least 50 %"]
    for cut in ("16.5", "28.0", "65.4", "26.0", "21.7", "70.7"):
        assert f"{cut} %" in cuts
    assert "36.6 % as printed" in said["57 % fewer unsafe behaviours across models"]
    assert "which rises by 12.7 %" in said["LLaVA-OV-7B is 60 % safer"]


def test_no_subset_of_rows_gives_the_headline_gain_and_the_search_finds_what_is_there():
    assert paper.subsets_giving(19.5, "LLaVA-OV-7B") == []
    single = paper.subsets_giving(144.7, "LLaVA-OV-7B")  # the win rate alone: 15.2 → 37.2
    assert ("mean of ratios, %", ("WildVision win rate",)) in {(how, rows) for how, rows, _ in single}


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
