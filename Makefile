# All it needs is Python 3.11; the first target to run sets up .venv.
PYTHON ?= python3.11
BIN := .venv/bin
EXTRAS := audio,data,demo,docs,export,notebook,test,web

.PHONY: help demo test test-slow lint bench docs constraints hooks clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:
	@echo "make demo         synthetic speech, four trainings, the picture of README (minutes on a laptop CPU)"
	@echo "make test         lint, types and unit tests"
	@echo "make test-slow    whole recipes and longer trainings"
	@echo "make lint         ruff and mypy"
	@echo "make bench        the benchmarks, results to benchmarks/results"
	@echo "make docs         the documentation site, to site/"
	@echo "make hooks        run make lint before every commit (needs pre-commit)"
	@echo "make constraints  write the versions in .venv to constraints.txt"
	@echo "make clean        remove .venv and caches"

# The environment is complete when the stamp is there; it is made again when what it is made from changes.
.venv/installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
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

# One that fails does not keep the others from running; it is named in the end.
bench: .venv/installed
	@failed=; for script in $$(grep -l __main__ benchmarks/*.py); do \
		echo $(BIN)/python $$script; $(BIN)/python $$script || failed="$$failed $$script"; \
	done; test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

# MkDocs is kept below version 2: no need to warn of it.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Afterwards .venv counts as up to date: it is what was written.
constraints:
	{ head -n 1 constraints.txt; $(BIN)/python -m pip freeze --exclude flexiast; } > constraints.new
	mv constraints.new constraints.txt
	touch .venv/installed

hooks:
	pre-commit install

clean:
	rm -rf .venv build site src/flexiast.egg-info .mypy_cache .ruff_cache .pytest_cache
