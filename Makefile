# Two doors: `make repro` rebuilds everything, `make test` checks everything. Both install what they need into .venv.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv
export DVC_NO_ANALYTICS := 1
export PYTHONUNBUFFERED := 1
# With it every process compiles all modules again: 12 s of 21 s for torch, transformers and DeepSpeed.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help repro test unit smoke lab clean lock
.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 16

# The marker file holds the name of the folder, because a virtual environment does not work after it was moved.
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

repro: ready  ## rebuild the pipeline and the book; chapters that are up to date are skipped
	@dvc repro
	@echo "Open reports/book/index.html"

test: ready  ## format, lint, types, unit tests with the core's coverage, and the whole pipeline in the smoke profile
	@mkdir -p scratch; export OMP_WAIT_POLICY=passive; \
	  $(MAKE) --no-print-directory smoke >scratch/smoke.log 2>&1 & smoke=$$!; \
	  trap "kill $$smoke 2>/dev/null" EXIT; trap "exit 130" INT TERM; \
	  $(MAKE) --no-print-directory unit || exit 1; \
	  echo "Unit tests passed; waiting for the smoke run, whose output is in scratch/smoke.log"; \
	  wait $$smoke || { tail -n 40 scratch/smoke.log; exit 1; }; \
	  python -m pytest -m smoke

# One thread for each of two processes: more threads than cores wait for one another.
unit: export OMP_NUM_THREADS := 1
unit: ready  ## format, lint, types and unit tests only
	@ruff format --check .
	@ruff check .
	@mypy mmrlhf_core
	@python -m pytest tests/core -m "not smoke" -n 2 --dist loadgroup --cov=mmrlhf_core --cov-report=term --cov-fail-under=95
	@python -m pytest --ignore=tests/core -m "not smoke" -n 2 --dist loadgroup

smoke: ready  ## the whole pipeline with tiny numbers, in scratch/smoke
	@rm -rf scratch/smoke && mkdir -p scratch/smoke/reports
	@cp -R mmrlhf_core mmrlhf_study notebooks profiles dvc.yaml params.yaml .dvcignore scratch/smoke/
	@cp reports/findings.yaml scratch/smoke/reports/
	@cd scratch/smoke && dvc init --quiet --no-scm && python -m mmrlhf_study.pipeline.params smoke && PYTHONPATH=. dvc repro

lab: ready  ## JupyterLab on the chapters
	@jupyter lab notebooks

clean: ready  ## remove what the pipeline made, logs and scratch; keeps .venv, the DVC cache and your files
	@python -m mmrlhf_study.pipeline.clean --outputs

lock: ready  ## write requirements.lock from what is installed
	@(echo "# Every package exact (Python 3.11, Linux). Made with 'make lock'; pyproject.toml holds the lower bounds."; \
	  $(BIN)/python -m pip freeze --exclude-editable) > requirements.lock
