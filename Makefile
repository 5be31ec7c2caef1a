# The commands of this project. `make` alone lists them.
#
# PYTHON=…   the interpreter for .venv (default: the newest of 3.13, 3.12, 3.11 that is there)
# WORKERS=…  how many processes run the tests (default: two more than there are cores)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
# Where it is set, each of the hundreds of interpreters that the tests start would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
WORKERS ?= logical
FAST_MOUNT := $(addprefix tests/mount/test_,journal.py merge.py scratch.py filesystem_files.py mirror_edits.py)

.PHONY: help setup run test test-fast test-long lint format bench demo lock clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-9s %s\n' "$$name" "$$what"; done

setup: .venv/dev.stamp ## make .venv with everything for development

run: .venv/runtime.stamp ## serve on 127.0.0.1:8080, data in ./data
	@exec $(BIN)/memstore serve

# Lint comes first because it is quick; the tests come last, so that pytest's summary is the last line.
test: lint ## lint, then every test on both back ends
	@$(BIN)/pytest -n $(WORKERS) --maxprocesses=8 --dist=loadgroup --durations=40 --durations-min=2

test-fast: lint ## lint, then the tests that start nothing: about a minute
	@$(BIN)/pytest -n $(WORKERS) --maxprocesses=8 --dist=loadgroup tests/unit $(FAST_MOUNT) --deselect tests/unit/test_support.py

test-long: lint ## what each run tries a few times, many times, and both back ends where one is enough; CI does not
	@MEMSTORE_TEST_LONG=1 MEMSTORE_TEST_BACKENDS=all MEMSTORE_TEST_HANGS=3000 $(BIN)/pytest -n $(WORKERS) \
		--maxprocesses=8 --dist=loadgroup --timeout=2500 -m 'long or any_backend' --durations=20

lint: setup ## style, types, import contracts, generated documents
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python scripts/check_generated.py

format: setup ## let ruff rewrite the code in the project's style
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

bench: setup ## measure, and write the table of figures
	@$(BIN)/python -m scripts.bench

demo: setup ## the main job on real Markdown, with the official SDK
	@$(BIN)/python -m scripts.demo

# Both locks hold the same versions; the second adds what development needs.
lock: setup ## lock the dependencies anew
	@$(COMPILE) --output-file requirements.lock pyproject.toml
	@$(COMPILE) --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

clean: ## remove .venv and caches; ./data stays
	rm -rf .venv build dist tests/typescript/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -not -path './data/*' -prune -exec rm -rf {} +

COMPILE := UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --upgrade --universal \
	--python-version 3.11 --generate-hashes

# The stamps say what is installed; they are older than what they depend on when there is work to do.
.venv/dev.stamp: .venv/runtime.stamp requirements-dev.lock
	@echo 'Installing what development needs …'
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

.venv/runtime.stamp: .venv/bin/python requirements.lock pyproject.toml
	@echo 'Installing Memstore …'
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) uninstall --yes memstore # what the distribution was called before
	@$(PIP) install --no-deps -e .
	@touch $@

# A name on the PATH is not enough: version managers put names there that only print a complaint, and some
# systems part Python from the modules that make an environment.
.venv/bin/python:
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
		"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
		echo "Making .venv with $$("$$python" --version) …"; \
		exec "$$python" -m venv --clear .venv; \
	done; \
	echo 'No Python 3.11 or newer that can make a virtual environment (Debian: apt-get install python3-venv).' >&2; \
	echo 'Another one: make PYTHON=/path/to/python …' >&2; \
	exit 1
