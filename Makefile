# `make help` lists the targets. CI runs `make test` and the static checks through .ci/run.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install train test test-slow gpu format lint types imports doctest smoke gallery check clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# One environment; each stamp says which extras it has, and is older than pyproject.toml when that changed.
$(VENV)/.base: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/python -m pip install --quiet -e ".[test]"
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/.base
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	touch $@

install: $(VENV)/.dev ## create .venv with everything for development

train: $(VENV)/.base ## train with the default configuration; make train ARGS="loss=focal"
	$(BIN)/python tools/train.py $(ARGS)

test: $(VENV)/.test ## run the tests and doctests; make test ARGS="tests/losses"
	$(BIN)/python -m pytest $(ARGS)

test-slow: $(VENV)/.test ## run the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS)

doctest: $(VENV)/.test ## run the examples in docstrings only
	$(BIN)/python -m pytest segtrain

smoke: $(VENV)/.base ## train 20 steps with the default configuration
	$(BIN)/python tools/train.py name=smoke trainer.max_steps=20 trainer.log_every=5

format: $(VENV)/.dev ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.dev ## check formatting and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev ## check types with mypy --strict
	$(BIN)/mypy

imports: $(VENV)/.dev ## check the import direction
	$(BIN)/lint-imports

gallery: $(VENV)/.docs ## write docs/losses and the tables in the README, with pictures
	$(BIN)/python tools/gallery.py $(ARGS)

check: lint types imports test ## run all checks

clean: ## remove caches and build files
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
