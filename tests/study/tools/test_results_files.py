"""Results files of both harnesses, made here in the layouts that they write."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrlhf_study.tools import results


def lmms(folder, tasks, name="20250101_120000_results.json", model="org/model-7b", limit=None, samples=None, **more):
    """A results file of lmms-eval; `samples` maps tasks to (original, effective)."""
    content = {
        "results": {task: {"alias": task, " ": " ", **numbers} for task, numbers in tasks.items()},
        "configs": {}, "versions": {}, "higher_is_better": {},
        "n-samples": {t: dict(zip(("original", "effective"), n, strict=True)) for t, n in (samples or {}).items()},
        "config": {"model": "llava_hf", "model_args": f"pretrained={model},device_map=auto", "limit": limit},
        "model_name": model, "model_name_sanitized": model.replace("/", "__"),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content | more))


def table(file, names, *rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows, columns=names)
    frame.to_csv(file, index=False) if file.suffix == ".csv" else frame.to_excel(file, index=False)


def mmstar(file, value):
    table(file, ["split", "Overall"], ["none", value])


def one(folder, model):
    """The results of the only model."""
    models = results.read(folder).models
    assert list(models) == [model]
    return models[model]


# ---------------------------------------------------------------- lmms-eval


def test_lmms_eval(tmp_path):
    lmms(tmp_path / "logs", {
        "pope_adv": {"pope_accuracy,none": 0.8708, "pope_accuracy_stderr,none": "N/A", "pope_f1_score,none": 0.86},
        "mme": {"mme_perception_score,none": 1580.5, "mme_cognition_score,none": 417},
        "mathvista_testmini_cot": {"gpt_eval_score,none": 59.1},
        "videochatgpt_gen": {"correctness,none": 3.0, "detailed_orientation,none": 2.5, "context,none": 3.5},
        "videochatgpt_temporal": {"submission,none": 2.0},
        "ai2d": {"exact_match,flexible-extract": 0.81},
        "gqa": {"exact_match,none": 0.62, "exact_match_stderr,none": 0.004},
        "mmstar": {"average,none": None},
    })  # fmt: skip
    model = one(tmp_path, "org/model-7b")
    assert model.values == pytest.approx({"POPE adversarial": 87.08, "MME": 1997.5, "MathVista cot": 59.1, "AI2D": 81})
    assert set(model.unknown) == {  # reported, not dropped, nor of a task that is used
        "lmms-eval gqa::exact_match = 0.62", "lmms-eval pope_adv::pope_f1_score = 0.86"
    }  # fmt: skip
    assert {text.partition(":")[0] for text in model.incomplete} == {"VideoChatGPT", "MMStar"}


def test_old_spelling_and_of_two_filters_the_plain_one(tmp_path):
    lmms(tmp_path, {"mme": {"mme_percetion_score,none": 1500, "mme/mme_cognition_score,none": 300}})
    assert one(tmp_path, "org/model-7b").values == {"MME": 1800}
    lmms(tmp_path, {"realworldqa": {"exact_match,flexible-extract": 0.5, "exact_match,none": 0.66}})
    model = one(tmp_path, "org/model-7b")
    assert model.values["RealWorldQA"] == pytest.approx(66)
    assert model.unknown == ("lmms-eval realworldqa::exact_match,flexible-extract = 0.5",)


@pytest.mark.parametrize(
    ("config", "model"),
    [
        ({"model": "vllm", "model_args": "device_map=auto,pretrained=models/base"}, "models/base"),
        ({"model": "vllm", "model_args": {"pretrained": "models/base"}}, "models/base"),
        ({"model": "openai", "model_args": "url=x"}, "openai (url=x)"),
        ({"model": "qwen2_5_vl", "model_args": ""}, "qwen2_5_vl (its defaults)"),
        (None, "lmms_eval/20250101_120000_results.json"),
    ],
)
def test_without_a_model_name_a_run_is_named_by_its_arguments_and_never_by_the_folder(tmp_path, config, model):
    lmms(tmp_path / "lmms_eval", {"mmstar": {"average,none": 0.6}}, model="", config=config)
    assert one(tmp_path, model).values == {"MMStar": 60}


def test_a_run_keeps_its_identity(tmp_path):
    judge = {"mmbench_cn_dev": {"metadata": {"gpt_eval_model_name": "gpt-4-0613"}}}
    lmms(tmp_path / "x", {"mmbench_cn_dev": {"gpt_eval_score,none": 60}}, limit=8, configs=judge)
    mmstar(tmp_path / "kit/T20250203_G12345678/kit_MMStar_gpt-4o_acc.csv", 0.5)
    runs = results.read(tmp_path).runs.to_dict("records")
    assert [list(run.values()) for run in sorted(runs, key=lambda run: run["harness"])] == [
        ["kit", "VLMEvalKit", "kit/T20250203_G12345678/kit_MMStar_gpt-4o_acc.csv", "20250203", "gpt-4o", "none"],
        ["org/model-7b", "lmms-eval", "x/20250101_120000_results.json", "20250101_120000", "gpt-4-0613", "limit 8"],
    ]


# ---------------------------------------------------------------- several runs


def test_a_limited_run_never_replaces_a_full_one(tmp_path):
    lmms(tmp_path, {"mmstar": {"average,none": 0.6}}, samples={"mmstar": (1500, 1500)})
    lmms(tmp_path, {"mmstar": {"average,none": 0.1}, "ai2d": {"exact_match,none": 0.5}}, "20250102_000000_results.json",
         limit=8, samples={"mmstar": (1500, 8), "ai2d": (3088, 8)})  # fmt: skip
    model = one(tmp_path, "org/model-7b")
    assert model.values == {"MMStar": 60, "AI2D": 50}
    assert model.limited == {"AI2D": "8 of 3,088 items"}
    (aside,) = model.set_aside
    assert "20250102_000000" in aside
    assert "8 of 1,500 items" in aside
    assert "MMStar 10" in aside  # what it gave
    shown = results.beside({"m": model}).set_index("row")
    assert (shown.m["MMStar"], shown.m["AI2D"]) == (60, "50 (8 of 3,088 items)")


def test_a_limit_above_the_number_of_items_and_minus_one_cut_nothing(tmp_path):
    lmms(tmp_path, {"mmstar": {"average,none": 0.6}}, limit=2000, samples={"mmstar": (1500, 1500)})
    lmms(tmp_path / "b", {"ai2d": {"exact_match,none": 0.5}}, limit=-1, model="b")
    models = results.read(tmp_path).models
    assert not models["org/model-7b"].limited
    assert not models["b"].limited


def test_of_two_full_runs_the_newer_one_is_used_and_of_limited_ones_the_larger(tmp_path):
    for day, value, n in (("20250101", 0.2, 100), ("20250102", 0.3, 50)):
        lmms(tmp_path, {"mmstar": {"average,none": value}, "ai2d": {"exact_match,none": value}},
             f"{day}_000000_results.json", samples={"mmstar": (1500, n), "ai2d": (9, 9)})  # fmt: skip
    model = one(tmp_path, "org/model-7b")
    assert model.values == {"MMStar": 20, "AI2D": 30}
    assert len(model.set_aside) == 2
    assert len(model.runs) == 2


def test_two_folders_of_one_model_and_links_to_the_newest(tmp_path):
    for day, value in (("20250101", 0.4), ("20250301", 0.5)):
        mmstar(tmp_path / f"m/T{day}_G12345678/m_MMStar_acc.csv", value)
    (tmp_path / "m/m_MMStar_acc.csv").symlink_to(tmp_path / "m/T20250301_G12345678/m_MMStar_acc.csv")
    model = one(tmp_path, "m")
    assert model.values == {"MMStar": 50}
    assert [run.date for run in model.runs] == ["20250101", "20250301"]  # a link is no run of its own
    assert "MMStar 40" in model.set_aside[0]


def test_two_judges_do_not_overwrite_one_another(tmp_path):
    for judge, value in (("gpt-4o", 61), ("GPT-4-Turbo", 62.5)):
        table(tmp_path / f"m/m_MathVista_MINI_{judge}_score.csv", ["Task&Skill", "acc"], ["Overall", value])
    model = one(tmp_path, "m")
    assert {run.judge for run in model.runs} == {"gpt-4o", "GPT-4-Turbo"}
    used = model.values["MathVista format"]
    other = ({61, 62.5} - {used}).pop()
    assert f"{other:g}" in model.set_aside[0]
    assert len(model.set_aside) == 1


def test_the_score_of_the_harness_goes_before_one_counted_from_items(tmp_path):
    mmstar(tmp_path / "m/m_MMStar_acc.csv", 0.618)
    table(tmp_path / "m/m_MMStar_exact_matching_result.xlsx", ["index", "hit"], [1, 1], [2, 0])
    table(tmp_path / "m/m_AI2D_TEST_openai_result.xlsx", ["index", "hit"], [1, 1], [2, 0], [3, 1], [4, 1])
    model = one(tmp_path, "m")
    assert model.values == pytest.approx({"MMStar": 61.8, "AI2D": 75})
    assert "MMStar 50" in model.set_aside[0]


def test_one_row_from_both_harnesses_is_taken_from_a_full_run(tmp_path):
    lmms(tmp_path, {"mmstar": {"average,none": 0.1}, "ai2d": {"exact_match,none": 0.5}}, model="m",
         samples={"mmstar": (1500, 8), "ai2d": (9, 9)})  # fmt: skip
    mmstar(tmp_path / "m/m_MMStar_acc.csv", 0.6)
    table(tmp_path / "m/m_AI2D_TEST_acc.csv", ["split", "Overall"], ["none", 0.4])
    model = one(tmp_path, "m")
    assert model.values == {"MMStar": 60, "AI2D": 50}
    assert not model.limited
    assert [text.split(" = ")[0] for text in model.set_aside] == ["MMStar", "AI2D"]


# ---------------------------------------------------------------- VLMEvalKit


def test_vlmevalkit(tmp_path):
    home = tmp_path / "LLaVA-7B/T20250101_Gabcdef12"
    stem = "LLaVA-7B"
    table(home / f"{stem}_MMStar_acc.csv", ["split", "Overall", "math"], ["none", 0.618, 0.4])
    table(home / f"{stem}_ChartQA_TEST_acc.csv", ["test_human", "Overall"], [70.0, 74.5])
    table(home / f"{stem}_POPE_score.csv", ["split", "Overall", "acc", "precision", "recall"],
          ["Overall", 88.0, 88.5, 90, 87], ["adversarial", 86.0, 87.0, 88, 86], ["popular", 87, 88.25, 89, 86],
          ["random", 89, 89.75, 93, 87])  # fmt: skip
    table(home / f"{stem}_MME_score.csv", ["perception", "reasoning", "OCR"], [1580, 420, 130])
    table(home / f"{stem}_LLaVABench_score.csv", ["split", "Relative Score (main)", "VLM Score", "GPT4 Score"],
          ["overall", 90.7, 70, 80], ["conv", 81.2, 7, 8], ["detail", 91.8, 7, 8], ["complex", 95.9, 7, 8])  # fmt: skip
    table(home / f"{stem}_MathVista_MINI_gpt-4-turbo_score.csv", ["Task&Skill", "tot", "hit", "acc"],
          ["Overall", 1000, 625, 62.5], ["algebraic reasoning", 281, 100, 35.6])  # fmt: skip
    table(home / f"{stem}_MathVerse_MINI_gpt-4-turbo_score.csv", ["split", "Overall"],
          ["Vision Only", 12], ["Text Lite", 30], ["Vision Dominant", 18], ["Vision Intensive", 21])  # fmt: skip
    table(home / f"{stem}_MMBench_DEV_CN_V11_acc.csv", ["split", "Overall"], ["dev", 0.5])
    (home / f"{stem}_OCRBench_score.json").write_text(json.dumps({"Final Score": 623, "Final Score Norm": 62.3}))
    rating = {"short": {"overall": "0.7"}, "overall": {"overall": "0.583", "domain": {"x": 0.1}}}
    (home / f"{stem}_Video-MME_32frame_rating.json").write_text(json.dumps(rating))
    (home / f"{stem}_Video-MME_32frame_subs_rating.json").write_text(json.dumps({"overall|overall": 0.6161}))
    model = one(tmp_path, "LLaVA-7B")
    assert model.values == pytest.approx({
        "MMStar": 61.8, "ChartQA": 74.5, "POPE adversarial": 87.0, "POPE popular": 88.25, "POPE random": 89.75,
        "MME": 2000, "LLaVA-Wild all": 90.7, "LLaVA-Wild conv": 81.2, "LLaVA-Wild detail": 91.8,
        "LLaVA-Wild complex": 95.9, "MathVista format": 62.5, "MathVerse": 17.0, "OCRBench": 62.3,
        "Video-MME w/o caption": 58.3, "Video-MME w/ caption": 61.61,
    })  # fmt: skip
    assert any("MMBench_DEV_CN_V11" in text and "0.5" in text for text in model.unknown)  # another data set
    assert not model.incomplete
    assert [text for text in model.unknown if " MMStar:" in text] == ["VLMEvalKit MMStar::math = 0.4"]  # once


def test_names_of_data_sets_in_lower_case_are_no_judges(tmp_path):
    for turn in (0, 90, 180, 270):
        table(tmp_path / f"m/m_tdbench_rot{turn}_acc.csv", ["split", "Overall"], ["none", turn / 1000])
    model = one(tmp_path, "m")
    assert {run.tasks[0] for run in model.runs} == {f"tdbench_rot{turn}" for turn in (0, 90, 180, 270)}
    assert len(model.unknown) == 4
    assert not model.set_aside


def test_outside_the_folder_of_its_model_a_known_data_set_tells_the_name(tmp_path):
    mmstar(tmp_path / "mine/LLaVA_7B_MMStar_acc.csv", 0.5)
    mmstar(tmp_path / "mine/LLaVA_7B_tdbench_rot0_acc.csv", 0.5)
    found = results.read(tmp_path)
    assert list(found.models) == ["LLaVA_7B"]
    assert "model" in found.refused["mine/LLaVA_7B_tdbench_rot0_acc.csv"]


def test_a_table_as_a_book_and_a_cut_data_set(tmp_path):
    mmstar(tmp_path / "m/m_MMStar_acc.xlsx", 0.5)
    mmstar(tmp_path / "m/m_moviechat1k_8frame_limit0.01_acc.xlsx", 0.5)
    model = one(tmp_path, "m")
    assert model.values == {"MMStar": 50}
    assert [dict(run.limits) for run in model.runs if run.limits] == [
        {"moviechat1k_8frame_limit0.01": (0, "limit 0.01")}
    ]


def test_two_models_and_both_harnesses_stand_beside_the_paper(tmp_path):
    lmms(tmp_path / "a", {"mmstar": {"average,none": 0.6}}, model="mine")
    mmstar(tmp_path / "kit/other/other_MMStar_acc.csv", 0.4)
    table(tmp_path / "kit/other/other_POPE_score.csv", ["split", "acc"], ["random", 90])
    models = results.read(tmp_path).models
    shown = results.beside(models).set_index("row")
    assert (shown.mine["MMStar"], shown.other["MMStar"]) == (60, 40)
    assert shown["paper: LLaVA-OV-7B"]["MMStar"] == "61.8 → 62.58"
    assert list(shown.index) == ["MMStar", "POPE random"]
    assert any("POPE:popular:acc" in text for text in models["other"].incomplete)


# ---------------------------------------------------------------- what is no result


def test_bad_files_are_named_and_the_rest_is_read(tmp_path):
    with pytest.raises(ValueError, match="holds no files"):
        results.read(tmp_path)
    (tmp_path / "m").mkdir()
    mmstar(tmp_path / "m/m_MMStar_acc.csv", 0.5)
    (tmp_path / "m/m_AI2D_TEST_acc.json").write_text("{")
    (tmp_path / "m/m_MME_score.json").write_text("[1, 2]")
    (tmp_path / "m/m_POPE_score.xlsx").write_bytes(b"no book")
    (tmp_path / "m/m_OCRBench_score.csv").write_bytes(b"")
    table(tmp_path / "m/m_ChartQA_TEST_acc.xlsx", ["Overall"], [1])
    whole = (tmp_path / "m/m_ChartQA_TEST_acc.xlsx").read_bytes()
    (tmp_path / "m/m_ChartQA_TEST_acc.xlsx").write_bytes(whole[: len(whole) // 2])
    found = results.read(tmp_path)
    assert found.models["m"].values == {"MMStar": 50}
    assert set(found.refused) == {f"m/m_{name}" for name in (
        "AI2D_TEST_acc.json", "MME_score.json", "POPE_score.xlsx", "OCRBench_score.csv", "ChartQA_TEST_acc.xlsx"
    )}  # fmt: skip
    assert all(found.refused.values())


def test_a_book_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "MAX_BOOK", 1000)
    mmstar(tmp_path / "m/m_MMStar_acc.xlsx", 0.5)
    found = results.read(tmp_path)
    assert "1,000 bytes" in found.refused["m/m_MMStar_acc.xlsx"]
    assert not found.models


def test_files_about_single_items_and_others_are_counted(tmp_path):
    lmms(tmp_path, {"mmstar": {"average,none": 0.6}})
    (tmp_path / "20250101_120000_samples_mmstar.jsonl").write_text("{}\n")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "status.json").write_text("{}")
    table(tmp_path / "m/m_AI2D_TEST.xlsx", ["index", "prediction"], [1, "A"])
    table(tmp_path / "m/m_Video-MME_32frame_score.xlsx", ["index", "score"], [1, 0])
    found = results.read(tmp_path)
    assert list(found.models) == ["org/model-7b"]
    assert (found.item_files, found.other_files) == (3, 2)


@pytest.mark.parametrize("written", ["50%", "50 %", "0,5", "1.580,5", "nan", "inf"])
def test_a_number_that_cannot_be_read_is_reported_with_its_place(tmp_path, written):
    mmstar(tmp_path / "m/m_MMStar_acc.csv", written)
    lmms(tmp_path, {"mmstar": {"average,none": written}})
    for model in results.read(tmp_path).models.values():
        assert model.values == {}
        assert any(written in text and "MMStar".lower() in text.lower() for text in model.incomplete)
        assert any(text.startswith("MMStar: ") for text in model.incomplete)  # and the row lacks it


def test_a_first_row_without_its_number_is_not_replaced_by_the_second(tmp_path):
    table(tmp_path / "m/m_MMStar_acc.csv", ["split", "Overall"], ["none", "nan"], ["x", 0.9])
    assert one(tmp_path, "m").values == {}


@given(st.dictionaries(st.text("ab|/", min_size=1, max_size=4), st.floats(0, 1), max_size=4))
def test_every_number_of_an_unknown_task_is_reported(tmp_path_factory, numbers):
    folder = tmp_path_factory.mktemp("run")
    lmms(folder, {"new_task": {f"{name},none": value for name, value in numbers.items()}})
    assert len(one(folder, "org/model-7b").unknown) == len(numbers)
