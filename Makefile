# make demo    set up .venv, train on generated scenes, show the result
# make test    set up .venv, run every test
# make lint    set up .venv, check style

# The first of these that is 3.11 or newer, unless PYTHON names one.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: demo test lint setup
.DELETE_ON_ERROR:

setup: .venv/ready

.venv/ready: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed; install it, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@echo "Setting up .venv (a minute or two, about 400 MB to download) ..."
	@"$(PYTHON)" -m venv .venv \
	  || { echo "error: no virtual environment could be made; on Debian: apt-get install python3-venv"; exit 1; }
	@.venv/bin/python -m pip install --quiet -r requirements.txt -e ".[dev]" > .venv/setup.log 2>&1 \
	  || { grep -iE '^error' .venv/setup.log | tail -n 1; \
	       echo "error: the packages of requirements.txt could not be installed; is there a network? The whole story is in .venv/setup.log"; exit 1; }
	@touch $@

demo: .venv/ready
	.venv/bin/python -m tempseg_jax.main --config=configs/demo.py --workdir=runs/demo
	@echo "Pictures: runs/demo/predictions/ (image, ground truth, prediction) and runs/demo/curves.png"

test: .venv/ready
	.venv/bin/python -m pytest

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
