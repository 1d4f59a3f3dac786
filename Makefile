PYTHON ?= python3
BIN := .venv/bin
# W&B's own check of sweep files, for a test; it asks for numpy 1, which it does not need
CHECK := sweeps==0.3.0

.PHONY: help quickstart torture test lint types

help:  ## show this text
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: .venv/quickstart  ## train MIC on real text in minutes: a table, three figures, a model
	$(BIN)/mic train configs/quickstart.yaml --overwrite

torture: .venv/quickstart  ## kill and resume runs in 30 ways: half an hour, a table
	$(BIN)/python experiments/torture/torture.py

test: .venv/dev lint types  ## lint, check types, run every test and docstring example
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/dev  ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev  ## mypy, strict
	$(BIN)/mypy

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit("mic needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

# one stamp for each set of packages: installed once, again only when what is wanted changes; by uv,
# which takes a tenth of pip's time, and by pip where uv does not find its way to the packages
PIP := $(BIN)/pip install --disable-pip-version-check -q
UV := VIRTUAL_ENV=$(CURDIR)/.venv UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(BIN)/uv pip install -q

.venv/quickstart .venv/dev: pyproject.toml constraints.txt | .venv/bin/pip
	$(PIP) uv
	$(UV) -e ".[$(@F)]" -c constraints.txt || $(PIP) -e ".[$(@F)]" -c constraints.txt
	$(if $(filter dev,$(@F)),$(PIP) --no-deps $(CHECK))
	@touch $@
