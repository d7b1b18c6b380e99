# Everything a developer or a first-time user types. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup system system-test demo test arm64 rollout check format docs

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.splitfleet-installed
EXTRAS := device,edge,policy,reports,dashboard,dev,camera

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv with everything, so that .venv/bin/splitfleet works

$(STAMP): pyproject.toml constraints.txt
	@$(if $(PYTHON),,echo "Python 3.11 is missing. On Debian 12: sudo apt-get install python3.11 python3.11-venv" >&2; exit 1;) \
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "Python 3.11 is needed, $(PYTHON) is $$("$(PYTHON)" -V 2>&1). Install python3.11 or say: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing. On Debian: sudo apt-get install python3.11-venv" >&2; exit 1; }
	@test -x $(BIN)/pip || { echo "Making $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv $(VENV); }
	@echo "Installing the packages of constraints.txt (about 2 GB, most of it TensorFlow; some minutes the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check --no-input --progress-bar off \
	  -c constraints.txt -e '.[$(EXTRAS)]' 2>&1 | tee $(VENV)/setup.log | sh tools/pip_progress.sh || \
	  { echo "Installing failed; the end of $(VENV)/setup.log:" >&2; tail -n 20 $(VENV)/setup.log >&2; exit 1; }
	@touch $@
	@echo "Ready: $(BIN)/splitfleet --help"

system:
	@sh tools/system_packages.sh demo || true

system-test:
	@sh tools/system_packages.sh test || true

demo: setup system  ## watch a small fleet work: set-up, then a broker, a worker, a policy and four devices
	@$(BIN)/splitfleet demo $(ARGS)

check: setup  ## formatting, lint, types, who may import whom, generated documents
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.protocol_doc --check
	$(BIN)/python -m tools.metrics_doc --check

test: setup system-test check  ## check, then every test; needs Debian packages (installed when root or sudo allow)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

arm64: setup  ## flash a board and let it work in an emulated arm64 Debian (root; some minutes, the first time more)
	@sh tools/system_packages.sh arm64
	$(BIN)/splitfleet flash --selftest pi64 $(ARGS)

rollout: setup system-test  ## a version comes to 200 devices, 20 of them killed on the way (about a minute)
	$(BIN)/splitfleet bench rollout --devices 200 $(ARGS)

format: setup  ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup  ## write the generated documents anew
	$(BIN)/python -m tools.protocol_doc
	$(BIN)/python -m tools.metrics_doc
