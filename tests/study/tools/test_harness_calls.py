"""The printed calls name the checkpoint, the wrapper and the tasks, and say what cannot be run."""

import json
import shlex

import pytest

from mmrlhf_core.data import storage
from mmrlhf_study.tools import harness


@pytest.fixture(autouse=True)
def checkpoint(project):
    storage.write_json("models/base/config.json", {"model_type": "llava_onevision"})


def test_the_call_of_lmms_eval():
    text = harness.calls("models/base", ["pope", "MMStar"], "lmms-eval", "out")
    words = shlex.split(text.splitlines()[-1])
    assert words[:5] == ["python", "-m", "lmms_eval", "--model", "llava_hf"]
    given = dict(zip(words[3::2], words[4::2], strict=False))
    assert given["--model_args"] == "pretrained=models/base"
    assert given["--tasks"] == "pope_adv,pope_pop,pope_random,mmstar"
    assert words[-2:] == ["--output_path", "out"]
    assert "project folder" in text


def test_the_call_of_vlmevalkit_is_a_configuration_and_a_run():
    text = harness.calls("models/base", ["POPE", "Video-MME", "WebSRC"], "VLMEvalKit", "out")
    config = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert config["model"] == {"base": {"class": "LLaVA_OneVision_HF", "model_path": "models/base"}}
    assert config["data"]["POPE"] == {"class": "ImageYORNDataset", "dataset": "POPE"}
    assert config["data"]["Video-MME_32frame_subs"]["use_subtitle"] is True
    assert config["data"]["Video-MME_32frame"]["nframe"] == 32
    assert "WebSRC" in text.splitlines()[0]
    assert text.splitlines()[-1] == "python run.py --config config.json --work-dir out"


def test_a_reference_leads_to_its_checkpoint_and_what_cannot_run_is_named(project):
    text = harness.calls("models/base", ["all"], "lmms-eval", "out")
    assert text.startswith("# MMHal-Bench, Object-Hal, MM-RLHF-SafetyBench: ")
    nothing = harness.calls("models/base", ["WebSRC"], "VLMEvalKit", "out")
    assert nothing.startswith("#")
    assert "WebSRC" in nothing
    assert len(nothing.splitlines()) == 1
    storage.write_json("models/far/checkpoint.json", {"checkpoint": "models/base"})
    assert "pretrained=models/base" in harness.calls("models/far", ["MMStar"], "lmms-eval", "out")


def test_the_command_and_its_errors(capsys):
    assert harness.main(["--model", "models/base", "--benchmarks", "MMStar"]) == 0
    assert "--tasks mmstar" in capsys.readouterr().out
    assert harness.chosen(["ALL", "MMStar"]) == harness.chosen(["all"])
    assert harness.main(["--model", "models/base", "--benchmarks", "MMMStar"]) == 2
    said = capsys.readouterr().err
    assert "'MMMStar'" in said
    assert "LLaVA-In-The-Wild" in said
    storage.write_json("models/base/config.json", {"model_type": "gpt2"})
    assert harness.main(["--model", "models/base"]) == 2
    assert "'gpt2'" in capsys.readouterr().err
    assert harness.main(["--model", "models/none"]) == 2
    assert "models/none" in capsys.readouterr().err


def test_internvl_has_a_wrapper_in_one_harness_only():
    storage.write_json("models/base/config.json", {"model_type": "internvl"})
    assert "--model internvl_hf" in harness.calls("models/base", ["MMStar"], "lmms-eval", "out")
    with pytest.raises(ValueError, match=r"VLMEvalKit.*internvl"):
        harness.calls("models/base", ["MMStar"], "VLMEvalKit", "out")
