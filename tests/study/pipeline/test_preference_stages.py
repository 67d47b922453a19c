"""The stages without a chapter: rows and reference, and the cells of the grid."""

import json
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import reward_world
import yaml
from PIL import Image
from tiny_project import ROOT, STAGES

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Pair, Query, Response
from mmrlhf_core.models import policy
from mmrlhf_core.rollout.score import CritiqueDecoding, Margin
from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_study.chapters.experiment import TrainingSettings
from mmrlhf_study.evaluation import held_out
from mmrlhf_study.pipeline import clean, params, preference, sensitivity_cell

CHANGES = {"queries": 3, "questions": 2, "seeds": 2, "batch": 2, "max_new_tokens": 4, "frames": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small project: a tiny base, five annotated queries of MiniWorld with margins, and its parameters."""
    folder = tmp_path_factory.mktemp("stages")
    (folder / "dvc.yaml").touch()
    policy.save(folder / "models/base", reward_world.fresh())
    rng, queries, responses, pairs = np.random.default_rng(0), [], [], []
    for number in range(5):
        name = f"shapes-{10**8 + number}-describe-open"
        (folder / "data/queries/media").mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
        picture.save(folder / f"data/queries/media/{number}.png")
        queries.append(Query(name, "describe it .", "image", (f"{number}.png",), category="long", source="miniworld"))
        responses += [
            Response(f"{name}/{k}", name, "m", text) for k, text in enumerate(("a red .", "a blue .", "no ."))
        ]
        part = "train" if number < 4 else "dev"
        pairs += [
            Pair(name, f"{name}/{a}", f"{name}/{b}", steps=b - a, split=part) for a, b in ((0, 1), (0, 2), (1, 2))
        ]
    for name, some in (("queries", queries), ("responses", responses), ("pairs", pairs)):
        records.write(folder / f"data/annotations/{name}.parquet", some)
    margins = [Margin(p.query, p.chosen, p.rejected, float(n % 3), 0.5, "rm") for n, p in enumerate(pairs)]
    records.write(folder / "data/rewards/margins.parquet", margins)
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    given["base"]["threads"] = 1
    given["mm_dpo"] |= CHANGES
    (folder / "params.yaml").write_text(yaml.safe_dump(given))
    return folder


@pytest.fixture
def project(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


def test_rows_variants_and_reference_are_written_once_for_all(project, capsys):
    assert preference.main() == 0
    assert "train: 3 queries, 9 pairs" in capsys.readouterr().out
    files = ("train", "train_hardest", "train_shuffled", "dev")
    rows = {name: records.read(f"data/preference/{name}.parquet", RankedRow) for name in files}
    ids = [row.id for row in rows["train"]]
    assert ids == [row.id for row in rows["train_hardest"]] == [row.id for row in rows["train_shuffled"]]
    assert [len(row.winners) for row in rows["train_hardest"]] == [1, 1, 1]
    assert len(rows["dev"]) == 1


@pytest.mark.parametrize("name", ["margins", "pairs"])
def test_what_is_missing_ends_in_a_sentence(project, capsys, name):
    place, kind = {"margins": ("rewards", Margin), "pairs": ("annotations", Pair)}[name]
    file = storage.path(f"data/{place}/{name}.parquet")
    whole = file.read_bytes()
    some = records.read(file, kind)
    records.write(file, some[1:] if name == "margins" else [replace(pair, split="dev") for pair in some])
    try:
        assert preference.main() == 2
    finally:
        file.write_bytes(whole)
    expected = {"margins": "no margin", "pairs": "part train"}[name]
    assert expected in capsys.readouterr().err


def test_a_cell_is_trained_graded_on_dev_and_leaves_no_run(project):
    assert preference.main() == 0
    assert sensitivity_cell.main(["0.5", "1.0"]) == 0
    answers = records.read("data/sensitivity/w0.5-k1.0/answers.parquet", held_out.Graded)
    assert {(one.arm, one.part) for one in answers} == {("w0.5-k1.0", "dev")}
    assert {one.seed for one in answers} == {1, 2}
    assert len(answers) == 2 * 8  # two seeds, two questions of four families
    assert json.loads(storage.path("data/sensitivity/w0.5-k1.0/objective.json").read_text())["k"] == 1.0
    assert not list(storage.path("scratch/preference").glob("*"))


def test_without_scaling_a_cell_is_the_dpo_of_the_chapter(project, capsys):
    storage.remove(storage.path("data/policies"))
    assert sensitivity_cell.main(["0", "0.25"]) == 2
    assert "w = 0 is DPO" in capsys.readouterr().err
    items = held_out.new_scenes(["math"], 1, set(), 2, 0)
    graded = held_out.grade(items, ["x", "y"], "dpo", 1, CritiqueDecoding())
    records.write("data/policies/dpo.parquet", graded)
    assert sensitivity_cell.main(["0", "0.25"]) == 0
    assert records.read("data/sensitivity/w0.0-k0.25/answers.parquet", held_out.Graded) == [
        replace(one, arm="w0.0-k0.25") for one in graded if one.part == "dev"
    ]
    assert sensitivity_cell.main(["0.5"]) == 2


class Recorder:
    """A section of the parameters that notes what is read of it."""

    def __init__(self, section):
        self.section, self.names = section, set()

    def __getattr__(self, name):
        self.names.add(name)
        return getattr(self.section, name)


def listed(stage):
    """Parameters of the section `mm_dpo` that a stage depends on."""
    return {name.partition(".")[2] for name in STAGES[stage]["params"] if name.startswith("mm_dpo.")}


def test_stages_depend_on_the_parameters_their_modules_read(project):
    read = {}
    for stage, make in (
        ("preference", preference.make),
        ("sensitivity_cell", lambda s: sensitivity_cell.make(s, 0.5, 1.0)),
    ):
        given = params.read()
        recorder = Recorder(given.mm_dpo)
        make(SimpleNamespace(base=given.base, mm_dpo=recorder))
        read[stage] = recorder.names
    training = set(TrainingSettings.__dataclass_fields__)
    assert listed("sensitivity_cell") == read["sensitivity_cell"]
    assert read["sensitivity_cell"] >= training - {"threads"}
    assert listed("preference") == read["preference"] - training | {"dtype", "frames", "layout", "media", "processes"}
    assert not {"w", "k", "arms", "sft_weights"} & listed("sensitivity_cell"), "another w leaves the grid alone"


def test_the_outs_of_a_matrix_are_cleaned_by_their_folder(project):
    (project / "dvc.yaml").write_text("stages:\n  x:\n    outs:\n      - data/grid/w${item.w}\n")
    subprocess.run(["git", "init", "-q"], check=True)
    try:
        assert storage.path("data/grid") in clean.outputs()
    finally:
        (project / "dvc.yaml").write_text("")
        storage.remove(project / ".git")
