# make test   makes a virtual environment in .venv, installs what the project needs, and runs all checks and tests
# make venv   only makes the environment
# make clean  removes it, and what the tools left

PYTHON ?= python3
BIN := .venv/bin

.PHONY: test venv clean

test: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/pytest -n 2 --durations=10

venv: .venv/installed

.venv/installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis
