"""The tiny chapter that tests run for real, and where the project and its stages lie."""

import shutil
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
CHAPTER = "00_tiny"
HEAD = "# 00 · A tiny chapter\n\n**Paper:** none\\\n**Reads:** nothing\\\n**Writes:** one number\\\n**Time:** seconds"
RUN = """
from pathlib import Path
from mmrlhf_core.data import storage
from mmrlhf_study.chapters import reporting
print("running", storage.root().name)
storage.write_text("data/tiny/number.txt", str(seed))
reporting.write_metrics("tiny", {"seed": seed}, [reporting.Headline("seed <b>", seed, 0, 1, "MiniWorld")])
"""


def make_project(folder: Path) -> None:
    """A project with the real library, one tiny chapter and its stage."""
    for package in ("mmrlhf_core", "mmrlhf_study"):
        (folder / package).symlink_to(ROOT / package)
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    (folder / "dvc.yaml").write_text("stages:\n  tiny:\n    cmd: none\n    deps: []\n    outs: [data/tiny]\n")
    write_chapter(folder)


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
