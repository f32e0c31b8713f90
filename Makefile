# demo, test, lint, docs, bench, bench-instructions, bench-growth, bench-routing, soak, clean. Each sets itself up
# inside the repository; the second time is quick.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := test

FIND_PYTHON = for name in python3.11 python3.12 python3.13 python3.14 python3.15 python3; do \
  "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$name"; exit; }; done; \
  echo "no-python-3.11-or-newer-with-venv"
BASE_PYTHON ?= $(shell $(FIND_PYTHON))
PYTHON := .venv/bin/python
SOURCES := $(shell find crates bindings/python data -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.json' \) \
  -not -path '*/target/*' -not -path '*/tests/*' -not -path '*/fuzz/*' 2>/dev/null) Cargo.toml Cargo.lock pyproject.toml

export PYO3_PYTHON := $(CURDIR)/.venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_QUIET := 1
export VIRTUAL_ENV := $(CURDIR)/.venv

.PHONY: demo test lint bench bench-instructions bench-growth bench-routing soak docs clean

demo: .venv/.release
	@$(PYTHON) examples/demo.py

test: .venv/.built
	@$(PYTHON) scripts/check.py all

lint: .venv/.built
	@$(PYTHON) scripts/check.py lint

docs: .venv/.built
	@$(PYTHON) -m pytest -q tests/test_docs.py

bench: .venv/.release
	@$(PYTHON) benchmarks/clients/run.py $(BENCH)

# BASELINE=write takes the counts as the new baseline.
bench-instructions: .venv/.ready
	@$(PYTHON) benchmarks/instructions/run.py $(if $(filter write,$(BASELINE)),--write)

bench-growth: .venv/.release
	@$(PYTHON) benchmarks/growth/run.py $(GROWTH)

bench-routing: .venv/.built
	@$(PYTHON) benchmarks/routing/run.py

# The promise rows in full, then an hour of mixed calls with faults (LITER_LLM_SOAK_MINUTES for another time).
soak: .venv/.release
	@LITER_LLM_SOAK=1 cargo test --locked --quiet -p liter-llm --tests row_
	@LITER_LLM_SOAK=1 $(PYTHON) -m pytest -q tests/promises
	@$(PYTHON) benchmarks/soak/soak.py

clean:
	rm -rf .venv .bench-venvs target dist build site node_modules .pytest_cache .ruff_cache .mypy_cache benchmarks/results
	find python tests benchmarks examples scripts -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	find python -name '_native*.so' -delete 2>/dev/null || true

.venv/.ready: tests/requirements.txt
	"$(BASE_PYTHON)" -m venv .venv
	$(PYTHON) -m pip install --quiet pip==26.3
	$(PYTHON) -m pip install --quiet -r tests/requirements.txt
	touch $@

# Tests take whichever build is newest; the demo and the benchmark need the optimised one. Both put one file into
# python/liter_llm, so a debug build takes the release stamp away; building that again only copies it.
.venv/.built: .venv/.ready $(SOURCES)
	rm -f .venv/.release
	.venv/bin/maturin develop --quiet
	touch $@

.venv/.release: .venv/.ready $(SOURCES)
	.venv/bin/maturin develop --quiet --release
	touch .venv/.built $@
