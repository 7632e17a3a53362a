# Every target does its own set-up and says in one line what is missing if it cannot.
# make demo · test · serve · lint · client · bench · gas · fuzz · chaos · mutate · coverage · slither · halmos · artifacts · clean

VENV := .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export NO_UPDATE_NOTIFIER := 1
export PYTHONUNBUFFERED := 1
PYTEST_WORKERS ?= 2

.PHONY: help setup demo serve test lint client contracts artifacts artifacts-check bench gas fuzz chaos mutate coverage slither halmos clean lock
.DEFAULT_GOAL := help

help: ## what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(VENV)/.ready node_modules/.ready ## Python and Node packages, locked

$(VENV)/.ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "missing: Python 3.11 to 3.13 with venv (Debian: apt-get install python3 python3-venv)"; exit 1; }
	@echo "setting up Python packages ..."
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check --only-binary :all: --require-hashes -r requirements.lock 2>$(VENV)/pip.log \
		|| { cat $(VENV)/pip.log; echo "missing: Python packages could not be installed; is a package registry reachable?"; exit 1; }
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . 2>>$(VENV)/pip.log \
		|| { cat $(VENV)/pip.log; exit 1; }
	@touch $@

# Node comes from a Python package: Hardhat 3 needs a newer one than most machines have. Not `npm ci`: it refuses a lock
# without the binaries of every other platform, and a registry need not have them. Versions and hashes are the lock's.
node_modules/.ready: package.json package-lock.json $(VENV)/.ready
	@echo "setting up Node packages ..."
	@npm install --no-save --no-audit --no-fund --loglevel=error >$(VENV)/npm.log 2>&1 \
		|| { cat $(VENV)/npm.log; echo "missing: Node packages could not be installed; is a package registry reachable?"; exit 1; }
	@touch $@

demo: setup ## one exchange, end to end, on a local chain
	@sluice demo run

serve: setup ## chain, mirror and API until Ctrl-C
	@test -f build/demo/transactions.json || sluice demo run
	@sluice demo serve

test: lint artifacts-check contracts ## everything that must hold
	@python -m pytest -n $(PYTEST_WORKERS) --dist loadgroup -q

client: setup ## the typed Python client from the API's description
	@python -m api.generate_client

lint: setup ## ruff, mypy, import-linter, prettier, solhint, generated files
	@mkdir -p build
	@ruff check . && ruff format --check -q . && mypy
	@lint-imports >build/imports.log 2>&1 || { cat build/imports.log; exit 1; }
	@npm run --silent lint >build/solidity-lint.log 2>&1 || { cat build/solidity-lint.log; exit 1; }
	@python -m api.generate_client --check
	@echo "lint: ok"

contracts: setup ## Solidity tests
	@mkdir -p build
	@npx --no-install hardhat build --no-tests >build/contracts.log 2>&1 || { cat build/contracts.log; exit 1; }
	@npx --no-install hardhat test solidity >build/contracts.log 2>&1 || { cat build/contracts.log; exit 1; }
	@grep -E "passing|failing" build/contracts.log

artifacts: setup ## compile the contracts into the package
	@python -m ledger.chain.compile

artifacts-check: setup
	@python -m ledger.chain.compile --check

bench: setup ## figures into build/bench.json
	@python -m bench

gas: setup ## gas of what people do most, against ceilings and the last snapshot
	@python -m bench.gas

fuzz: setup ## the same Solidity tests and model, with many more runs (FUZZ_RUNS, INVARIANT_RUNS, MODEL_EXAMPLES)
	@npx --no-install hardhat build --no-tests >build/contracts.log 2>&1 || { cat build/contracts.log; exit 1; }
	@FUZZ_RUNS=$${FUZZ_RUNS:-20000} INVARIANT_RUNS=$${INVARIANT_RUNS:-5000} npx --no-install hardhat test solidity
	@MODEL_EXAMPLES=$${MODEL_EXAMPLES:-500} python -m pytest -q tests/contracts/test_model.py

chaos: setup ## the mirror under random schedules of faults, crashes and reorgs, thousands of them (CHAOS_EXAMPLES)
	@CHAOS_EXAMPLES=$${CHAOS_EXAMPLES:-5000} python -m pytest -q tests/ledger/mirror/test_chaos.py

mutate: setup ## does the Solidity suite notice a wrong line? 320 of all mutants, 90 % must be noticed
	@python -m tests.proofs.mutants

coverage: setup ## lines of the contracts that the Solidity suite runs; 98 % must be
	@python -m tests.proofs.coverage

slither: setup ## static analysis; every finding must be answered in docs/security.md
	@python -m tests.proofs.slither

halmos: setup ## symbolic proofs of price, split and the money's steps
	@python -m tests.proofs.halmos

lock: ## renew requirements.lock (needs uv)
	uv pip compile pyproject.toml --extra dev --generate-hashes --no-emit-index-url --python-version 3.11 --universal -q -o requirements.lock
	cd tests/proofs && uv pip compile requirements.in --generate-hashes --no-emit-index-url --python-version 3.11 --universal -q -o requirements.lock

clean: ## remove what was built
	rm -rf build $(VENV) node_modules
