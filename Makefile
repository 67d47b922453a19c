# Two doors: `make repro` rebuilds everything, `make test` checks everything. Both set themselves up.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv
export DVC_NO_ANALYTICS := 1
export PYTHONUNBUFFERED := 1
# Where it is set, every process compiles all it imports anew: 12 s of 21 s for torch, transformers and DeepSpeed.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help repro test unit smoke lab clean lock
.DEFAULT_GOAL := help

help:  ## what can be done
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 16

# The marker names the folder, because a virtual environment does not survive being moved or copied.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ". Give another: make PYTHON=python3.11")'
	@echo "Setting up .venv (once, several GB, some minutes)"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps --editable .
	@echo "$(CURDIR)" > $(READY)

.PHONY: ready
ready:
	@if [ -f $(READY) ] && [ "$$(cat $(READY))" != "$(CURDIR)" ]; then rm -f $(READY); fi
	@$(MAKE) --no-print-directory $(READY)

repro: ready  ## rebuild the pipeline; chapters that are up to date are skipped
	@dvc repro
	@echo "Open reports/index.html"

test: unit smoke  ## format, lint, unit tests, then the whole pipeline in the smoke profile
	@python -m pytest -m smoke

unit: ready  ## format, lint and unit tests only
	@ruff format --check .
	@ruff check .
	@python -m pytest -m "not smoke" -n 2 --dist loadgroup

smoke: ready  ## the whole pipeline with tiny numbers, in scratch/smoke
	@rm -rf scratch/smoke && mkdir -p scratch/smoke
	@cp -R mmrlhf_core mmrlhf_study notebooks profiles dvc.yaml params.yaml .dvcignore scratch/smoke/
	@cd scratch/smoke && dvc init --quiet --no-scm && python -m mmrlhf_study.pipeline.params smoke && PYTHONPATH=. dvc repro

lab: ready  ## JupyterLab on the chapters
	@jupyter lab notebooks

clean: ready  ## remove what the pipeline made, logs and scratch; keeps .venv, the DVC cache and your files
	@python -m mmrlhf_study.pipeline.clean --outputs

lock: ready  ## write requirements.lock from what is installed
	@(echo "# Every package exact (Python 3.11, Linux). Made with 'make lock'; pyproject.toml holds the lower bounds."; \
	  $(BIN)/python -m pip freeze --exclude-editable) > requirements.lock
