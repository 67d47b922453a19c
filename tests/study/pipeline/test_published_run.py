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

import nbformat
import pandas as pd
import published_folder
import pytest
import reward_world
import yaml
from tiny_project import ROOT

from mmrlhf_core.data import records
from mmrlhf_core.data.records import Pair
from mmrlhf_core.models import policy
from mmrlhf_core.rollout.score import Margin
from mmrlhf_study.miniworld import curriculum
from mmrlhf_study.pipeline import params

pytestmark = pytest.mark.smoke

# What makes it small. Sources, media, layout, wording and selection stay as the paper's profile has them.
SMALL = {
    "base": {"threads": 1},
    "annotation": {"frames": 2, "test_share": 0.3, "dev_share": 0.2, "draws": 30, "shared": 0, "judge": "models/base"},
    "reward_model": {"frames": 2, "seeds": [1, 2], "steps": 2, "accumulation": 1, "max_new_tokens": 4, "samples": 2}
    | {"narrow_steps": 1, "bins": 4, "draws": 30, "mistakes": 1},
    "mm_dpo": {"frames": 2, "arms": ["dpo"], "sft_weights": [], "seeds": 2, "accumulation": 2, "processes": 2}
    | {"dtype": "float32", "questions": 3, "max_new_tokens": 4, "rewarded": 4, "critique_tokens": 4, "shown": 2}
    | {"draws": 30},
}
CATEGORIES = ("long", "short", "mcq", "safety", "video")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project in the paper's profile after the chapters of the published route."""
    folder = tmp_path_factory.mktemp("published")
    for name in ("mmrlhf_core", "mmrlhf_study", "notebooks", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    policy.save(folder / "models/base", reward_world.fresh())
    published_folder.write(folder / "data/published", 30, CATEGORIES, curriculum.words())
    run(folder, "mmrlhf_study.pipeline.params", "paper")
    settings = params.merge(yaml.safe_load((folder / "params.yaml").read_text()), SMALL)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    run(folder, "mmrlhf_study.pipeline.run", "annotation")
    run(folder, "mmrlhf_study.pipeline.run", "reward_model")
    run(folder, "mmrlhf_study.pipeline.preference")
    run(folder, "mmrlhf_study.pipeline.run", "mm_dpo")
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
    assert "Missing: 0 reference log-probabilities" in shown
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
