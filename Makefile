PYTHON ?= python3
BIN := .venv/bin
# where it is set, every process compiles every module anew: most of the time of a short test
export PYTHONDONTWRITEBYTECODE :=
# W&B's own check of sweep files, for a test; it asks for numpy 1, which it does not need
CHECK := sweeps==0.3.0

# packages of pure functions, whose tests need no model and no trainer
PURE := tests/test_nested.py tests/test_files.py tests/test_public_names.py tests/losses tests/metrics tests/objective tests/config
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# two processes, a file in one of them; in the order of pyproject's testpaths, the longest first
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help quickstart torture check test test-slow test-all lint types pure suite

help:  ## show this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: .venv/quickstart  ## train MIC on real text in minutes: a table, three figures, a model
	$(BIN)/mic train configs/quickstart.yaml --overwrite

torture: .venv/quickstart  ## kill and resume runs in 30 ways: half an hour, a table
	$(BIN)/python experiments/torture/torture.py

check: .venv/dev  ## lint, types, the tests of the pure packages
	@$(MAKE) -j 2 lint types pure

test: .venv/dev  ## lint, types, every test but the slow ones, every docstring example
	@$(MAKE) -j 2 lint types suite

test-slow: .venv/dev  ## the tests that need minutes: several nodes, three ranks, databases, browser, mteb
	$(PYTEST) $(PARALLEL) -m slow tests
	SHAPES=all $(PYTEST) $(PARALLEL) -m "not slow" tests/data/order

test-all:  ## what continuous integration runs: test, then test-slow
	@$(MAKE) test
	@$(MAKE) test-slow

lint: .venv/dev  ## ruff: style and formatting; import-linter: which package may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/dev  ## mypy, strict
	$(BIN)/mypy

# shapes are left to `make test`: looking at them at run time doubles the time of a pure test
pure: .venv/dev
	SHAPES=none $(PYTEST) -n 2 -m "not slow and not processes" $(PURE)

suite: .venv/dev
	$(PYTEST) $(PARALLEL) -m "not slow"

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit("mic needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

# one stamp for each set of packages: installed once, again only when what is wanted changes; by uv,
# which takes a tenth of pip's time, and by pip where uv does not find its way to the packages
PIP := $(BIN)/pip install --disable-pip-version-check -q
UV := VIRTUAL_ENV=$(CURDIR)/.venv UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(BIN)/uv pip install -q --compile-bytecode

.venv/quickstart .venv/dev: pyproject.toml constraints.txt | .venv/bin/pip
	$(PIP) uv
	$(UV) -e ".[$(@F)]" -c constraints.txt || $(PIP) -e ".[$(@F)]" -c constraints.txt
	$(if $(filter dev,$(@F)),$(PIP) --no-deps $(CHECK))
	@touch $@
