# demo, test, lint, docs, bench, bench-node, bench-instructions, bench-growth, bench-routing, bench-telemetry, soak, clean.
# Each sets itself up inside the repository; the second time is quick.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := test

FIND_PYTHON = for name in python3.11 python3.12 python3.13 python3.14 python3.15 python3; do \
  "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$name"; exit; }; done; \
  echo "no-python-3.11-or-newer-with-venv"
BASE_PYTHON ?= $(shell $(FIND_PYTHON))
PYTHON := .venv/bin/python
NODE_SOURCES := $(shell find crates bindings/node data -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.ts' -o -name '*.mts' \
  -o -name 'models.json' -o -name 'package*.json' -o -name 'tsconfig.json' -o -name '.npmrc' \) -not -path '*/target/*' \
  -not -path '*/tests/*' -not -path '*/fuzz/*' -not -path '*/node_modules/*' -not -path '*/node/data/*' 2>/dev/null) \
  Cargo.toml Cargo.lock scripts/build_node.py
SOURCES := $(shell find crates bindings/python data -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.json' \) \
  -not -path '*/target/*' -not -path '*/tests/*' -not -path '*/fuzz/*' 2>/dev/null) Cargo.toml Cargo.lock pyproject.toml

export PYO3_PYTHON := $(CURDIR)/.venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_QUIET := 1
export VIRTUAL_ENV := $(CURDIR)/.venv

.PHONY: demo test lint bench bench-node bench-instructions bench-growth bench-routing bench-telemetry soak docs clean

demo: .venv/.release bindings/node/.release
	@$(PYTHON) examples/demo.py
	@node examples/demo.mjs

test: .venv/.built bindings/node/.built
	@$(PYTHON) scripts/check.py all

lint: .venv/.built bindings/node/.built
	@$(PYTHON) scripts/check.py lint

docs: .venv/.built
	@$(PYTHON) -m pytest -q tests/test_docs.py

bench: .venv/.release bindings/node/.release
	@$(PYTHON) benchmarks/clients/run.py $(BENCH)
	@$(PYTHON) benchmarks/node/run.py $(if $(findstring --quick,$(BENCH)),--quick) $(if $(findstring --write,$(BENCH)),--write)

bench-node: bindings/node/.release
	@$(PYTHON) benchmarks/node/run.py $(BENCH)

# BASELINE=write takes the counts as the new baseline.
bench-instructions: .venv/.ready
	@$(PYTHON) benchmarks/instructions/run.py $(if $(filter write,$(BASELINE)),--write)

bench-growth: .venv/.release
	@$(PYTHON) benchmarks/growth/run.py $(GROWTH)

bench-routing: .venv/.built
	@$(PYTHON) benchmarks/routing/run.py

bench-telemetry: .venv/.release
	@$(PYTHON) benchmarks/telemetry/run.py $(TELEMETRY)

# The promise rows in full, then an hour of mixed calls with faults (LITER_LLM_SOAK_MINUTES for another time).
soak: .venv/.release
	@LITER_LLM_SOAK=1 cargo test --locked --quiet -p liter-llm --tests row_
	@LITER_LLM_SOAK=1 $(PYTHON) -m pytest -q tests/promises
	@$(PYTHON) benchmarks/soak/soak.py

clean:
	rm -rf benchmarks/node/node_modules tests/node-22/node_modules .venv .bench-venvs target dist build site node_modules .pytest_cache .ruff_cache .mypy_cache benchmarks/results
	rm -rf $(addprefix bindings/node/,.built .release dist native data LICENSE node_modules)
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

# The Node package, built where it stands; what was said of the two builds holds here as well.
bindings/node/node_modules/.package-lock.json: bindings/node/package.json bindings/node/package-lock.json bindings/node/.npmrc
	cd bindings/node && npm ci --silent
	touch $@

bindings/node/.built: .venv/.ready bindings/node/node_modules/.package-lock.json $(NODE_SOURCES)
	rm -f bindings/node/.release
	$(PYTHON) scripts/build_node.py
	touch $@

bindings/node/.release: .venv/.ready bindings/node/node_modules/.package-lock.json $(NODE_SOURCES)
	$(PYTHON) scripts/build_node.py --release
	touch bindings/node/.built $@
