# Needs Python 3.11 to 3.13, and nothing else: each target first installs into .venv what it lacks there.
#
# On Linux PyPI's torch brings some GB of CUDA packages. To do without them:
#     PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Fails on a wrong version, on a pyenv shim without a Python behind it, and on Debian's python3 without python3-venv.
SUITABLE := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	"$$python" -c '$(SUITABLE)' 2>/dev/null && echo "$$python" && break; done)

# A stamp for each extra that is installed, renewed when the requirements change.
STAMP := $(VENV)/.installed-
FRAMEWORKS := $(addprefix $(STAMP),torch keras flax)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:  # two pips must not share an environment
.PHONY: help demo test lint clean

help:
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1 - \2/p' $(MAKEFILE_LIST)

demo: $(FRAMEWORKS)  ## compare the three frameworks on a small model
	$(BIN)/gptzoo demo

test: lint  ## lint, then run the tests; PYTEST_ARGS="-k keras" is passed on
	$(BIN)/python -m pytest -n auto tests $(PYTEST_ARGS)

lint: $(FRAMEWORKS) $(STAMP)dev $(STAMP)peers  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove the environment, the caches and what was built
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One extra at a time, for a line of progress each: pip's own bars are for a terminal, a log gets only its errors.
$(STAMP)%: pyproject.toml constraints.txt | $(STAMP)hatchling
	@echo "installing gptzoo[$*] into $(VENV) ..."
	@test -t 1 && quiet= || quiet=-qq; $(PIP) install $$quiet --no-build-isolation -c constraints.txt -e '.[$*]'
	@touch $@

# The build backend first, pinned like the rest, so that no extra has to download it again.
$(STAMP)hatchling: constraints.txt | $(BIN)/python
	@$(PIP) install -qq -c constraints.txt hatchling
	@touch $@

$(BIN)/python:
	@"$(PYTHON)" -c '$(SUITABLE)' 2>/dev/null || { echo "gptzoo needs Python 3.11, 3.12 or 3.13 with venv (on Debian" \
		"also python3-venv); name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "creating $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv $(VENV)
