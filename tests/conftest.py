"""A small project folder in which a chapter can be run for real, quick collection, and processes that start fast."""

import gc
from pathlib import Path

import processes
import pytest
from hypothesis import settings
from tiny_project import make_project

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
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with nothing in it, entered."""
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny project, entered."""
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
