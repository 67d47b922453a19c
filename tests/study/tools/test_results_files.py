"""Results files of both harnesses, made here in the layouts that they write."""

import csv
import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrlhf_study.evaluation.paper import PAPER_ROWS
from mmrlhf_study.tools import results, sheets


def lmms(folder, tasks, name="20250101_120000_results.json", model="org/model-7b"):
    content = {
        "results": {task: {"alias": task, **numbers} for task, numbers in tasks.items()},
        "configs": {}, "versions": {}, "n-samples": {}, "higher_is_better": {},
        "config": {"model": "llava_hf", "model_args": f"pretrained={model},device_map=auto"},
        "model_name": model, "model_name_sanitized": model.replace("/", "__"),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def table(file, names, *rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", newline="") as stream:
        csv.writer(stream).writerows([names, *rows])


def xlsx(file, rows):
    """A book as spreadsheet programs write it: texts shared, numbers plain, empty cells left out."""
    shared = list(dict.fromkeys(cell for row in rows for cell in row if isinstance(cell, str) and cell))
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'

    def cell(value, address):
        if value == "":
            return ""
        kind, text = ("s", shared.index(value)) if isinstance(value, str) else ("n", value)
        return f'<c r="{address}" t="{kind}"><v>{text}</v></c>'

    body = "".join(
        f'<row r="{y}">' + "".join(cell(value, f"{chr(65 + x)}{y}") for x, value in enumerate(row)) + "</row>"
        for y, row in enumerate(rows, 1)
    )
    texts = "".join(f"<si><t>{text.replace('&', '&amp;').replace('<', '&lt;')}</t></si>" for text in shared)
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as book:
        book.writestr("xl/worksheets/sheet1.xml", f"<worksheet {space}><sheetData>{body}</sheetData></worksheet>")
        book.writestr("xl/sharedStrings.xml", f"<sst {space}>{texts}</sst>")


# lmms-eval


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
    found = results.read(tmp_path)
    one = found["org/model-7b"]
    assert one.values["POPE adversarial"] == pytest.approx(87.08)
    assert one.values["MME"] == 1997.5
    assert one.values["MathVista cot"] == 59.1
    assert one.values["AI2D"] == pytest.approx(81)
    assert any("gqa::exact_match = 0.62" in text for text in one.unknown)  # reported, not dropped
    assert any("pope_adv::pope_f1_score = 0.86" in text for text in one.unknown)  # nor of a task that is used
    assert not any("pope_accuracy" in text for text in one.unknown)
    assert not any("stderr" in text for text in one.unknown)
    assert any(text.startswith("VideoChatGPT: lmms-eval gave no videochatgpt_consistency") for text in one.incomplete)
    assert "VideoChatGPT" not in one.values
    assert "MMStar" not in one.values


def test_old_spelling_task_in_the_key_and_a_missing_model_name(tmp_path):
    content = {"results": {"mme": {"mme_percetion_score,none": 1500, "mme/mme_cognition_score,none": 300}}}
    (tmp_path / "my_run").mkdir()
    (tmp_path / "my_run/results.json").write_text(json.dumps(content))
    assert results.read(tmp_path)["my_run"].values == {"MME": 1800}
    content["config"] = {"model_args": "device_map=auto,pretrained=models/base"}
    (tmp_path / "my_run/results.json").write_text(json.dumps(content))
    assert list(results.read(tmp_path / "my_run/results.json")) == ["models/base"]


def test_of_two_filters_the_plain_one_counts(tmp_path):
    lmms(tmp_path, {"realworldqa": {"exact_match,flexible-extract": 0.5, "exact_match,none": 0.66}})
    assert results.read(tmp_path)["org/model-7b"].values["RealWorldQA"] == pytest.approx(66)


# VLMEvalKit


def test_vlmevalkit(tmp_path):
    home = tmp_path / "LLaVA-7B/T20250101_Gabcdef"
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
    xlsx(home / f"{stem}_AI2D_TEST_openai_result.xlsx", [["index", "hit"], [1, 1], [2, 0], [3, 1], [4, 1]])
    xlsx(home / f"{stem}_AI2D_TEST.xlsx", [["index", "prediction"], [1, "A & <b>"]])
    one = results.read(tmp_path)["LLaVA-7B"]
    assert one.values == pytest.approx({
        "MMStar": 61.8, "ChartQA": 74.5, "POPE adversarial": 87.0, "POPE popular": 88.25, "POPE random": 89.75,
        "MME": 2000, "LLaVA-Wild all": 90.7, "LLaVA-Wild conv": 81.2, "LLaVA-Wild detail": 91.8,
        "LLaVA-Wild complex": 95.9, "MathVista format": 62.5, "MathVerse": 17.0, "OCRBench": 62.3,
        "Video-MME w/o caption": 58.3, "Video-MME w/ caption": 61.61, "AI2D": 75.0,
    })  # fmt: skip
    assert any("MMBench_DEV_CN_V11" in text and "0.5" in text for text in one.unknown)  # another data set
    assert any("LLaVA-7B_AI2D_TEST.xlsx: predictions" in text for text in one.unknown)
    assert not one.incomplete
    mmstar = [text for text in one.unknown if ":MMStar:" in text or " MMStar:" in text]
    assert mmstar == ["VLMEvalKit MMStar:none:math = 0.4"]  # each number once, also of the first row


def test_a_table_as_a_book(tmp_path):
    xlsx(tmp_path / "m/m_MMStar_acc.xlsx", [["split", "Overall"], ["none", 0.5]])
    assert results.read(tmp_path)["m"].values == {"MMStar": 50}


def test_two_models_and_both_harnesses_stand_beside_the_paper(tmp_path):
    lmms(tmp_path / "a", {"mmstar": {"average,none": 0.6}}, model="mine")
    table(tmp_path / "kit/other/other_MMStar_acc.csv", ["split", "Overall"], ["none", 0.4])
    table(tmp_path / "kit/other/other_POPE_score.csv", ["split", "acc"], ["random", 90])
    found = results.read(tmp_path)
    shown = results.beside(found).set_index("row")
    assert (shown.mine["MMStar"], shown.other["MMStar"]) == (60, 40)
    assert shown["paper: LLaVA-OV-7B"]["MMStar"] == "61.8 → 62.58"
    assert list(shown.index) == ["MMStar", "POPE random"]
    assert any("POPE popular: VLMEvalKit gave no POPE:popular:acc" in text for text in found["other"].incomplete)


# what is no result


def test_bad_files_say_so(tmp_path):
    with pytest.raises(ValueError, match="holds no files"):
        results.read(tmp_path)
    (tmp_path / "m_MMStar_acc.json").write_text("{")
    with pytest.raises(ValueError, match="no readable JSON"):
        results.read(tmp_path)
    (tmp_path / "m_MMStar_acc.json").unlink()
    (tmp_path / "m_MMStar_acc.xlsx").write_bytes(b"no book")
    with pytest.raises(sheets.SheetError, match="no readable xlsx table"):
        results.read(tmp_path)
    (tmp_path / "m_MMStar_acc.xlsx").unlink()
    (tmp_path / "m_MMStar_acc.json").write_text("[1, 2]")
    with pytest.raises(sheets.SheetError, match="no list of objects"):
        results.read(tmp_path)


def test_a_book_that_declares_entities_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "m_MMStar_acc.xlsx", "w") as book:
        book.writestr("xl/worksheets/sheet1.xml", '<!DOCTYPE x [<!ENTITY a "aaaa">]><worksheet/>')
    with pytest.raises(sheets.SheetError, match="declares entities"):
        results.read(tmp_path)


def test_other_files_are_left_alone(tmp_path):
    lmms(tmp_path, {"mmstar": {"average,none": 0.6}})
    (tmp_path / "20250101_samples_mmstar.jsonl").write_text("{}\n")
    (tmp_path / "notes.txt").write_text("x")
    assert list(results.read(tmp_path)) == ["org/model-7b"]


@given(st.dictionaries(st.text("ab|/", min_size=1, max_size=4), st.floats(0, 1), max_size=4))
def test_every_number_of_an_unknown_task_is_reported(numbers):
    content = {"results": {"new_task": {f"{name},none": value for name, value in numbers.items()}}}
    found = results._results("m", {("m", "lmms-eval"): results._lmms_numbers(content)}, {})
    assert len(found.unknown) == len(numbers)


def test_every_row_of_the_paper_can_be_read_from_some_harness():
    assert all(row.recipes for row in PAPER_ROWS.values())
