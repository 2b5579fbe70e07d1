# Every target sets up what it needs in .venv by itself. PYTHON: any Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# setuptools warns of what the editable install of a root package is known to do.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check
ROOMS := lang runtime radix_cache kernels constrained server

.PHONY: demo test test-slow sanitize check format bench serve clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       run examples/quickstart.py on the default model"
	@echo "make test       the fast tests"
	@echo "make test-slow  soaks, process kills, large shapes"
	@echo "make sanitize   the native code's tests on a checked build (ASan, UBSan)"
	@echo "make check      format, lint, types, layers"
	@echo "make bench      benchmarks/engine.py next to transformers"
	@echo "make bench-peers  next to transformers, llama.cpp and vLLM, where installed"
	@echo "make serve      an HTTP server on port 30000"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sapwood needs Python >= 3.11, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip

$(VENV)/.base: pyproject.toml | $(BIN)/python
	@echo "Installing sapwood and its packages into $(VENV) (a few minutes the first time) ..."
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.base
	@echo "Installing the tools for tests into $(VENV) ..."
	$(PIP) -e '.[dev]'
	@touch $@

demo: $(VENV)/.base
	$(BIN)/python examples/quickstart.py

serve: $(VENV)/.base
	$(BIN)/sapwood serve

test: $(VENV)/.dev
	$(BIN)/sapwood pull
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev
	$(BIN)/sapwood pull
	$(BIN)/python -m pytest -m slow --timeout 1800

sanitize: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow tests/test_sanitized.py --timeout 1800

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@# The repository root is the package: mypy sees it through a folder that holds a link to it.
	@link=$$(mktemp -d) && ln -s "$(CURDIR)" $$link/sapwood && cd $$link && \
	  MYPYPATH=$$link "$(CURDIR)/$(BIN)/mypy" --config-file "$(CURDIR)/pyproject.toml" \
	    --cache-dir "$(CURDIR)/.mypy_cache" -m sapwood -m sapwood.__main__ -m sapwood.compat \
	    $(ROOMS:%=-p sapwood.%); status=$$?; rm -r $$link; exit $$status
	$(BIN)/python -m pytest tests/test_layers.py tests/test_public_api.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/engine.py

# ARGS: its options, such as the paths of the peers; see benchmarks/README.md.
bench-peers: $(VENV)/.dev
	$(BIN)/python benchmarks/peers/run.py $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
