# Two commands do everything: `make demo` and `make test`. Each makes .venv first if it is not there.
#
# On Linux, torch from PyPI brings CUDA along. For a small CPU-only install:
#   make venv TORCH="torch --index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
STAMP := .venv/.complete

.PHONY: venv demo test lint format real clean

venv: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mammopath needs Python 3.11 or newer; name one with PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --quiet --progress-bar off $(TORCH)
	$(BIN)/python -m pip install --quiet --progress-bar off --editable '.[test]'
	touch $(STAMP)

demo: $(STAMP)  ## the main job on a synthetic cohort: index, check, leave-one-domain-out, report
	$(BIN)/mammopath demo --out runs/demo

test: $(STAMP)  ## all tests; those that need absent data say so
	$(BIN)/python -m pytest -n 2 --dist worksteal -q -r s

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

real: $(STAMP)  ## the study on real images beside the repository, and its page with what the page is made from
	$(BIN)/mammopath lodo configs/real_small.yaml --out runs/real_small
	$(BIN)/mammopath report runs/real_small --markdown docs/results/real_small.md

clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
