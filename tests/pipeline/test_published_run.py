"""Published pairs in the paper's profile, from the file to aligned policies, by the chapters that do it on GPUs.

A folder in the published form, with pictures and clips, and a miniature checkpoint stand in for the data and the 7B
model; ZeRO-3 runs in two processes. Sizes differ from profiles/paper.yaml, and the precision of the policies, as
DeepSpeed trains in bfloat16 on GPUs only. The scores mean nothing.
"""

import json
import os
import shutil
import subprocess
import sys
from itertools import combinations

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from tiny_project import ROOT

from mmrlhf_core import exports, params, records
from mmrlhf_core.inference.score import Margin
from mmrlhf_core.models import miniature, policy
from mmrlhf_core.records import Pair
from mmrlhf_core.training import lessons

pytestmark = pytest.mark.smoke

SIZE = miniature.Size(
    width=32, layers=1, heads=2, kv_heads=1, mlp=48, vision_width=32, vision_layers=1, vision_heads=2, vision_mlp=48
)
# What makes it small. Sources, media, layout, wording and selection stay as the paper's profile has them.
SMALL = {
    "base": {"threads": 1},
    "annotate": {"frames": 2, "test_share": 0.3, "dev_share": 0.2, "draws": 30, "shared": 0, "judge": "models/base"},
    "reward_model": {"frames": 2, "seeds": [1, 2], "steps": 2, "accumulation": 1, "max_new_tokens": 4, "samples": 2}
    | {"narrow_steps": 1, "bins": 4, "draws": 30, "mistakes": 1},
    "mm_dpo": {
        "frames": 2,
        "arms": ["dpo"],
        "sft_weights": [],
        "seeds": 2,
        "accumulation": 2,
        "processes": 2,
        "dtype": "float32",
    }
    | {"questions": 3, "max_new_tokens": 4, "rewarded": 4, "critique_tokens": 4, "shown": 2, "draws": 30},
}
CATEGORIES = ("long", "short", "mcq", "safety", "video")


def write_published(folder):
    """Pairs about pictures and clips of every category: all pairs of two to four answers, with reasons."""
    rng, rows = np.random.default_rng(0), []
    for number in range(30):
        place = f"{CATEGORIES[number % 5]}/{number}"
        clip = number % 5 == 4
        names = [f"{place}/{frame}.png" for frame in range(2)] if clip else [f"{place}.png"]
        for name in names:
            (folder / "media" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / "media" / name)
        said = [" ".join(rng.choice(lessons.words(), 3 + k)) for k in range(2 + number % 3)]
        head = {
            "id": f"q{number}",
            "prompt": "describe it .",
            "video" if clip else "image": place if clip else names[0],
        }
        for a, b in combinations(range(len(said)), 2):
            reasons = {"chosen_reason": f"answer {a} is right .", "rejected_reason": f"answer {b} is wrong ."}
            rows.append({**head, "chosen": said[a], "rejected": said[b], **reasons})
    exports.write_lines(folder / "dpo_pairs.jsonl", rows)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project in the paper's profile after the chapters of the published route."""
    folder = tmp_path_factory.mktemp("published")
    for name in ("mmrlhf_core", "notebooks", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    policy.save(folder / "models/base", policy.create("llava_onevision", lessons.words(), SIZE, 0))
    write_published(folder / "data/published")
    run(folder, "mmrlhf_core.params", "paper")
    settings = params.merge(yaml.safe_load((folder / "params.yaml").read_text()), SMALL)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    run(folder, "mmrlhf_core.pipeline.run", "annotate")
    run(folder, "mmrlhf_core.pipeline.run", "reward_model")
    run(folder, "mmrlhf_core.pipeline.preference")
    run(folder, "mmrlhf_core.pipeline.run", "mm_dpo")
    return folder


def run(folder, module, *words):
    """A command of the project, as its pipeline calls it."""
    place = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-m", module, *words], cwd=folder, env=place, capture_output=True, text=True)
    assert not done.returncode, f"{module} {' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_every_published_pair_is_scored_before_it_is_trained_on(project):
    pairs = records.read(project / "data/annotations/pairs.parquet", Pair)
    published = (project / "data/published/dpo_pairs.jsonl").read_text().splitlines()
    margins = records.read(project / "data/rewards/margins.parquet", Margin)
    assert len(pairs) == len(margins) == len(published)
    assert {(p.query, p.chosen, p.rejected) for p in pairs} == {(m.query, m.chosen, m.rejected) for m in margins}


def test_the_chapter_ran_in_two_processes_under_zero_3(project):
    settings = yaml.safe_load((project / "params.yaml").read_text())["mm_dpo"]
    assert (settings["layout"], settings["processes"]) == ("zero3", 2)
    notebook = nbformat.read(project / "reports/chapters/04_mm_dpo.ipynb", 4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [one for one in outputs if one.output_type == "error"]
    shown = "".join(one.get("text", "") for one in outputs)
    assert "lack the reference's log-probabilities; of" in shown
    world = {
        row["world"] for row in json.loads((project / "reports/metrics/mm_dpo.json").read_text())["headline"].values()
    }
    assert world == {"held-out queries"}, "no number of these is MiniWorld's"


def test_the_aligned_policies_are_ordinary_folders_and_differ(project):
    weights = {}
    for name in ("base", "policies/dpo", "policies/mm_dpo"):
        model = policy.load(str(project / "models" / name)).model
        weights[name] = model.state_dict()
    moved = {name: max(float((weights[name][key] - value).abs().max()) for key, value in weights["base"].items())
             for name in weights}  # fmt: skip
    assert moved["base"] == 0 < min(moved["policies/dpo"], moved["policies/mm_dpo"])
    betas = pd.read_parquet(project / "data/policies/betas.parquet")
    assert betas.beta.nunique() > 1, "β follows the margins"
