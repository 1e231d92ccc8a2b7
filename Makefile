# `make run` and `make test` set themselves up. PIP_ARGS goes to pip, PYTHON is the interpreter that makes .venv.
PYTHON ?= python3
PIP_ARGS ?=
VENV = .venv
BIN = $(VENV)/bin
# at most four tests at a time, of one thread each: they do not wait for each other
PARALLEL = -n auto --maxprocesses 4

.DEFAULT_GOAL = help
.PHONY: help setup check run test lint unit notebooks-check lab notebooks model lock matrix clean
.PHONY: chinese site slides class offline

# OpenMP's threads sleep while they wait: the browser and other notebooks want the cores, too. `run` looks for itself.
lab: export OMP_WAIT_POLICY ?= PASSIVE

help:  ## these lines
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## */  make \1: /'

run: setup  ## all notebooks on the sample drives, into output/run
	$(BIN)/monodepth run all --name run

test: lint unit notebooks-check  ## what CI runs

setup: $(VENV)/installed

# Stale when either list is newer than the last complete installation.
$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -r requirements.txt -e .
	touch $@

check:  ## what is installed, the device, memory, the sample; what is missing and the way out (before `setup`, too)
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m monodepth_lib.commands.check

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install $(PIP_ARGS) -e ".[test]"
	touch $@

lint: $(VENV)/installed-test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit notebooks-check: export OMP_NUM_THREADS ?= 1
unit: $(VENV)/installed-test  ## pytest
	$(BIN)/python -m pytest $(PARALLEL) --dist worksteal

# The Chinese notebooks have the very same code and outputs, which tests/test_chinese.py checks.
notebooks-check: $(VENV)/installed-test  ## the stored outputs, cell by cell
	$(BIN)/python -m pytest $(PARALLEL) --dist loadfile --nbval --nbval-current-env --ignore=notebooks/zh notebooks

lab: setup  ## JupyterLab in the browser
	$(BIN)/jupyter lab notebooks

notebooks: setup  ## run all notebooks with their defaults and store them, cleaned
	$(BIN)/python tools/store_notebooks.py

model: setup  ## train models/unet_sample anew, with 05's defaults, and write its card
	$(BIN)/python tools/make_model.py sample

matrix:  ## the unit tests on Python 3.13 and with the lowest versions of pyproject.toml, each in a .venv of its own
	$(PYTHON) tools/matrix.py $(PIP_ARGS)

chinese: setup  ## notebooks/zh: code and outputs of the English notebooks, Chinese prose kept; names what is stale
	$(BIN)/python tools/make_chinese.py
	$(BIN)/python tools/make_chinese.py check

$(VENV)/installed-site: $(VENV)/installed
	$(BIN)/python -m pip install $(PIP_ARGS) -e ".[site]"
	touch $@

site: $(VENV)/installed-site  ## every notebook and page as a web site, build/site
	$(BIN)/python tools/make_site.py

slides: $(VENV)/installed-site  ## one deck a notebook, build/slides
	$(BIN)/python tools/make_slides.py

class:  ## build/class/students.zip, without solutions, and build/class/teacher.zip
	$(PYTHON) tools/make_class.py

offline:  ## build/offline, a folder for a USB stick that installs without a network (ARGS: see tools/make_offline.py)
	$(PYTHON) tools/make_offline.py $(ARGS)

lock:  ## write requirements.txt from a fresh installation of pyproject.toml (ARGS: versions to hold, as pip takes them)
	$(PYTHON) tools/lock.py $(ARGS)

clean:  ## the installation and what tools left; data, models and output stay
	rm -rf $(VENV) .venv-* build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
