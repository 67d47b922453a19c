"""A small project folder in which a chapter can be run for real, quick collection, and processes that start fast."""

import gc
import shutil
from pathlib import Path

import processes
import pytest
from hypothesis import settings
from tiny_project import ROOT, write_chapter

settings.register_profile("house", deadline=None)  # a busy machine is no failure
settings.load_profile("house")


@pytest.fixture(scope="module", autouse=True)
def _quick_collection():
    """Trainers collect garbage all the time; what imports and other files left is not looked through each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def server():
    """Where `processes.start` takes processes from; tests that use it belong to one xdist group, `processes`."""
    return processes.server()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the real library, one tiny chapter and its stage, entered."""
    for package in ("mmrlhf_core", "mmrlhf_study"):
        (tmp_path / package).symlink_to(ROOT / package)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text("stages:\n  tiny:\n    cmd: none\n    deps: []\n    outs: [data/tiny]\n")
    write_chapter(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
