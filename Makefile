# make demo | test | check | bench — each sets everything up first; a second call installs nothing.
SHELL := /bin/bash
PYTHON ?= python3
EXTRA ?= cpu
VENV := .venv
BIN := $(VENV)/bin
LOCK := $(if $(filter gpu,$(EXTRA)),requirements-gpu.lock,requirements.lock)
STAMP := $(VENV)/.installed-$(EXTRA)

.PHONY: setup demo test check bench bench-gpu lock clean

setup: $(STAMP)

$(STAMP): $(LOCK) pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python $(LOCK)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.installed-* && touch $@

demo: setup
	$(BIN)/reelstore demo

test: setup
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m flows.lock check

bench: setup
	$(BIN)/python -m benchmarks

bench-gpu: setup
	$(BIN)/python -m benchmarks.gpu --size base

lock: setup
	$(BIN)/python -m flows.lock write

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
