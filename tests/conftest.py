"""A small project folder in which a chapter can be run for real."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parent.parent
CHAPTER = "00_tiny"
HEAD = "# 00 · A tiny chapter\n\n**Paper:** none\\\n**Reads:** nothing\\\n**Writes:** one number\\\n**Time:** seconds"
RUN = """
from pathlib import Path
from mmrlhf_core import reporting, storage
print("running", storage.root().name)
storage.write_text("data/tiny/number.txt", str(seed))
reporting.write_metrics("tiny", {"seed": seed}, [reporting.Headline("seed <b>", seed, 0, 1, "MiniWorld")])
"""


def write_chapter(folder: Path, parameters: str = "", code: str = RUN, tags: int = 1) -> Path:
    """A chapter with its `parameters` cell (the base names unless given) and one cell of code."""
    values = parameters or 'profile = "mini"\nseed = 1\nthreads = 1'
    cells = [new_markdown_cell(HEAD)]
    cells += [new_code_cell(values, metadata={"tags": ["parameters"]}) for _ in range(tags)]
    cells += [new_code_cell(code)]
    file = folder / f"notebooks/{CHAPTER}.ipynb"
    file.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), file)
    return file


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
