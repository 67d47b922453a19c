"""Clean copies of the chapters, so that opening, running and saving one by hand makes no stage stale.

`python -m mmrlhf_study.pipeline.clean` writes them to `data/notebooks/` (the `clean` stage); with `--in-place` it
cleans `notebooks/` itself before a commit; with `--outputs` it removes what the pipeline can make again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml

from mmrlhf_core.data import storage
from mmrlhf_study.pipeline.chapters import ChapterError, chapters, read

COPIES = "data/notebooks"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def cleaned(file: Path) -> str:
    """The notebook as text with only what a person wrote: cells and their tags, no outputs, fixed ids."""
    notebook, cells = read(file), []
    for number, cell in enumerate(notebook.cells):
        tags = {"tags": sorted(cell.metadata.tags)} if cell.metadata.get("tags") else {}
        kept = {
            "cell_type": cell.cell_type,
            "id": f"cell-{number:02d}",
            "metadata": tags,
            "source": cell.source.rstrip(),
        }
        code = {"execution_count": None, "outputs": []} if cell.cell_type == "code" else {}
        cells.append(kept | code)
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return nbformat.writes(nbformat.from_dict(content)) + "\n"


def refresh(file: Path, target: Path) -> None:
    """Write the clean copy unless it is there already."""
    text = cleaned(file)
    if not target.is_file() or target.read_text(encoding="utf-8") != text:
        storage.write_text(target, text)


def copy_all() -> None:
    """Clean copies of all chapters, and of nothing else."""
    with storage.writing(COPIES) as temporary:
        temporary.mkdir()
        for chapter in chapters():
            (temporary / chapter.file.name).write_text(cleaned(chapter.file), encoding="utf-8")


def outputs() -> list[Path]:
    """What the pipeline makes and git does not track, and the run logs, sweeps and scratch folders."""
    stages = yaml.safe_load(storage.path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    kinds = [stage.get(kind, []) for stage in stages.values() for kind in ("outs", "metrics", "plots")]
    written = [next(iter(out)) if isinstance(out, dict) else out for kind in kinds for out in kind]
    # the outs of a matrix are written with ${...}: their folder stands for all of them
    named = [out.partition("${")[0].rpartition("/")[0] if "${" in out else out for out in written]
    tracked = subprocess.run(
        ["git", "ls-files", "--", *named], cwd=storage.root(), capture_output=True, text=True, check=True
    ).stdout.split("\n")
    free = [n for n in named if not any(t == n or t.startswith(f"{n}/") for t in tracked)]
    return [storage.path(n) for n in [*free, "logs", "scratch", "reports/sweeps"]]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m mmrlhf_study.pipeline.clean", description=__doc__.splitlines()[0])
    parser.add_argument("--in-place", action="store_true", help="clean notebooks/ itself")
    parser.add_argument("--outputs", action="store_true", help="remove what the pipeline can make again")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.outputs:
            for target in outputs():
                storage.remove(target)
        elif chosen.in_place:
            for chapter in chapters():
                refresh(chapter.file, chapter.file)
        else:
            copy_all()
    except (ChapterError, OSError) as error:
        print(f"clean: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
