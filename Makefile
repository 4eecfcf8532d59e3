# Every target works as the very first command in a bare clone: it needs Python >= 3.11 with venv, and package registries.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
READY := $(VENV)/.ready
SOURCES := tunnel protos edge_agent cloud_server tests $(wildcard benches)

# What a user may set: the interpreter that .venv is made with, more words for pytest, how long the fuzzer runs, and on what.
PYTHON ?=
ARGS ?=
FUZZ_SECONDS ?= 50
FUZZ ?=
BENCH ?=

UV_LOCK := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --quiet \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.PHONY: help demo test cover lint types arch protos errors limits e2e cluster bench fuzz lock sbom audit clean

help: ## this list
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## (.*)/\1|\2/' | \
		while IFS='|' read -r name text; do printf '  make %-7s %s\n' "$$name" "$$text"; done

demo: $(READY) ## see it work: a box behind NAT, a real kubectl, the link cut (under two minutes)
	@$(PY) -m tests.demo $(ARGS)

# What `make test` is made of, the longest first: the paths of each lane, by its name. Four run at a time, since most of
# them mostly wait, and what each says is printed when it has ended.
NOT_SLOW := -q -m "not e2e" -p no:cacheprovider
LINKS := tests/core/test_simulated_links.py
INTEGRATION := $(wildcard tests/integration/test_*.py)
FIRST_HALF := $(wildcard tests/integration/test_[a-h]*.py)

LANES := integration-1 integration-2 node shell frontends cover all-else agent tool-and-links cloud
PATHS_integration-1 := $(FIRST_HALF)
PATHS_integration-2 := $(filter-out $(FIRST_HALF),$(INTEGRATION))
PATHS_shell := tests/aio
PATHS_frontends := tests/cloud_server/frontends
PATHS_agent := tests/edge_agent --ignore=tests/edge_agent/autonomy
PATHS_node := tests/edge_agent/autonomy tests/kubeapi
PATHS_tool-and-links := tests/tool tests/support $(LINKS)
PATHS_cloud := tests/cloud_server --ignore=tests/cloud_server/frontends
PATHS_all-else := tests $(addprefix --ignore=,tests/core tests/integration tests/aio tests/cloud_server tests/edge_agent \
	tests/kubeapi $(PATHS_tool-and-links))

test: $(READY) ## all tests but the end-to-end ones (more words for pytest: ARGS=-x)
	@echo "==> tests: $(words $(LANES)) lanes, each told of when it has ended (four to five minutes on two cores)"
	@$(MAKE) --no-print-directory --keep-going --jobs=4 --output-sync=target $(patsubst %,test-%,$(LANES))

test-cover: cover ;

test-%: $(READY)
	$(if $(PATHS_$*),,$(error there is no lane $*: $(LANES)))
	@echo "==> tests: $*"
	@$(PY) -m pytest $(NOT_SLOW) $(PATHS_$*) $(ARGS)

# Whole links are simulated without counting (in a lane of their own), which makes them four times slower.
cover: $(READY) ## tests/core alone must reach every branch of tunnel/core
	@echo "==> tests: tests/core, with the branches of tunnel/core counted"
	@$(PY) -m coverage run -m pytest -q tests/core --ignore=$(LINKS)
	@$(PY) -m coverage report

lint: $(READY) ## style and format
	@echo "==> lint"
	@$(BIN)/ruff check --quiet $(SOURCES)
	@$(BIN)/ruff format --quiet --check $(SOURCES) || \
		{ echo "To put the format right: $(BIN)/ruff format $(SOURCES)"; exit 1; }

types: $(READY) ## mypy, strict
	@echo "==> types"
	@$(BIN)/mypy --no-error-summary $(SOURCES)

arch: $(READY) ## who may import whom, and the size of files and functions
	@echo "==> architecture"
	@out=$$($(BIN)/lint-imports --no-cache 2>&1) || { echo "$$out"; exit 1; }
	@$(PY) -m tests.arch_check $(SOURCES)

protos: $(READY) ## generate protos/*_pb2.py and .pyi again
	@echo "==> protos"
	@$(PY) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. protos/*.proto

errors: $(READY) ## write docs/errors/*.md again, from the table of error codes and its texts
	@echo "==> errors"
	@$(PY) -m tests.error_pages

limits: $(READY) ## write docs/limits.md again, from the limits in the code
	@echo "==> limits"
	@$(PY) -m tests.limits_page

e2e: $(READY) ## real processes, network namespaces and a real kubectl (root for the namespaces)
	@$(PY) -m tests.e2e.cluster build
	@echo "==> tests: tests/e2e, tests/attacks, and what is slow of tests/compat and tests/integration"
	@$(PY) -m pytest -q -m e2e -o faulthandler_timeout=900 tests/e2e tests/attacks tests/compat tests/integration $(ARGS)

cluster: $(READY) ## run a real Kubernetes behind the tunnel until Ctrl-C, and say how to use it (root; builds it once)
	@$(PY) -m tests.e2e.cluster up

bench: $(READY) ## figures beside other tunnels, into docs/benchmarks.md (half an hour; two minutes: BENCH=--quick)
	@$(PY) -m benches $(BENCH)

fuzz: $(READY) ## feed rubbish to everything that parses, for FUZZ_SECONDS (50) in all (one target alone: FUZZ=kubelet)
	@echo "==> fuzz"
	@$(PY) -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ)

lock: $(READY) ## bring the lock files up to the newest releases that pyproject.toml allows
	@echo "==> lock"
	@$(UV_LOCK) --upgrade --extra server --output-file requirements.lock
	@$(UV_LOCK) --upgrade --constraints requirements.lock --output-file requirements-agent.lock
	@$(UV_LOCK) --upgrade --extra server --extra dev --constraints requirements.lock --output-file requirements-dev.lock
	@$(UV_LOCK) --upgrade --extra supply --output-file requirements-supply.lock

# In a venv of their own, outside of what is tested.
SUPPLY := build/supply
$(SUPPLY)/.ready: requirements-supply.lock $(READY)
	@$(PY) -m venv --clear --without-pip $(SUPPLY)
	@$(BIN)/uv pip install --quiet --python $(SUPPLY)/bin/python --require-hashes -r requirements-supply.lock
	@touch $@

sbom: $(SUPPLY)/.ready ## write bills of materials (CycloneDX) of what a server and a box install, into dist/
	@version=$$($(PY) -c 'from importlib.metadata import version; print(version("longline"))'); \
		for name in server:requirements.lock agent:requirements-agent.lock; do \
			out=dist/longline-$$version-$${name%%:*}.cdx.json; \
			$(SUPPLY)/bin/python packaging/sbom.py "$${name#*:}" "$$out" "$$version"; \
			echo "wrote $$out"; \
		done

# Strict: a package that could not be looked up is a failure, too.
audit: $(SUPPLY)/.ready ## ask PyPI for known holes in what is locked (needs its vulnerability data)
	@$(SUPPLY)/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock

clean: ## remove all that was built or cached
	@rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache .hypothesis
	@find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# The interpreter is looked for only when .venv has to be made. pip and setuptools come first, at their locked versions, so
# that what has to be built is built with them. PIP_USER and PYTHONPATH would bring in what a user has elsewhere.
$(READY): requirements-dev.lock pyproject.toml
	@if ! $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
			if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
				found="$$python"; break; \
			fi; \
		done; \
		if [ -z "$${found:-}" ]; then \
			echo "Python 3.11 or newer with its venv module is needed, and none of python3, python3.11 ... python3.14 is." >&2; \
			echo "On Debian or Ubuntu: apt-get install python3 python3-venv. Or name one: make PYTHON=/path/to/python3.12" >&2; \
			exit 1; \
		fi; \
		echo "==> making $(VENV) with $$("$$found" --version)"; \
		rm -rf $(VENV); \
		"$$found" -m venv $(VENV); \
	fi
	@echo "==> installing the locked dependencies into $(VENV) (about a minute the first time)"
	@export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_USER=0 PIP_NO_INPUT=1; unset PYTHONPATH; \
		sed -n '/^\(pip\|setuptools\)==/,/# via/p' requirements-dev.lock >$(VENV)/build.lock; \
		$(PY) -m pip install --quiet --require-hashes --requirement $(VENV)/build.lock; \
		$(PY) -m pip install --quiet --require-hashes --no-build-isolation --requirement requirements-dev.lock; \
		PYTHONWARNINGS=ignore $(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
