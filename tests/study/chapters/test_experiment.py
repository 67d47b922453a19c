"""Arms × seeds on a tiny project: what decides a run, what does not, and that nothing is computed twice."""

import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import ranked_examples as tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Pair
from mmrlhf_core.models import policy
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.ranked.batch import build_tree
from mmrlhf_core.training import job, reference
from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_core.training.losses import Objective
from mmrlhf_study.chapters import experiment
from mmrlhf_study.chapters.experiment import Arm, Experiment, TrainingSettings
from mmrlhf_study.evaluation.monitor import OwnAnswersMonitor
from mmrlhf_study.miniworld import miniature

O = Objective("mm_dpo", sft_weight=0.25)  # noqa: E741
SETTINGS = TrainingSettings(
    media="media", frames=2, dtype="float32", threads=1, epochs=1, batch=2, accumulation=1, rate=1e-2, lora_rank=0,
    checkpointing=False,
)  # fmt: skip


def row(number, rng):
    texts = tuple(" ".join(rng.choice(tiny.WORDS, rng.integers(2, 9))) for _ in range(3))
    return RankedRow(
        id=f"q{number}", prompt="is it red", modality="image", media=(f"{number}.png",), responses=texts,
        winners=(0, 0, 1), losers=(1, 2, 2), margins=tuple(rng.normal(1, 1, 3).tolist()),
    )  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "dvc.yaml").touch()
    rng = np.random.default_rng(0)
    for name, seed in (("base", 0), ("other", 1)):
        made = miniature.build_model("llava_onevision", tiny.processor(), tiny.SIZE, seed)
        policy.save(folder / f"models/{name}", Policy(made, tiny.processor()))
    (folder / "media").mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / f"media/{number}.png")
    records.write(folder / "data/preference/train.parquet", [row(number, rng) for number in range(4)])
    return folder


@pytest.fixture
def together(project, monkeypatch):
    monkeypatch.chdir(project)
    return Experiment.of("models/base", SETTINGS)


def final(run):
    return tiny.weights(policy.load(str(run.folder / "final")).model)


def test_w_zero_is_dpo_and_equal_seeds_are_equal_runs_to_the_last_digit(together):
    zero = together.run(Arm("zero", replace(O, w=0.0)), 1)
    plain = together.run(Arm("plain", replace(O, loss="dpo")), 1)
    again = together.run(Arm("again", replace(O, loss="dpo")), 1)
    scaled = together.run(Arm("scaled", O), 1)
    other = together.run(Arm("other", O), 2)
    assert tiny.same(final(zero), final(plain))
    assert tiny.same(final(plain), final(again))
    assert storage.sha256_tree(zero.folder / "final") == storage.sha256_tree(plain.folder / "final")
    assert not tiny.same(final(plain), final(scaled))
    assert not tiny.same(final(scaled), final(other))
    start = policy.load("models/base").model
    assert tiny.distance(final(plain), tiny.weights(start)) > 1e-3


def test_one_more_beta_w_or_arm_needs_no_pass_of_the_reference(together):
    def cached():
        return {file: file.stat().st_mtime_ns for file in storage.path(together.job.reference).rglob("*.safetensors")}

    together.examples("train")
    before, fresh = cached(), replace(together, encoded={})
    for arm in experiment.arms(["beta_dpo"], replace(O, beta_ori=0.3, w=0.9), 0.4):
        assert fresh.run(arm, 5).history
    assert before == cached() != {}


def test_a_whole_run_is_not_trained_again_and_a_changed_one_is_another(together, monkeypatch):
    first = together.run(Arm("once", O), 1)
    monkeypatch.setattr(job, "train", lambda *_: pytest.fail("trained again"))
    assert together.run(Arm("once", O), 1) == first
    places = {
        together.job_of(Arm("once", objective), seed).output for objective in (O, replace(O, k=1.0)) for seed in (1, 2)
    }
    slower = replace(together, job=replace(together.job, training={**together.job.training, "learning_rate": 1e-3}))
    places.add(slower.job_of(Arm("once", O), 1).output)
    assert len(places) == 5


def test_a_run_is_named_after_the_code_that_trains_and_no_other(together, tmp_path):
    for package in ("mmrlhf_core", "mmrlhf_study"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(experiment.imports.ROOT / package, tmp_path / package, ignore=ignored)

    def code_after(edited):
        with (tmp_path / edited).open("a") as file:
            file.write("\n# edited\n")
        experiment.code.cache_clear()
        return experiment.code(tmp_path)

    names, own = [together.job_of(Arm("code", O), 1).output], experiment.code()
    for module, same in (("mmrlhf_study/chapters/experiment.py", True), ("mmrlhf_core/ranked/logps.py", False)):
        changed = code_after(module)
        assert (changed == own) == same, module
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(experiment, "code", lambda changed=changed: changed)
            names.append(together.job_of(Arm("code", O), 1).output)
    assert names[0] == names[1] != names[2]


def test_a_job_without_output_fills_the_reference_and_trains_nothing(together, monkeypatch):
    monkeypatch.setattr(job, "train", lambda *_: pytest.fail("trained"))
    own = replace(together.job, rows="data/preference/train.parquet", reference="data/fresh")
    storage.write_json("fill.json", asdict(own))
    job.run(job.read("fill.json"))
    cache = reference.ReferenceCache("data/fresh", reference.identity("models/base"))
    assert not [one.id for one in together.examples("train") if cache.missing(one.query)]


def test_watching_sees_kl_start_at_zero_and_changes_nothing(together):
    looked = [Prompt("is it red", (Image.open(f"media/{n}.png"),)) for n in range(2)]
    eyes = OwnAnswersMonitor(policy.load("models/base"), looked, ["a", "b"], 2, 6, 0)
    longer = replace(together, job=replace(together.job, training={**together.job.training, "num_train_epochs": 2}))
    seen, unseen = longer.run(Arm("seen", O), 3, [eyes]), longer.run(Arm("unseen", O), 3)
    assert tiny.same(final(seen), final(unseen))
    assert [row["step"] for row in eyes.rows] == [0, 2, 4]
    assert eyes.rows[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert abs(eyes.rows[-1]["kl"]) > 1e-3
    assert all(1 <= row["length"] <= 6 for row in eyes.rows)
    curve = experiment.curve(seen, 1, eyes.rows)
    logged = [row for row in curve if "loss" in row]
    assert [row["step"] for row in logged] == [1, 2, 3, 4]
    assert logged[0]["chosen"] == pytest.approx(0, abs=1e-5)
    assert logged[-1]["chosen"] != pytest.approx(0, abs=1e-3)
    assert {"log p chosen", "sft loss", "margin", "beta"} <= set(logged[0])
    assert curve[-1]["kl"] == eyes.rows[-1]["kl"]


def test_an_adapter_is_merged_into_its_base(together):
    rank = Experiment.of("models/base", replace(SETTINGS, rate=1e-1, lora_rank=2))
    run = rank.run(Arm("adapter", O), 1)
    merged, base = rank.policy(run).model, policy.load("models/base").model
    moved = {name for name, value in tiny.weights(merged).items() if not torch.equal(value, tiny.weights(base)[name])}
    assert moved
    assert all("language_model" in name and "_proj" in name for name in moved)
    policy.save("models/kept", rank.policy(run))
    assert tiny.same(tiny.weights(policy.load("models/kept").model), tiny.weights(merged))


def test_large_pictures_are_encoded_when_asked_for(together, monkeypatch):
    held = together.examples("train")
    monkeypatch.setattr(experiment, "ENCODED_BYTES", 1)
    lazy = replace(together, encoded={}).examples("train")
    assert type(held) is list
    assert type(lazy) is not list
    trees = [build_tree([data[number].query for number in range(4)]) for data in (held, lazy)]
    assert torch.equal(trees[0].ids, trees[1].ids)


def test_the_arms_are_what_their_names_say():
    others = ["sft", "dpo", "odpo", "robust_dpo", "beta_dpo", "hardest", "shuffled", "constant_beta", "released"]
    made = {arm.name: arm for arm in experiment.arms(others, O, 0.12, (0.0, 0.25, 1.0))}
    assert next(iter(made)) == "mm_dpo"
    assert made["mm_dpo"].objective == O
    assert made["constant_beta"].objective == replace(O, loss="dpo", beta_ori=0.12)
    assert made["sft"].objective.sft_weight == 0
    assert (made["released"].objective.w, made["released"].objective.sft_weight) == (0.1, 0.25)
    assert {made[name].rows for name in ("hardest", "shuffled")} == {"train_hardest", "train_shuffled"}
    assert {name for name in made if name.startswith("mm_dpo_sft")} == {"mm_dpo_sft_0", "mm_dpo_sft_1"}
    with pytest.raises(ValueError, match=r"'shufled'.*'shuffled'"):
        experiment.arms(["shufled"], O, 0.1)


# variants of the rows

PAIRS = [Pair("q", f"q/{a}", f"q/{b}", steps=steps) for a, b, steps in ((0, 1, 1), (0, 2, 2), (1, 2, 1))]
PAIRS.append(Pair("p", "p/1", "p/0"))


def test_the_hardest_pairs_are_best_against_worst():
    assert experiment.hardest(PAIRS) == [PAIRS[1], PAIRS[3]]
    published = [replace(pair, steps=1) for pair in PAIRS]
    assert [(p.chosen, p.rejected) for p in experiment.hardest(published)] == [("q/0", "q/2"), ("p/1", "p/0")]
    partial = [published[0], published[1]]  # a > b and a > c: two ranks, both pairs equally hard
    assert experiment.hardest(partial) == partial


def rows_of(deltas):
    """One row for each list of margins, two answers and as many pairs of them."""
    return [
        RankedRow(f"r{n}", "?", "text", (), ("a", "b"), (0,) * len(some), (1,) * len(some), tuple(some))
        for n, some in enumerate(deltas)
    ]


DELTAS = st.lists(st.lists(st.floats(-50, 50), min_size=1, max_size=4), min_size=1, max_size=6)


@given(DELTAS, st.integers(0, 10), st.integers(0, 2**31))
def test_a_sample_keeps_rows_and_order(deltas, count, seed):
    rows = rows_of(deltas)
    some = experiment.sample(rows, count, seed)
    assert len(some) == (min(count, len(rows)) if count else len(rows))
    assert [row for row in rows if row in some] == some
    assert experiment.sample(rows, count, seed) == some


@given(DELTAS, st.integers(0, 2**31))
def test_shuffled_margins_are_the_same_numbers_on_the_same_rows(deltas, seed):
    rows = rows_of(deltas)
    dealt = experiment.shuffled(rows, seed)
    assert sorted(d for row in dealt for d in row.margins) == sorted(d for row in rows for d in row.margins)
    assert [replace(row, margins=()) for row in dealt] == [replace(row, margins=()) for row in rows]


def test_shuffling_moves_margins_to_other_pairs():
    rows = rows_of([[float(n)] for n in range(40)])
    assert sum(a.margins == b.margins for a, b in zip(rows, experiment.shuffled(rows, 1), strict=True)) < 10


@pytest.mark.parametrize(("negative", "beta"), [("clamp", 0.1), ("drop", 0.0), ("paper", 0.1 * (1.5 - 0.5 * np.e))])
def test_every_pair_has_its_delta_and_beta(negative, beta):
    pairs = experiment.betas(rows_of([[2.0], [-1.0]]), Objective("mm_dpo", 0.1, 0.5, 1.0, negative))
    assert [pair.delta for pair in pairs] == [2.0, -1.0]
    assert [pair.beta for pair in pairs] == pytest.approx([0.1 * (1.5 - 0.5 * np.exp(-2)), beta])
