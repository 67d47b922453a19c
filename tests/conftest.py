"""A small project folder in which a chapter can be run for real."""

import shutil
from pathlib import Path

import pytest
from tiny_project import ROOT, write_chapter


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the real library, one tiny chapter and its stage, entered."""
    (tmp_path / "mmrlhf_core").symlink_to(ROOT / "mmrlhf_core")
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text("stages:\n  tiny:\n    cmd: none\n    deps: []\n    outs: [data/tiny]\n")
    write_chapter(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
