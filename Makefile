# Everything a fresh machine needs is Python 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One more than processors: the tests wait as much as they work.
PYTEST_WORKERS ?= 3

.PHONY: help run bench shows chaos soak long audit fuzz test lint types arrows unit lock clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Paceline needs Python 3.11 or later; name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: $(STAMP) ## the main job on this machine, with a report
	$(BIN)/paceline rehearse $(ARGS)

bench: $(STAMP) ## what a message costs, beside a naive loop and RQ alone
	$(BIN)/paceline bench $(ARGS)

shows: $(STAMP) ## what is promised of pace, fairness and events, on real processes and nginx (12 minutes)
	PYTHONPATH=tests $(BIN)/python -m shows all $(ARGS)

# Runs may be split over seeds, and their reports summed: python -m rampage total FILE...
SEED ?= 1
KILLS ?= 50
MINUTES ?=
REPORT ?=
LONG = $(if $(MINUTES),--minutes $(MINUTES)) $(if $(REPORT),--report $(REPORT)) $(ARGS)

chaos: $(STAMP) ## kills and freezes at random, and the ledger (SEED=1 KILLS=50 MINUTES= REPORT=)
	PYTHONPATH=tests $(BIN)/python -m rampage run --seed $(SEED) --kills $(KILLS) $(LONG)

soak: $(STAMP) ## an hour at 100/s with faults and a kill each minute: nothing grows (MINUTES=60 REPORT=)
	PYTHONPATH=tests $(BIN)/python -m soak --seed $(SEED) $(LONG)

# One after the other: they cut links, step clocks and time recoveries.
long: $(STAMP) ## pytest, the tests that are too long for `make test`
	$(BIN)/python -m pytest -m long $(ARGS)

test: lint types arrows unit ## all checks and tests

lint: $(STAMP) ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy
	$(BIN)/mypy docs/examples/events/consumer.py docs/examples/fastapi/app.py

# Asks PyPI for what is known of each locked version, so it needs the network: a version that could
# not be asked about is a failure here, not a pass. Ruff runs bandit's rules in `make lint` too.
audit: $(STAMP) ## known vulnerabilities of what is locked, and bandit
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive daemon workers
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
	    $(foreach lock,requirements.lock deploy/requirements.lock deploy/build.lock,--requirement $(lock))

# Until the time is over or a fault is found, which is written to .run/fuzz; what was found before is
# in tests/fuzz and is tried in every `make test`.
SECONDS ?= 60
TARGET ?= all
fuzz: $(STAMP) ## atheris on what reads bytes that others wrote: SECONDS=60 TARGET=all
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=2.3'
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(SECONDS) $(TARGET)

arrows: $(STAMP) ## which room may import which
	$(BIN)/lint-imports --no-cache

# By file, for fixtures of a module: a stack of processes is started once. In the order of the folders:
# chaos, whose few tests are the longest, comes first, so that no worker is left alone with it.
unit: $(STAMP) ## pytest
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

LOCK := uv export --no-emit-project --no-header --format requirements.txt --quiet

lock: ## make the locks anew from pyproject.toml (needs uv): ours, and the image's two
	$(LOCK) --all-extras --all-groups --no-group fuzz --output-file requirements.lock
	$(LOCK) --no-dev --extra daemon --output-file deploy/requirements.lock
	$(LOCK) --only-group build --output-file deploy/build.lock
	rm -f uv.lock

clean: ## remove what make made
	rm -rf $(VENV) .run .paceline .mypy_cache .ruff_cache .pytest_cache .hypothesis
