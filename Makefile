# make demo: the main job on the bundled demo.  make test: checks and tests.  Both set up all they need.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python run.py
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
GPUS := $(shell nvidia-smi -L 2>/dev/null | grep -c '^GPU')
# jobs at a time: one a core, at most 10; with GPUs one on each, or two that share the only one
WORKERS ?= $(shell [ $(GPUS) -eq 1 ] && set -- 2 || set -- $(GPUS); [ $$1 -eq 0 ] && set -- $(CORES); \
	[ $$1 -gt 10 ] && echo 10 || echo $$1)

.PHONY: demo test format clean-demo

demo: $(VENV)/.installed
	$(RUN) fold --competition demo --workers $(WORKERS)
	$(RUN) blend --competition demo --name demo
	$(RUN) check submissions/demo/demo.csv --competition demo
	$(RUN) submit submissions/demo/demo.csv --to local --competition demo
	$(RUN) board --competition demo

test: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean-demo:
	rm -rf oof/demo submissions/demo checkpoints/demo

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
