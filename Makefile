# Everything that a person or a machine does to this repository; `make` alone lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Where to take torch from, when not from pip's own configuration; only the torch step uses it.
TORCH_INDEX ?=
# More arguments for pytest, such as PYTEST_ARGS="-k checkpoint -x".
PYTEST_ARGS ?=
PYTEST := $(BIN)/python -m pytest
# Most tests wait for processes that they start: two at a time use two cores. A file's tests stay together.
SIDE_BY_SIDE := -n 2 --dist loadfile

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo demo-hosts check test test-all test-long test-chaos bench peers clean

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## create .venv with everything pinned in constraints.txt

demo: $(STAMP)  ## grow a small model on this machine, from text to report, in ./demo
	$(BIN)/seedbed demo --out demo

demo-hosts: $(STAMP)  ## three hosts as namespaces of this machine, one of which dies: needs root
	$(BIN)/python -m tests.three_hosts_demo

check: $(STAMP)  ## lint, formatting, types and the rules of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) tests/test_architecture.py

test: $(STAMP)  ## the tests that take seconds each
	$(PYTEST) $(SIDE_BY_SIDE) -m "not long and not chaos" -o faulthandler_timeout=700 $(PYTEST_ARGS)

test-all: test test-long test-chaos  ## every test, those that take minutes and those that inject faults too

test-long: $(STAMP)  ## the tests that take minutes each
	$(PYTEST) $(SIDE_BY_SIDE) -m "long and not chaos" $(PYTEST_ARGS)

test-chaos: $(STAMP)  ## the tests that inject faults, one at a time: they are about moments
	$(PYTEST) -m "chaos" $(PYTEST_ARGS)

bench: $(STAMP)  ## run every comparison in benchmarks/ that needs no GPU
	@set -e; for script in $(filter-out benchmarks/gpu.py, $(wildcard benchmarks/*.py)); do \
		if [ -e "$$script" ]; then echo "== $$script" >&2; $(BIN)/python -P "$$script"; fi; \
	done

peers:  ## create the environments of the other systems that `make bench` compares with
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q -r benchmarks/peers.txt
	$(PYTHON) -m venv .venv-train-peers
	.venv-train-peers/bin/python -m pip install -q $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) torch==2.13.0
	.venv-train-peers/bin/python -m pip install -q -r benchmarks/train-peers.txt
	$(PYTHON) -m venv .venv-rl-peers
	.venv-rl-peers/bin/python -m pip install -q $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) torch==2.13.0
	.venv-rl-peers/bin/python -m pip install -q -r benchmarks/rl-peers.txt
	$(PYTHON) -m venv .venv-evals-peers
	.venv-evals-peers/bin/python -m pip install -q $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) torch==2.13.0
	.venv-evals-peers/bin/python -m pip install -q -r benchmarks/evals-peers.txt

clean:  ## remove .venv, ./demo, caches and build outputs; runs/ stays
	rm -rf $(VENV) .venv-peers .venv-train-peers .venv-rl-peers .venv-evals-peers demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# With an index of its own, torch comes without its dependencies: they are pinned to releases that
# such an index need not have, and the second step installs them.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Seedbed needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "\n  fix: make setup PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@
