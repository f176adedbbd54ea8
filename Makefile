# `make demo`, `make test` and `make docs` need Python 3.11 to 3.13 and make, nothing else: they make .venv and install into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test docs install clean

demo: install
	rm -rf demo
	mkdir demo
	cd demo && ../$(BIN)/automl search demo --children 40
	cd demo && ../$(BIN)/automl top demo -n 5
	cd demo && ../$(BIN)/automl export demo --format keras --to best.keras
	cd demo && ../$(BIN)/automl export demo --format python --to best.py
	cd demo && ../$(BIN)/python best.py

test: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

docs: install
	$(BIN)/python -m automl.settings.reference docs/settings.md

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info < (3, 14))' || { echo "automl needs Python 3.11.4 to 3.13; name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no module venv; install it (on Debian: apt install python3-venv) or name another with PYTHON="; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo build *.egg-info
