"""Several processes: the same run under DDP, ZeRO and FSDP, other layouts' checkpoints, interruption, the launcher.

What is trained on is the published route from end to end: a file of pairs with pictures and clips, scored by a reward
model, made ranked rows, with the reference's log-probabilities cached for each response.
"""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import accelerate
import numpy as np
import processes
import published_folder
import pytest
import ranked_examples as tiny
import torch
import transformers as hf
import yaml
from accelerate.commands import launch as cli

from mmrlhf_core.data import published, records, storage
from mmrlhf_core.models import policy, prompts, reward
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.rollout import score
from mmrlhf_core.training import checkpoints, dataset, job, launch
from mmrlhf_core.training.base import arguments
from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_core.training.losses import Objective
from mmrlhf_core.training.preference import PreferenceTrainer
from mmrlhf_study.miniworld import miniature

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]

COMMON = {"model": "models/start", "rows": "data/rows.parquet", "media": "media", "reference": "data/reference"}
COMMON |= {"frames": 2}
LONG = {"max_steps": 7, "save_strategy": "steps", "save_steps": 2}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project folder with a starting model, and the published pairs, scored by a reward model, as ranked rows."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "dvc.yaml").touch()
    asked = tiny.processor()
    policy.save(folder / "models/start", Policy(miniature.build_model("llava_onevision", asked, tiny.SIZE), asked))
    published_folder.write(folder, 8, ("long", "long", "video"), tiny.WORDS)
    read = published.read(folder / "dpo_pairs.jsonl", folder / "media")
    said = {query.id: {one.id: one.text for one in read.responses if one.query == query.id} for query in read.queries}
    work = [score.Work(q.id, prompts.of_query(q, folder / "media", 2), said[q.id]) for q in read.queries]
    judge = reward.create(policy.load(str(folder / "models/start")))
    scored = score.score(judge, work, score.CritiqueDecoding(max_new_tokens=4))
    pairs = [replace(pair, split="train") for pair in read.pairs]
    rows = dataset.ranked_rows(read.queries, read.responses, pairs, score.margins(scored, pairs))["train"]
    assert {row.modality for row in rows} == {"image", "video"}
    records.write(folder / "data/rows.parquet", rows)
    return folder


def write_job(folder, name, batch, accumulation, **training):
    """A job file for three steps of four queries."""
    usual = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 3}
    usual |= {"learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "steps", "save_steps": 2}
    made = {**COMMON, "output": f"runs/{name}", "objective": {"sft_weight": 0.1}, "training": {**usual, **training}}
    storage.write_json(folder / f"jobs/{name}.json", made)
    return folder / f"jobs/{name}.json"


def work(folder, file):
    """What one process does."""
    os.chdir(folder)
    torch.set_num_threads(1)
    if "ACCELERATE_USE_FSDP" in os.environ:
        job.arguments = sharded
    job.run(job.read(file))


def sharded(*given, **training):
    """`arguments`, and accelerate believes that these processes have GPUs: without any it leaves FSDP out."""
    made = arguments(*given, **training)
    assert made.device.type == "cpu"
    accelerate.PartialState._shared_state["distributed_type"] = accelerate.DistributedType.MULTI_GPU
    return made


def launched(file, layout):
    """What the shipped file of a layout, read by `accelerate launch`, puts into the environment of two processes."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.distributed.run.run", lambda _: found.update(os.environ))
        cli.launch_command(cli.launch_command_parser().parse_args(launch.command(file, layout, 2)[3:]))
    return {name: value for name, value in found.items() if os.environ.get(name) != value}


def run(server, folder, file, layout=None):
    """Run a job in one process, or in two under `layout`."""
    places = [place | launched(file, layout) for place in processes.places(2)] if layout else [{}]
    workers = [processes.start(server, work, folder, file, **place) for place in places]
    for worker in workers:
        worker.join(240)
    assert [worker.exitcode for worker in workers] == [0] * len(places)


def result(folder, name):
    """Weights of a finished run, read as an ordinary model folder, and its losses."""
    saved = hf.AutoModelForImageTextToText.from_pretrained(folder / f"runs/{name}/final")
    history = json.loads((folder / f"runs/{name}/history.json").read_text())
    return tiny.weights(saved), [entry["loss"] for entry in history if "loss" in entry]


@pytest.fixture(scope="module")
def ran(server, project):
    """`ran(name)` makes sure that one of the runs below is done, once."""
    shapes = {"single": (1, 4, None), "whole": (4, 1, None)}
    done = set()

    def once(name):
        if name not in done:
            batch, accumulation, layout = shapes.get(name, (1, 2, name))
            file = write_job(project, name, batch, accumulation)
            if name == "zero3":
                launch.run(file, name, 2, "--main_process_port", "0")
            else:
                run(server, project, file, layout)
            done.add(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setenv("PYTHONPATH", str(Path(launch.__file__).parents[2]))
        yield once


@pytest.fixture(scope="module")
def single(ran, project):
    """The run everything is compared with: one process, four times one query."""
    ran("single")
    return result(project, "single")


def close(one, other):
    """Equal weights and losses, to 1e-6."""
    assert one[0].keys() == other[0].keys()
    assert tiny.distance(one[0], other[0]) < 1e-6
    assert other[1] == pytest.approx(one[1], abs=1e-6)


def test_one_process_with_the_whole_batch(ran, project, single):
    ran("whole")
    start = hf.AutoModelForImageTextToText.from_pretrained(project / "models/start")
    assert tiny.distance(tiny.weights(start), single[0]) > 1e-3
    close(single, result(project, "whole"))


@pytest.mark.parametrize(
    ("name", "layout"),
    [("ddp", "MULTI_CPU"), ("zero2", "DEEPSPEED-2"), ("zero3", "DEEPSPEED-3"), ("fsdp", "FSDP")],
)
def test_two_processes_give_the_same_run(ran, project, single, name, layout):
    """By the shipped files, in processes forked here; ZeRO-3 all the way through `accelerate launch`."""
    ran(name)
    close(single, result(project, name))
    saved = storage.read_json(project / f"runs/{name}/checkpoint-3/complete.json")
    assert (saved["layout"], saved["processes"]) == (layout, 2)


@pytest.mark.parametrize("name", ["ddp", "zero2", "zero3"])
def test_a_checkpoint_of_two_processes_goes_on_in_one(server, ran, project, single, name):
    ran(name)
    target = project / f"runs/{name}_in_one"
    target.mkdir()
    (target / "checkpoint-2").symlink_to(project / f"runs/{name}/checkpoint-2")
    run(server, project, write_job(project, f"{name}_in_one", 1, 4))
    close(single, result(project, f"{name}_in_one"))
    history = storage.read_json(target / "history.json")
    assert [entry["step"] for entry in history if "loss" in entry] == [1, 2, 3]


def test_fsdp_goes_on_from_its_checkpoint(server, ran, project, single):
    ran("fsdp")
    target = project / "runs/fsdp_again"
    target.mkdir()
    (target / "checkpoint-2").symlink_to(project / "runs/fsdp/checkpoint-2")
    run(server, project, write_job(project, "fsdp_again", 1, 2), "fsdp")
    close(single, result(project, "fsdp_again"))


def test_a_second_beta_needs_no_reference_model(server, ran, project, single, monkeypatch):
    """The cache that the first run filled serves another β: nothing is computed, nothing loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "_model", lambda *_: pytest.fail("the reference was loaded"))
        again = job.read(write_job(project, "beta", 1, 4))
        rows = records.read(again.rows, RankedRow)
        job.reference_cache(again, rows, tiny.processor())


class Kill(hf.TrainerCallback):
    """Ends the process at once, in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def on_substep_end(self, args, state, control, **_):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def long_run(folder, step=None):
    """Seven steps in one process, killed in the middle of the step after `step`."""
    torch.set_num_threads(1)
    objective = Objective(loss="beta_dpo", sft_weight=0.1)
    trainer = PreferenceTrainer(tiny.model(), tiny.settings(folder, **LONG), tiny.examples(8), objective)
    if step is not None:
        trainer.add_callback(Kill(step))
    trainer.resume()
    trainer.save_model(str(folder / "final"))
    storage.write_json(folder / "end.json", [trainer.statistics, trainer.state.log_history])


def test_killed_and_resumed_is_bitwise_the_uninterrupted_run(server, tmp_path):
    step = int(np.random.default_rng().integers(3, 6))
    for folder, when, code in (("whole", None, 0), ("cut", step, -signal.SIGKILL), ("cut", None, 0)):
        process = processes.start(server, long_run, tmp_path / folder, when)
        process.join(120)
        assert process.exitcode == code, f"killed after step {step}"
        if code:
            partial = tmp_path / "cut/checkpoint-6"
            partial.mkdir()  # as if it had been cut short while being written
            (partial / "trainer_state.json").write_text("{")
    whole, cut = (storage.read_json(tmp_path / f"{name}/end.json") for name in ("whole", "cut"))
    assert whole[0] == cut[0]
    losses = [[entry["loss"] for entry in history if "loss" in entry] for _, history in (whole, cut)]
    assert len(losses[0]) == 7
    assert losses[0] == losses[1]
    weights = [(tmp_path / f"{name}/final/model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


# the launcher, without starting anything


def test_every_shipped_layout_is_read_by_accelerate():
    from accelerate.commands.config.config_args import load_config_from_file

    kinds = {"ddp": "MULTI_GPU", "zero1": "DEEPSPEED", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED", "fsdp": "FSDP"}
    assert set(kinds) == set(launch.LAYOUTS) == {file.stem for file in launch.LAYOUT_FILES.glob("*.yaml")}
    for layout, kind in kinds.items():
        file = launch.LAYOUT_FILES / f"{layout}.yaml"
        assert load_config_from_file(str(file)).distributed_type == kind
        if kind == "DEEPSPEED":
            assert yaml.safe_load(file.read_text())["deepspeed_config"]["zero_stage"] == int(layout[-1])


def test_the_command_line_of_many_nodes(monkeypatch):
    started = []
    monkeypatch.setattr(launch, "run", lambda *given: started.append(given))
    launch.main(["job.json", "--layout", "zero3", "--processes", "32", "--num_machines", "4", "--machine_rank", "2"])
    line = launch.command(*started[0])
    read = cli.launch_command_parser().parse_args(line[3:])
    assert (read.num_processes, read.num_machines, read.machine_rank) == (32, 4, 2)
    assert read.config_file == str(launch.LAYOUT_FILES / "zero3.yaml")
    assert (read.module, read.training_script, read.training_script_args) == (
        True, "mmrlhf_core.training.job", ["job.json"],
    )  # fmt: skip


def test_bad_launches_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="layout is 'zero4'; it has to be one of ddp"):
        launch.command("job.json", "zero4", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'fsdp', and there is no GPU"):
        launch.run("job.json", "fsdp", 2)
    storage.write_json(tmp_path / "half.json", {**COMMON, "output": "runs/x", "training": {"bf16": True}})
    with pytest.raises(ValueError, match="'zero3' in bfloat16, and there is no GPU"):
        launch.run(tmp_path / "half.json", "zero3", 2)
    with pytest.raises(ValueError, match="processes is 0"):
        launch.command("job.json", "ddp", 0)
    storage.write_json(tmp_path / "job.json", {**COMMON, "output": "runs/x", "objectiv": {}})
    with pytest.raises(ValueError, match=r"unknown name 'objectiv'\. Did you mean 'objective'"):
        job.read(tmp_path / "job.json")
    storage.write_json(tmp_path / "job.json", COMMON)
    with pytest.raises(ValueError, match="'output' is missing"):
        job.read(tmp_path / "job.json")
    storage.write_json(tmp_path / "job.json", {**COMMON, "output": "runs/x", "objective": {"beta": 0.1}})
    with pytest.raises(ValueError, match="unknown name 'beta'"):
        job.read(tmp_path / "job.json")


def test_a_failed_run_says_so(project, monkeypatch):
    monkeypatch.chdir(project)
    failing = (
        "print('no such thing'); print('E1 torch/distributed/elastic/api.py:1 failed'); print('its trace'); exit(3)"
    )
    monkeypatch.setattr(launch, "command", lambda *_: [os.sys.executable, "-c", failing])
    with pytest.raises(RuntimeError, match=r"code 3(.|\n)*no such thing\n$"):  # not what the launcher says of itself
        launch.run("job.json", "ddp", 2)


def test_incomplete_checkpoints_do_not_count(tmp_path):
    for name, whole in (("checkpoint-9", True), ("checkpoint-10", True), ("checkpoint-11", False)):
        (tmp_path / name).mkdir()
        if whole:
            storage.write_json(tmp_path / name / "complete.json", {})
    assert checkpoints.last(tmp_path).name == "checkpoint-10"
    checkpoints.discard_partial(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]
    assert checkpoints.last(tmp_path / "nothing") is None
