# make run     trains examples/digits_cnn.toml, evaluates it on held-out digits and says where the run folder is
# make test    everything that CI runs: ruff, mypy and all tests
# make quick   the tests that compile (almost) nothing, under a minute
# make check   ruff and mypy alone
# make bench   the benchmarks
# Variables: PYTHON (an interpreter of 3.11 or newer, makes the environment), VENV (its folder), ARGS (added to `make run`
# and `make bench`), JOBS (processes that run tests).
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
JOBS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -q

.PHONY: run test quick check format bench clean
.DEFAULT_GOAL := run

# The install is editable, so that code never goes stale; setup.cfg decides when to install again.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    f"nnjit needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) install -e .
	@touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[test]'
	@touch $@

run: $(VENV)/.installed
	$(BIN)/nnjit train examples/digits_cnn.toml $(ARGS)

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

quick: $(VENV)/.installed-test
	$(BIN)/python -m pytest -x -m "not slow"

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# peers that are not installed are left out with a message: pip install -e '.[torch,bench]'
bench: $(VENV)/.installed
	$(BIN)/python -m bench.steps $(ARGS)
	$(BIN)/python -m bench.inference
	$(BIN)/python -m bench.growth
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.startup

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
