"""The core imports nothing of the study and no library of the study, and every public name has one meaning."""

import ast
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOREIGN = {
    "pandas", "matplotlib", "seaborn", "IPython", "sklearn", "statsmodels", "umap", "open_clip", "dvc", "papermill",
    "mmrlhf_study",
}  # fmt: skip
CORE = sorted((ROOT / "mmrlhf_core").rglob("*.py"))
IMPORT_ALL = """
import importlib, pkgutil, sys, mmrlhf_core
for module in pkgutil.walk_packages(mmrlhf_core.__path__, "mmrlhf_core."):
    importlib.import_module(module.name)
print("loaded", *{name.split(".")[0] for name in sys.modules})
"""


def imports(file):
    """First parts of the names that a module imports, wherever in the module it does so."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            yield node.module.split(".")[0]


@pytest.mark.parametrize("file", CORE, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_module_of_the_core_imports_nothing_foreign(file):
    assert not FOREIGN & set(imports(file))


def test_a_process_that_imports_the_whole_core_loads_nothing_foreign():
    """transformers.Trainer imports `datasets` where it is installed (TRL, a test dependency, brings it), and
    `datasets` imports pandas: only in that case is pandas allowed to be there."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(next(line for line in result.stdout.splitlines() if line.startswith("loaded ")).split()[1:])
    assert {"mmrlhf_core", "torch", "transformers"} <= loaded
    assert not loaded & FOREIGN - ({"pandas"} if "datasets" in loaded else set())


def definitions(file):
    """Public classes and constants in capitals that a module defines at its top level."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                parts = target.elts if isinstance(target, ast.Tuple) else [target]
                yield from (part.id for part in parts if isinstance(part, ast.Name) and part.id.isupper())


def test_a_public_class_or_constant_is_defined_in_one_module():
    modules = defaultdict(list)
    for file in [*CORE, *sorted((ROOT / "mmrlhf_study").rglob("*.py"))]:
        for name in set(definitions(file)):
            modules[name].append(file.relative_to(ROOT).as_posix())
    assert {name: files for name, files in modules.items() if name[0] != "_" and len(files) > 1} == {}
