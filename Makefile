# Every target does its own set-up: a virtual environment in .venv, remade when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test lint format claims bench bench-gpu reproductions classification survey clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 24

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: .venv/installed  ## install, then forecast the embedded weather data with iTransformer (about 2 minutes)
	$(BIN)/runner task=ts_forecast model=itransformer

test: .venv/installed  ## lint, import contracts, and all tests, a file at a time on every core
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile

lint: .venv/installed  ## ruff and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: .venv/installed  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

claims: .venv/installed  ## every paper's claim on its laptop experiment, into CLAIMS.md
	$(BIN)/python benchmarks/claims.py

bench: .venv/installed  ## what a step, an epoch, start-up and a report of 2,000 runs cost, into benchmarks/speed.md
	$(BIN)/python benchmarks/speed.py

bench-gpu: .venv/installed  ## kernels at the papers' shapes on this machine's GPU, into benchmarks/gpu/ (first the GPU tests)
	$(BIN)/python -m pytest -m gpu tests/kernels
	$(BIN)/python benchmarks/gpu.py

reproductions: .venv/installed  ## published rows on three seeds, into benchmarks/reproductions.md (over an hour)
	$(BIN)/python benchmarks/reproduce.py

classification: .venv/installed  ## classifiers of series on eleven UEA sets, three seeds, into benchmarks/reproductions.md (an hour)
	$(BIN)/python benchmarks/classification.py

survey: .venv/installed  ## the analyses of the time-series survey on three seeds, into benchmarks/survey/ (about 35 minutes)
	$(BIN)/python benchmarks/survey.py

clean:  ## remove the environment and caches; outputs stay
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .import_linter_cache
