# The targets that people and CI use. `make PIP_ARGS=...` passes arguments to pip.
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
WORKERS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The environment's interpreter (path and version), and the one that PYTHON names; without PYTHON, any is kept.
WHICH := import os, sys; print(os.path.realpath(sys.base_prefix), sys.hexversion)
FOUND := $(shell $(BIN)/python -c 'import pip; $(WHICH)' 2>/dev/null)
WANTED := $(if $(filter file,$(origin PYTHON)),$(FOUND),$(shell $(PYTHON) -c '$(WHICH)' 2>/dev/null))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format clean environment

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with the exact versions of constraints.txt

# Runs only if there is no environment, or it has another interpreter than the one PYTHON names.
environment:
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "seq2seq needs Python 3.11 to 3.13; name one with: make PYTHON=python3.12" >&2; exit 1; }
	rm -rf $(if $(wildcard $(VENV)/pyvenv.cfg),$(VENV),$(STAMP))
	$(PYTHON) -m venv $(VENV)

ifneq ($(FOUND),$(or $(WANTED),$(PYTHON)))
$(STAMP): environment
endif

$(STAMP): pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev,sweep]'
	@touch $@

demo: setup ## train on the bundled corpus, translate three sentences, print the next steps
	PATH="$(abspath $(BIN)):$$PATH" bash scripts/demo.sh

# The tests of a file share runs, so one worker runs all of them.
test: setup ## the test suite without its slow part
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m 'not slow and not gpu' $(PYTEST_ARGS)

test-all: setup ## all tests; those marked gpu run if there is a GPU
	$(BIN)/python -m pytest -q -n $(WORKERS) $(PYTEST_ARGS)

lint: setup ## linter, formatter and type checker
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: setup ## format the code and fix what the linter can
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

clean: ## remove the environment and caches, not your runs
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
