"""What people read and install from agrees with what is there."""

import re
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tiny_project import CHAPTERS, ROOT, STAGES

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WANTED = [Requirement(r) for r in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]
PINS = re.findall(r"^([\w.-]+)==([\w.+!-]+)$", (ROOT / "requirements.lock").read_text(), re.M)
LOCK = {canonicalize_name(name): version for name, version in PINS}
README = (ROOT / "README.md").read_text()
NAMED = {"jupyterlab", "papermill", "torch", "transformers", "accelerate", "deepspeed", "open_clip_torch"}
NAMED |= {"umap-learn", "seaborn", "dvc"}


def test_every_line_of_the_lock_is_an_exact_version():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == len(LOCK)


@pytest.mark.parametrize("wanted", WANTED, ids=lambda r: r.name)
def test_the_lock_holds_every_dependency_within_its_bounds(wanted):
    assert wanted.specifier.contains(LOCK[canonicalize_name(wanted.name)])


def test_the_packages_the_compendium_is_defined_by_are_dependencies():
    assert {Requirement(r).name for r in PROJECT["dependencies"]} >= NAMED


def test_the_conda_environment_installs_the_lock_and_the_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["--requirement requirements.lock", "--editable ."]
    python = next(d for d in environment["dependencies"] if str(d).startswith("python="))
    assert python.removeprefix("python=") in PROJECT["requires-python"]


def test_what_is_installed_here_is_the_lock():
    from importlib.metadata import version

    installed = {w.name: version(w.name).partition("+")[0] for w in WANTED}
    assert installed == {w.name: LOCK[canonicalize_name(w.name)] for w in WANTED}


def test_every_chapter_has_its_row_in_the_readme():
    assert set(re.findall(r"notebooks/(\w+)\.ipynb", README)) == {file.stem for file in CHAPTERS} != set()


def test_make_targets_and_modules_named_in_the_readme_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"make ([a-z]+)", README)) <= targets
    for module in re.findall(r"python -m ([\w.]+)", README):
        if module.startswith("mmrlhf"):
            assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module


def test_paths_named_in_the_readme_exist_or_are_outs():
    listed = [out for stage in STAGES.values() for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
    outs = {next(iter(out)) if isinstance(out, dict) else out for out in listed}
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        inside = any(target.rstrip("/") == out or target.startswith(f"{out}/") for out in outs)
        assert inside or (ROOT / target).exists(), target


def test_nothing_names_a_machine_or_a_host_of_packages():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in files:
        if name.startswith("tests/") or not (ROOT / name).is_file():
            continue
        text = (ROOT / name).read_bytes().decode("utf-8", errors="replace")
        assert not re.search(r"/(root|work|home)/\w", text), name


def test_the_licence_and_the_citation_agree():
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert {"arXiv 2502.10391", "arXiv 2505.18531"} <= {r["notes"] for r in citation["references"]}
