# Two commands do it all: `make demo` and `make test`. Each sets up what it needs first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUTPUTS ?= outputs
PORT ?= 5000
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check lint types bench docs ui report clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP)  ## create .venv and install transfuse with the versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "transfuse needs Python 3.11 or newer. Found $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 <command>" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing transfuse into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,sweeps]'
	@touch $(STAMP)

demo: $(STAMP)  ## train, fuse, transfer on real data; print the leaderboards (about 3 minutes)
	@$(BIN)/transfuse -m experiment=demo_fusion paths.outputs=$(OUTPUTS)
	@$(BIN)/transfuse -m experiment=demo_multi_task paths.outputs=$(OUTPUTS)
	@$(BIN)/transfuse -m experiment=demo_transfer paths.outputs=$(OUTPUTS)
	@$(BIN)/python -m transfuse.report.closing $(OUTPUTS)

test: $(STAMP)  ## run all tests but the slow studies
	@$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-slow: $(STAMP)  ## run the slow studies
	@$(BIN)/python -m pytest -n $(WORKERS) -m slow

check: lint types test  ## what continuous integration runs: lint, types, tests

lint: $(STAMP)  ## ruff: lint and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy --strict on src
	@$(BIN)/mypy

bench: $(STAMP)  ## run all benchmarks; fails where a limit is missed
	@$(BIN)/python -m benchmarks

docs: $(STAMP)  ## check that the README's commands, tables and links are true
	@$(BIN)/python -m pytest tests/test_readme.py

ui: $(STAMP)  ## MLflow UI on http://127.0.0.1:5000, opened on the comparison view
	@$(BIN)/python -m transfuse.tracking.ui $(OUTPUTS) $(PORT)

report: $(STAMP)  ## print and write the report of the last sweep (report.html beside its jobs)
	@$(BIN)/transfuse-report sweep=last outputs=$(OUTPUTS)

clean:  ## remove the environment, caches and all outputs
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	@find outputs -mindepth 1 ! -name .gitkeep -delete
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
