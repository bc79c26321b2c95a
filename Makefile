# Each target sets up what it needs in .venv; nothing else is required but Python 3.11+ and make.
PYTHON ?= python3
PROMPT ?= a large red metal sphere left of a small blue rubber cube on a gray floor
BIN = .venv/bin
COMMA = ,

# ATEN_CPU_CAPABILITY : ONEDNN_MAX_CPU_ISA : the processor's flag. Kernels add in another order with each.
INSTRUCTION_SETS = avx2:AVX2:avx2 avx512:AVX512_CORE:avx512f avx512:AVX512_CORE_AMX:amx_tile

.PHONY: demo web test test-thorough test-numeric lint quality style bench bench-train docs

demo: .venv/installed
	$(BIN)/imagen-diffusers generate "$(PROMPT)" --output image.png --seed 7

web: .venv/installed-web
	$(BIN)/imagen-diffusers web

# One process a core, each with one thread: the networks of the tests are too small to share.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

test: .venv/installed-reference
	$(PYTEST) -m "not thorough"

test-thorough: .venv/installed-reference
	$(PYTEST) -m thorough

test-numeric: .venv/installed-reference
	@set -e; for set in $(INSTRUCTION_SETS); do \
		flag=$${set##*:}; aten=$${set%%:*}; onednn=$${set#*:}; onednn=$${onednn%:*}; \
		if ! grep -qw $$flag /proc/cpuinfo; then echo "left out $$onednn: the processor has no $$flag"; continue; fi; \
		echo "ATEN_CPU_CAPABILITY=$$aten ONEDNN_MAX_CPU_ISA=$$onednn"; \
		ATEN_CPU_CAPABILITY=$$aten ONEDNN_MAX_CPU_ISA=$$onednn $(BIN)/python -m pytest -m numeric; \
	done

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

quality: lint
	$(BIN)/pyright

style: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# make bench ONLY=stages,growth measures parts again.
bench: .venv/installed-reference
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[bench]"
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(subst $(COMMA), ,$(ONLY)))

bench-train: .venv/installed-reference
	$(BIN)/python -m benchmarks.train

# To read it: open build/site/index.html; the search asks for a server, as of `$(BIN)/mkdocs serve`.
docs: .venv/installed-docs
	$(BIN)/python -m docs.hooks.commands
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	touch $@

# Of an older Python, and of one that fails half way, there would be an environment that no later run mends.
.venv/installed: setup.py constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit( \
		'$(PYTHON) is Python %d.%d, and 3.11 or later is needed: give one, such as PYTHON=python3.12' % sys.version_info[:2])"
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	@echo "Installing into .venv. Torch is large: this takes minutes, and says nothing until it is done."
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

.venv/installed-web: .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[web]"
	touch $@

.venv/installed-reference: .venv/installed-dev
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[reference]"
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps imagen-pytorch
	$(BIN)/python -m pip install --quiet --no-deps --target .venv/imagen-pytorch-1.26.3 imagen-pytorch==1.26.3
	$(BIN)/python -m pip install --quiet --no-deps --target .venv/fidelity -c constraints.txt torch-fidelity clean-fid
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@
