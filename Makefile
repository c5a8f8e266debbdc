# Needs only GNU make and Python >= 3.11 with its venv module; everything else goes into .venv.
#   make run    set up, compile, simulate the default cluster; prints a summary and where the results and the figure are
#   make test   set up, compile, all checks and tests

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help install compile run test lint format lock clean

# The first Python that is new enough and can make a virtual environment; `make PYTHON=...` chooses another.
FIND_PYTHON = for python in python3.11 python3.12 python3.13 python3; do \
	if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then command -v $$python; break; fi; done
PYTHON ?= $(shell $(FIND_PYTHON))

BIN := .venv/bin
STAMP := .venv/installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

help:
	@sed -n 's/^#   //p' Makefile

$(STAMP): pyproject.toml requirements.lock
	@if [ -z "$(PYTHON)" ]; then echo "make: no Python >= 3.11 with its venv module found:" \
	"install one (Debian: apt install python3-venv), or name it with make PYTHON=..." >&2; exit 1; fi
	@echo "installing into .venv with $(PYTHON) (a minute or two, about 1 GB; once)"
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --use-pep517 --requirement requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

install: $(STAMP)

# What is compiled is kept in the cache folder of the user, so that this takes time only after a change of the kernels.
compile: $(STAMP)
	@echo "compiling the kernels (up to a minute; once per version)"
	$(BIN)/python -m podcluster.host.kernel
	$(BIN)/python -m podcluster.placement.kernel

run: compile
	$(BIN)/podcluster

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A process of tests for each core; beyond a few, the tests that start a Ray take longest, and those are one at a time.
# A process that crashes ends it all: another in its place might wait for tests for ever.
test: lint compile
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --max-worker-restart 0

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Resolve pyproject.toml afresh and write down what came out.
lock:
	rm -rf .venv.lock
	$(PYTHON) -m venv .venv.lock
	.venv.lock/bin/python -m pip install --quiet --editable '.[dev,notebook]' hatchling editables
	{ sed -n '/^#/p' requirements.lock; .venv.lock/bin/python -m pip freeze --exclude-editable; } > requirements.lock.new
	mv requirements.lock.new requirements.lock
	rm -rf .venv.lock

clean:
	rm -rf .venv .venv.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find podcluster tests -name __pycache__ -type d -prune -exec rm -rf {} +
