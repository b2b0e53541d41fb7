# Everything sets itself up: `make demo` and `make test` work on a machine with Python, pip and make.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint types bench protos clean setup

setup: .venv/.ready

# torch first and by its pinned version: any other request for it may fetch gigabytes of GPU libraries.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt setuptools
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Eight daemons learn together; then the same peers alone, and one with all the data, in virtual time.
DEMO_SECONDS ?= 25
DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)
demo: setup
	$(BIN)/gradvine testbed --topology exponential --nodes 8 --alpha 0.1 --duration $(DEMO_SECONDS)s --out $(DEMO)/together
	@for alone in local centralised; do $(BIN)/gradvine simulate --topology exponential --nodes 8 --alpha 0.1 \
	    --duration $(DEMO_SECONDS)s --algorithm $$alone --out $(DEMO)/$$alone --json >/dev/null || exit 1; done
	$(BIN)/gradvine report $(DEMO)/together $(DEMO)/local $(DEMO)/centralised --output $(DEMO)

# Files side by side: most of the time of a test of real daemons is waiting.
TEST_JOBS ?= 2
test: setup
	$(BIN)/pytest --numprocesses $(TEST_JOBS) --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

protos: setup
	cd protos && ../$(BIN)/python regenerate.py

bench: setup
	for name in training virtual_time exchange memory startup recovery planner; do $(BIN)/python -m benchmarks.$$name || exit 1; done

clean:
	rm -rf .venv runs build dist *.egg-info
