# Each target works on a fresh machine: it makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORPUS ?=
CORPUS_FLAGS ?=
OUT ?= quickstart
MINUTES ?= 3
# Compiling takes one core of each worker, and up to 2 GB.
PYTEST := $(BIN)/pytest --dist worksteal --maxprocesses 4 --numprocesses
CORES = $(shell $(PYTHON) -c 'import os; print(os.cpu_count() or 1)')

.PHONY: quickstart test check check-static docs clean

$(VENV)/.hf: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[hf]'
	touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[hf,gguf,launch-gcp,launch-gke,dev]'
	touch $@ $(VENV)/.hf

# From text to a Hugging Face model. CORPUS=folder takes other text than the embedded one, MINUTES=n
# another time to train.
quickstart: $(VENV)/.hf
	PATH="$(CURDIR)/$(BIN):$$PATH" MINUTES='$(MINUTES)' bash launch/quickstart.sh '$(OUT)' '$(CORPUS)' $(CORPUS_FLAGS)

# One worker more than cores, since some tests only wait.
WORKERS = $$(($(CORES) + 1))

# The whole suite.
test: $(VENV)/.dev
	$(PYTEST) $(WORKERS)

# The fast core: lint, types, import layers, fast tests.
check: check-static
	$(PYTEST) $(WORKERS) -m 'not slow'

check-static: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site
