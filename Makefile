# What a person runs; `make help` lists it. CI runs `make test` and the static checks through .ci/run.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
# One process per core; WORKERS= runs the tests in one process.
WORKERS ?= -n auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install train test test-slow faults gpu format lint types imports doctest smoke gallery check clean

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

$(VENV)/.stores: $(VENV)/.test
	$(BIN)/python -m pip install --quiet -e ".[stores]"
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/.base
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	touch $@

install: $(VENV)/.dev ## make .venv with everything for development

train: $(VENV)/.base ## train on the embedded default; make train ARGS="loss=focal"
	$(BIN)/python tools/train.py $(ARGS)

test: $(VENV)/.test ## the suite, doctests included
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-slow: $(VENV)/.test ## the long checks
	$(BIN)/python -m pytest -m slow $(ARGS)

faults: $(VENV)/.stores ## inject faults for real, and print how many were survived
	$(BIN)/python -m pytest $(WORKERS) -m fault tests $(ARGS)

gpu: $(VENV)/.base ## check and measure on one GPU in ten minutes; CAMVID_ROOT=... adds CamVid
	$(BIN)/python benchmarks/gpu.py $(ARGS)

doctest: $(VENV)/.test ## the examples in the docstrings alone
	$(BIN)/python -m pytest segtrain

smoke: $(VENV)/.base ## 20 steps on the embedded default
	$(BIN)/python tools/train.py name=smoke trainer.max_steps=20 trainer.log_every=5

format: $(VENV)/.dev ## rewrite the layout of the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.dev ## layout and lint, nothing rewritten
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev ## mypy --strict
	$(BIN)/mypy

imports: $(VENV)/.dev ## who may import whom
	$(BIN)/lint-imports

gallery: $(VENV)/.docs ## write docs/losses and the README's table anew, pictures included
	$(BIN)/python tools/gallery.py $(ARGS)

check: lint types imports test ## everything that must be green

clean: ## remove what tools leave behind
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
