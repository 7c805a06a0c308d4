# make demo       set up the environment, train on generated scenes
# make test       set up the environment, run the tests in parallel, but not the slow ones
# make test-slow  the slow tests: they train, or kill and resume whole processes
# make lint       set up the environment, check style
#
# Variables:
#   PYTHON   the interpreter; by default the first below that is 3.11 or newer
#   VENV     the folder of the virtual environment; one for each interpreter
#   JAX      a requirement on jax, in addition to requirements.txt; VENV/ready records it
#   PYTEST   options of pytest
#
# The tests on another interpreter, or with another version of jax:
#   make test PYTHON=python3.12 VENV=.venv-3.12
#   make test PYTHON=python3.11 VENV=.venv-oldest JAX='jax==0.10.0'

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
JAX ?= $(shell cat $(VENV)/ready 2>/dev/null)
PYTEST ?= -n auto --dist worksteal

.PHONY: demo test test-slow lint setup same-python same-jax
.DELETE_ON_ERROR:

setup: $(VENV)/ready

$(VENV)/ready: requirements.txt pyproject.toml | same-python same-jax
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed; install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@echo "Setting up $(VENV) (one or two minutes, a download of about 400 MB) ..."
	@"$(PYTHON)" -m venv $(VENV) \
	  || { echo "error: the virtual environment $(VENV) could not be created; on Debian: apt-get install python3-venv"; exit 1; }
	@$(VENV)/bin/python -m pip install --quiet -r requirements.txt -e ".[dev]" $(if $(JAX),"$(JAX)") > $(VENV)/setup.log 2>&1 \
	  || { grep -iE '^error' $(VENV)/setup.log | tail -n 1; \
	       echo "error: the packages of requirements.txt could not be installed; check the network and read $(VENV)/setup.log"; exit 1; }
	@echo "$(JAX)" > $@

# An environment that exists keeps its interpreter and its jax, so another PYTHON or JAX
# must not be ignored.
same-python:
	@test ! -x $(VENV)/bin/python || test "$(origin PYTHON)" = file \
	  || test "$$($(VENV)/bin/python -V)" = "$$("$(PYTHON)" -V)" \
	  || { echo "error: $(VENV) is of $$($(VENV)/bin/python -V), not of PYTHON=$(PYTHON); name another folder: VENV=$(VENV)-other"; exit 1; }

same-jax:
	@test ! -f $(VENV)/ready || test "$(JAX)" = "$$(cat $(VENV)/ready)" \
	  || { echo "error: $(VENV) was set up with JAX='$$(cat $(VENV)/ready)', not with JAX='$(JAX)'; name another folder: VENV=$(VENV)-other"; exit 1; }

demo: $(VENV)/ready
	$(VENV)/bin/python -m tempseg_jax.main --config=configs/demo.py --workdir=runs/demo
	@echo "Pictures: runs/demo/predictions/val/ (image, ground truth, prediction) and runs/demo/curves.png"

test: $(VENV)/ready
	$(VENV)/bin/python -m pytest $(PYTEST)

test-slow: $(VENV)/ready
	$(VENV)/bin/python -m pytest $(PYTEST) -m slow

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
