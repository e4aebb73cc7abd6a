# make demo   a Pareto front of real trainings from a fresh clone
# make test   the tests, in the same environment

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash

.PHONY: demo test chaos lint clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	# parsers only: their own dependencies would replace torch and transformers
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(VENV)/parsers axolotl==0.19.0 llamafactory==0.9.5 omegaconf==2.4.0
	touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(BIN)/autopeft search --budget 0.5%

test: $(VENV)/.dev
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(PYTEST_ARGUMENTS)

chaos: $(VENV)/.dev
	CHAOS_SECONDS=$(or $(SECONDS),60) HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m chaos tests/chaos/test_storms.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV)
