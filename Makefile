# The commands of this project. `make demo` and `make test` need Python >= 3.11, git and make, and nothing else:
# the first of them makes .venv and installs the pinned packages, later ones reuse it.
#
#   PYTHON=python3.12     interpreter that makes .venv (default: python3)
#   TORCH_INDEX=URL       take torch from this package index (e.g. https://download.pytorch.org/whl/cpu)
#   DEMO_ARGS="..."       arguments handed to scripts/demo.py

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
DEMO_ARGS ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# Empty, or one line that says why PYTHON cannot make the environment.
python_problem = $(shell \
  command -v "$(PYTHON)" >/dev/null 2>&1 || { echo "there is no $(PYTHON) here: install Python 3.11 or newer, or name one with PYTHON=..."; exit; }; \
  "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || \
    { echo "$(PYTHON) is older than Python 3.11: install a newer one and name it with PYTHON=..."; exit; }; \
  "$(PYTHON)" -c 'import venv, ensurepip' >/dev/null 2>&1 || \
    echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian: apt install python3-venv)")
made_with := $(shell cat $(READY) 2>/dev/null)

.PHONY: help demo test test-slow test-all format clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      train the tiny model with and without pruning, evaluate both, write a report (15 to 25 minutes)"
	@echo "make test      lint, format check and the fast tests (minutes)"
	@echo "make test-all  the same and the slow tests: faults, several ranks, documented commands, a short demo"
	@echo "make format    rewrite the code in the project's format"
	@echo "make clean     remove .venv and caches"

demo: $(READY)
	$(BIN)/python scripts/demo.py $(DEMO_ARGS)

test test-slow: export OMP_NUM_THREADS = 1

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 -m "not slow" --durations=20

test-slow: $(READY)
	$(BIN)/python -m pytest -n 2 -m slow --durations=20

test-all: test test-slow

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

ifneq ($(TORCH_INDEX),)
ifneq ($(wildcard $(READY)),)
ifneq ($(TORCH_INDEX),$(made_with))
$(READY): other_torch
endif
endif
endif

.PHONY: other_torch
other_torch:
	$(error $(VENV) was made with torch from another index: remove it (make clean) and run this again)

$(READY): constraints.txt setup.py
	$(if $(python_problem),$(error $(python_problem)))
	@echo "Setting up $(VENV) with the pinned packages: a few minutes, once"
	@"$(PYTHON)" -m venv $(VENV)
	@$(if $(TORCH_INDEX),$(PIP) install --index-url $(TORCH_INDEX) $$(grep -E '^torch(vision)?==' constraints.txt))
	@$(PIP) install -c constraints.txt -e '.[test]'
	@$(PIP) install --no-deps "$$(grep '^dashscope==' constraints.txt)" "$$(grep '^trackeval==' constraints.txt)"
	@echo "$(TORCH_INDEX)" > $@
