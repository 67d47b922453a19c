"""Print the exact commands that evaluate a checkpoint on the paper's benchmarks with lmms-eval or VLMEvalKit.

python -m mmrlhf_study.tools.harness --model models/policies/mm_dpo --benchmarks POPE MMStar
python -m mmrlhf_study.tools.harness --model Qwen/Qwen2.5-VL-3B-Instruct --benchmarks all --harness VLMEvalKit

Nothing is run: each harness has its own environment, data sets and judges.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mmrlhf_core.data import storage
from mmrlhf_core.models import policy
from mmrlhf_study.evaluation.paper import BENCHMARKS, HARNESSES, rows_of, tasks_of

FORK = "https://github.com/yfzhang114/mmrlhf-eval"
WRAPPERS = {  # what each harness calls a family of models, by `model_type` of config.json
    "lmms-eval": {"llava_onevision": "llava_hf", "qwen2_5_vl": "qwen2_5_vl", "internvl": "internvl_hf"},
    "VLMEvalKit": {"llava_onevision": "LLaVA_OneVision_HF", "qwen2_5_vl": "Qwen2VLChat"},
}
CLASSES = {  # VLMEvalKit's class of each data set
    "LLaVABench": "LLaVABench", "WildVision": "WildVision", "MME": "ImageYORNDataset", "POPE": "ImageYORNDataset",
    "ChartQA_TEST": "ImageVQADataset", "DocVQA_VAL": "ImageVQADataset", "InfoVQA_VAL": "ImageVQADataset",
    "TextVQA_VAL": "ImageVQADataset", "OCRBench": "OCRBench", "MathVista_MINI": "MathVista",
    "MathVerse_MINI": "MathVerse", "MME-RealWorld-Lite": "MMERealWorld", "MME-RealWorld-CN": "MMERealWorld",
    "MMMU_Pro_V": "MMMUProDataset",
}  # fmt: skip


def wrapper(model: str, harness: str) -> str:
    """What a harness calls the family of a checkpoint."""
    folder, known = policy.locate(model), WRAPPERS[harness]
    if not (folder / "config.json").is_file():
        raise policy.PolicyError(f"{folder} holds no config.json, so it is no checkpoint.")
    kind = storage.read_json(folder / "config.json").get("model_type", "")
    if kind not in known:
        raise ValueError(
            f"No wrapper of {harness} is known here for models of type {kind!r}; known are {', '.join(known)}."
        )
    return known[kind]


def _named(model: str) -> str:
    """The checkpoint as a harness takes it: a folder as seen from the project, or a hub id."""
    reference = storage.path(model) / policy.REFERENCE
    return _named(storage.read_json(reference)["checkpoint"]) if reference.is_file() else model


def lmms_call(model: str, benchmarks: Sequence[str], output: str) -> str:
    """The call of lmms-eval, which takes all benchmarks at once."""
    tasks = [task for name in benchmarks for task in tasks_of(name, "lmms-eval")]
    words = [
        *("python", "-m", "lmms_eval", "--model", wrapper(model, "lmms-eval")),
        *("--model_args", f"pretrained={_named(model)}", "--tasks", ",".join(tasks), "--batch_size", "1"),
        *("--log_samples", "--output_path", output),
    ]
    return shlex.join(words)


def _data(dataset: str) -> dict[str, str | int | bool]:
    """A data set as VLMEvalKit's configuration wants it; clips at 32 frames, as the paper."""
    if dataset.startswith("Video-MME"):
        return {"class": "VideoMME", "dataset": "Video-MME", "nframe": 32, "use_subtitle": dataset.endswith("subs")}
    return {"class": CLASSES.get(dataset, "ImageMCQDataset"), "dataset": dataset}


def kit_config(model: str, benchmarks: Sequence[str]) -> dict[str, dict]:
    """The configuration file of VLMEvalKit that names the checkpoint and the data sets."""
    settings = {"class": wrapper(model, "VLMEvalKit"), "model_path": _named(model)}
    data = {task: _data(task) for name in benchmarks for task in tasks_of(name, "VLMEvalKit")}
    return {"model": {Path(model).name: settings}, "data": data}


def kit_call(model: str, benchmarks: Sequence[str], output: str) -> str:
    """The calls of VLMEvalKit: write the configuration, run it."""
    config = json.dumps(kit_config(model, benchmarks), indent=2)
    run = shlex.join(["python", "run.py", "--config", "config.json", "--work-dir", output])
    return f"cat > config.json <<'END'\n{config}\nEND\n{run}"


def forked(benchmarks: Sequence[str]) -> list[str]:
    """Benchmarks that only the authors' copy of lmms-eval has."""
    return [name for name in benchmarks if any(r.fork for row in rows_of(name) for r in row.recipes.values())]


def chosen(names: Sequence[str]) -> list[str]:
    """Benchmarks by name, `all` for all; an unknown name is an error that lists the known ones."""
    known = {name.lower(): name for name in BENCHMARKS}
    lower = list(dict.fromkeys(name.lower() for name in names))
    if unknown := [name for name in names if name.lower() not in {*known, "all"}]:
        raise ValueError(f"No benchmark {unknown[0]!r}. Give all, or some of {', '.join(BENCHMARKS)}.")
    return list(BENCHMARKS) if "all" in lower else [known[name] for name in lower]


def calls(model: str, names: Sequence[str], harness: str, output: str) -> str:
    """The command to type, with comments for what the harness cannot run."""
    wanted = chosen(names)
    able = [name for name in wanted if tasks_of(name, harness)]
    lines = []
    if missing := [name for name in wanted if name not in able]:
        lines.append(f"# {harness} does not have: {', '.join(missing)}")
    if harness == HARNESSES[0] and forked(able):
        lines.append(f"# {', '.join(forked(able))}: only in the authors' copy of lmms-eval, {FORK}")
    if able and policy.locate(model) == storage.path(model):
        lines.append(f"# {model} is a path relative to the project folder")
    if able:
        lines.append((lmms_call if harness == HARNESSES[0] else kit_call)(model, able, output))
    return "\n".join(lines)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m mmrlhf_study.tools.harness", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="checkpoint: a folder, or a hub id in the local cache")
    parser.add_argument("--benchmarks", nargs="+", default=["all"], metavar="NAME", help="of the paper, or all")
    parser.add_argument("--harness", choices=HARNESSES, default=HARNESSES[0])
    parser.add_argument("--output", default="results", help="folder for the harness's results")
    given = parser.parse_args(words)
    try:
        print(calls(given.model, given.benchmarks, given.harness, given.output))
    except ValueError as error:
        print(f"harness: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
