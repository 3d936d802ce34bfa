# make demo | test | test-slow | lint | bench. Each sets up .venv by itself; all it needs is Python 3.11.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test test-slow lint bench clean
.DELETE_ON_ERROR:

# The environment is complete when the stamp is there; it is made again when the requirements change.
.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[demo,export,notebook,test]'
	touch $@

demo: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" egs/demo/run.sh

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

bench: .venv/installed
	for script in $$(grep -l __main__ benchmarks/*.py); do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv build src/flexiast.egg-info .mypy_cache .ruff_cache .pytest_cache
