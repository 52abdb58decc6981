# Everything runs from .venv, which `setup` makes from the pinned versions in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup run test check bench clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[granian,test,check]'
	touch $@

run: setup
	$(BIN)/gateway serve --config routes.toml

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	bench/run

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache *.egg-info
