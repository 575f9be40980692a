# Everything a stranger needs: `make demo` and `make test` set up what they use, the first time.
#
# Python 3.11 and make are enough. Everything is installed into .venv; nothing else is touched.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
PIP := $(BIN)/pip install --quiet --disable-pip-version-check $(PIP_OPTIONS)

# torch goes first and alone: its exact version keeps pip from fetching several GB of CUDA packages.
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

.PHONY: demo test test-all check bench evidence clean setup setup-dev

demo: setup
	$(BIN)/fedseal demo

# Without coverage, which slows the protocol's inner loops; `make test-all` has it. In two processes: a file stays in one.
test: setup-dev
	$(PYTEST) -n 2 --dist loadfile -m "not slow"

test-all: setup-dev
	$(PYTEST) --cov --cov-report=term:skip-covered

# Format, lint, types and layers; no tests.
check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Timings. They are printed and written to bench/results, never asserted in tests.
bench: setup-dev
	$(BIN)/python bench/secagg.py --out bench/results/secagg.json
	$(BIN)/python bench/memory.py --out bench/results/memory.json
	$(BIN)/python bench/log.py --out bench/results/log.json

# The long trials behind the claims in docs/evidence.md.
evidence: setup-dev
	$(BIN)/python bench/secure_sum.py
	$(BIN)/python bench/demo_seeds.py --out bench/results/demo_seeds.json
	$(BIN)/python bench/privacy_audit.py --out bench/results/privacy_audit.json
	$(BIN)/python bench/log_durability.py
	PYTHONPATH=tests $(BIN)/python bench/first_round.py --out bench/results/first_round.json
	PYTHONPATH=tests $(BIN)/python bench/isolation.py --out bench/results/isolation.json
	PYTHONPATH=tests $(BIN)/python bench/faults.py
	PYTHONPATH=src:tests:compliance/verify $(BIN)/python bench/fuzz.py --plain --seconds 20
	$(PYTEST) -m slow

setup: $(VENV)/.simulation
setup-dev: $(VENV)/.dev

$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	touch $@

$(VENV)/.simulation: $(VENV)/.torch pyproject.toml
	$(PIP) --constraint constraints.txt --editable ".[simulation]"
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) --constraint constraints.txt --editable ".[dev]"
	touch $@ $(VENV)/.simulation

clean:
	rm -rf $(VENV) build dist .coverage htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
