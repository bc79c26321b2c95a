# Each target sets up what it needs in .venv; nothing else is required but Python 3.11+ and make.
PYTHON ?= python3
PROMPT ?= a large red metal sphere left of a small blue rubber cube on a gray floor
BIN = .venv/bin

.PHONY: demo test lint quality style bench bench-train

demo: .venv/installed
	$(BIN)/imagen-diffusers generate "$(PROMPT)" --output picture.png --seed 7

test: .venv/installed-reference
	$(BIN)/python -m pytest

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

quality: lint
	$(BIN)/pyright

style: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-reference
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[bench]"
	$(BIN)/python -m benchmarks

bench-train: .venv/installed-reference
	$(BIN)/python -m benchmarks.train

.venv/installed: setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

.venv/installed-reference: .venv/installed-dev
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[reference]"
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps imagen-pytorch
	$(BIN)/python -m pip install --quiet --no-deps --target .venv/imagen-pytorch-1.26.3 imagen-pytorch==1.26.3
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@
