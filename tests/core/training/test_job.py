"""A job in one process: the reference is cached, the policy trained, result and history written."""

import math
from dataclasses import asdict

import pytest
import ranked_examples as tiny
import torch
from PIL import Image

from mmrlhf_core.data import records, storage
from mmrlhf_core.models import policy
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.training import job
from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_study.miniworld import miniature

TRAINING = {"max_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 1, "learning_rate": 1e-3}
JOB = {
    "model": "models/start", "rows": "data/rows.parquet", "media": "media", "reference": "data/reference",
    "objective": {"loss": "dpo"}, "training": TRAINING, "seed": 3,
}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A project folder with a starting model and two ranked rows about a picture; torch's settings come back."""
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    asked = tiny.processor()
    policy.save("models/start", Policy(miniature.build_model("llava_onevision", asked, tiny.SIZE), asked))
    (tmp_path / "media").mkdir()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "media/a.png")
    texts = ("a red circle", "a blue square", "right")
    rows = [RankedRow(name, "is it red", "image", ("a.png",), texts, (0, 0), (1, 2)) for name in "ab"]
    records.write("data/rows.parquet", rows)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def read(**changes):
    storage.write_json("job.json", JOB | changes)
    return job.read("job.json")


@pytest.mark.parametrize(
    ("lora", "result"), [({}, "config.json"), ({"r": 2, "target_modules": ["q_proj"]}, "adapter_config.json")]
)
def test_a_job_trains_from_the_reference_and_writes_its_history_last(place, lora, result):
    own = read(output="runs/one", lora=lora)
    job.run(own)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1
    history = storage.read_json(f"runs/one/{job.HISTORY}")
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)  # policy and reference are equal before the first step
    assert losses[1] < losses[0]
    assert (place / "runs/one/final" / result).is_file()
    assert storage.read_json("runs/one/job.json") == asdict(own)


def test_a_job_without_output_fills_the_reference_cache_once(place):
    job.run(read(output=""))
    files = {file.name: file.stat().st_mtime_ns for file in (place / "data/reference").rglob("*.safetensors")}
    assert len(files) == 1
    assert not (place / "runs").exists()
    job.run(read(output=""))
    assert {f.name: f.stat().st_mtime_ns for f in (place / "data/reference").rglob("*.safetensors")} == files
