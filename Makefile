# Two commands on a fresh machine with Python 3.11+ and make:  make demo   make test
# Both set up .venv with the pinned versions first, when that has not been done yet.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
# Two to four processes; a file stays in one of them, so that its fixtures are made once. In the order of the folders,
# so that long files come before many short ones, and no process waits for another at the end.
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo demo-s3 test test-slow test-all lint bench bench-full docs shell reference emulators clean

help:  ## Show what can be made.
	@sed -n 's/^\([a-z0-9-]*\):.*##/make \1\t/p' Makefile | expand -t 18

install: $(STAMP)  ## Set up .venv.

demo: $(STAMP)  ## The whole pipeline on the small world; results in runs/demo.
	$(BIN)/pea run pipeline.yaml

demo-s3: $(STAMP)  ## The same with everything in a bucket, on an S3 server of its own; report in runs/demo-s3.
	$(BIN)/python -m tests.demo_in_a_bucket

test: $(STAMP)  ## The quick tests (two to four minutes on two cores).
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-slow: $(STAMP)  ## The slow tests (kills, full disks, clusters, buckets, whole pipelines).
	$(BIN)/python -m pytest -m slow --durations 40 --durations-min 5 $(PYTEST_ARGS)

test-all: test test-slow  ## Every test but those that are run by hand.

lint: $(STAMP)  ## Style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## Every benchmark in its quick form (after make demo); results in runs/bench.
	$(BIN)/python -m tests.benchmarks.run

bench-full: $(STAMP)  ## Every benchmark in the sizes of the figures in docs/results.
	$(BIN)/python -m tests.benchmarks.run --full

docs: $(STAMP)  ## The pages as a site, every link checked; in build/site.
	$(BIN)/python -m mkdocs build --strict --quiet

shell: $(STAMP)  ## A shell in which `pea` is found.
	@PATH="$(CURDIR)/$(BIN):$$PATH" $${SHELL:-sh}

reference: $(STAMP)  ## Write docs/reference anew from the settings and parsers.
	$(BIN)/python -m stages.reference

emulators:  ## Set up what some tests need beyond Python (Node): an Azure emulator, and another reader of zarr.
	npm install --no-audit --no-fund --silent --prefix .emulators azurite@3.37.0 zarrita@0.7.5

clean:  ## Remove what was built here; runs/ stays.
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

# torch goes first and alone, so that an index of CPU (or other CUDA) builds, once chosen, is respected.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@echo "Setting up $(VENV) (a few minutes, once)"
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@echo "  torch ..."
	@$(PIP) install "$$(grep '^torch==' constraints.txt)"
	@echo "  everything else ..."
	@$(PIP) install --constraint constraints.txt --editable ".[all,dev]"
	@touch $@
