# make demo: the main job on the bundled demo.  make test: checks and quick tests.
# make test-all: checks and every test.  All three set up all they need.
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
AUDIT := .venv-audit
LOWEST_TESTS := tests/competition/blend tests/competition/data tests/competition/predictions \
	tests/competition/importing tests/models/network \
	tests/models/jobs/test_plan.py tests/models/training/test_linear.py tests/test_harness.py
RUN := $(VENV)/bin/python run.py
# libraries are installed uncompiled; where this is set, every process would compile them again
unexport PYTHONDONTWRITEBYTECODE
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
GPUS := $(shell nvidia-smi -L 2>/dev/null | grep -c '^GPU')
# jobs at a time: one a core, at most 10; with GPUs one on each, or two that share the only one
WORKERS ?= $(shell [ $(GPUS) -eq 1 ] && set -- 2 || set -- $(GPUS); [ $$1 -eq 0 ] && set -- $(CORES); \
	[ $$1 -gt 10 ] && echo 10 || echo $$1)

# tests at a time: one a core, at most 8, as each process loads torch; one core needs no workers
TEST_WORKERS ?= $(shell if [ $(CORES) -gt 8 ]; then echo 8; elif [ $(CORES) -gt 1 ]; then echo $(CORES); else echo 0; fi)
# neighbouring tests share a process, so that their fixtures are made once
PYTEST := $(VENV)/bin/python -m pytest --numprocesses $(TEST_WORKERS) --dist worksteal

# On a terminal the installer shows its progress, elsewhere it is quiet. `uv` is used where it is
# there: it knows torch's builds by name and takes that for CPUs where there is no GPU; without its
# index it takes the standard build. For pip, TORCH_INDEX=ADDRESS names the index of another build
# (pytorch.org/get-started).
UV := $(shell command -v uv 2>/dev/null)
TORCH_BACKEND ?= $(if $(filter-out 0,$(GPUS)),auto,cpu)
TORCH_INDEX ?=
QUIET := $(if $(MAKE_TERMOUT),,--quiet)
PIP = $(VENV)/bin/python -m pip install $(QUIET) --disable-pip-version-check --no-compile
ifneq ($(UV),)
UV_INSTALL = $(UV) pip install --python $(VENV)/bin/python $(QUIET)
install = $(UV_INSTALL) --torch-backend $(TORCH_BACKEND) -r $(1) \
	|| { echo "torch's own index cannot be used: its standard build is taken"; $(UV_INSTALL) -r $(1); }
else
install = $(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r $(1)
endif
define announce
@echo "Installing the libraries of $(1) into $(VENV), with $(if $(UV),uv,pip):"
@echo "  about 0.5 GB to download and 2 GB on disk with torch for CPUs; torch for GPUs adds several GB of CUDA"
@$(if $(UV)$(TORCH_INDEX)$(filter-out 0,$(GPUS)),true,echo "  no GPU here: to avoid CUDA where pip's standard torch brings it, install uv or add TORCH_INDEX=ADDRESS (pytorch.org/get-started)")
endef

.PHONY: demo test test-all all-tests test-lowest torture check-code audit format install clean-demo

demo: $(VENV)/.installed
	$(RUN) fold --competition demo --workers $(WORKERS)
	$(RUN) blend --competition demo --name demo
	$(RUN) check submissions/demo/demo.csv --competition demo
	$(RUN) submit submissions/demo/demo.csv --to local --competition demo
	$(RUN) board --competition demo

test: check-code
	$(PYTEST) -m "not slow"

test-all: check-code all-tests

all-tests: $(VENV)/.installed-dev
	$(PYTEST) $(SELECT)

# the same code on the lowest versions that pyproject.toml names, in a separate environment;
# older libraries warn of other things and round otherwise, so warnings and golden figures are left out
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -W default -m "not slow" -p no:cacheprovider $(LOWEST_TESTS)

check-code: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# known vulnerabilities of the pinned packages; needs pypi.org, and says so where it does not answer
audit:
	test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/python -m pip install --quiet pip-audit; }
	$(AUDIT)/bin/python -m tools.audit_dependencies requirements.txt

# kills at random moments, damaged files, full disks (needs root), two clones: hours
torture: $(VENV)/.installed-dev
	$(VENV)/bin/python -m tools.torture.mutants --count 1000
	$(VENV)/bin/python -m tools.torture.kills --moments 50 --rows 120
	$(VENV)/bin/python -m tools.torture.disks --count 20 --rows 120
	$(VENV)/bin/python -m tools.torture.memory
	$(VENV)/bin/python -m tools.torture.twice
	$(VENV)/bin/python -m tools.torture.nodes --folds 0,1,2 --epochs 60 --limit 2000

install: $(VENV)/.installed-dev

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean-demo:
	rm -rf oof/demo submissions/demo checkpoints/demo reports/demo

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(call announce,requirements.txt)
	$(call install,requirements.txt)
	touch $@

# these requirements include the others: one call of pip installs all
$(VENV)/.installed-dev: requirements-dev.txt requirements-kaggle.txt requirements-ray.txt requirements.txt | $(VENV)/bin/python
	$(call announce,requirements-dev.txt)
	$(call install,requirements-dev.txt)
	touch $(VENV)/.installed $@

$(LOWEST)/.installed: requirements-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements-lowest.txt
	touch $@
