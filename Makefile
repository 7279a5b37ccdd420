# make run    a doppelgänger you can talk to, from nothing
# make test   every test
# make lint   style and types
# make docs   the parts of docs/ that are generated from the code
# make audit  known vulnerabilities in the pinned versions; needs the network
# make test-vllm VLLM=/path/to/vllm    the tests that need a real vLLM, which wants an environment of its own

PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK := 1
pip := .venv/bin/python -m pip install --no-compile --constraint constraints.txt

# Python compiles what it imports, once, which is a third of what pip would compile.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test test-vllm lint docs audit

help:
	@echo "make run    install what is missing, then train and run your doppelgänger (about 7 minutes the first time)"
	@echo "make test   install what the tests need and run them all"
	@echo "make lint   check style and types"
	@echo "make docs   write the parts of docs/ that are generated from the code"
	@echo "make audit  look up known vulnerabilities in the pinned versions; needs the network"
	@echo "make test-vllm VLLM=/path/to/vllm    the tests against a real vLLM, installed by itself (pip install vllm)"

# `exec` leaves one process, so that Ctrl-C and SIGTERM reach doppel itself.
run: .venv/.installed
	@exec .venv/bin/doppel up

# Each process computes with one thread: tiny models gain nothing from more, and the processes would wait for each other.
test: .venv/.installed-dev
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadscope

# vLLM pins another torch, so it is not in our environment; this is its command.
VLLM ?= vllm

test-vllm: .venv/.installed-dev
	@command -v '$(VLLM)' > /dev/null || { echo "no command $(VLLM); install vLLM in an environment of its own, then: make test-vllm VLLM=/path/to/vllm" >&2; exit 2; }
	@DOPPEL_VLLM='$(VLLM)' .venv/bin/python -m pytest tests/doppel/test_engine_vllm.py

lint: .venv/.installed-dev
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy

docs: .venv/.installed-dev
	@.venv/bin/python docs/generate.py

# What is pinned, and not what happens to be installed. --no-deps: the pins are complete already.
audit: .venv/.installed
	@$(pip) --quiet pip-audit
	@.venv/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

# torch comes first and by its exact version alone: the package index then hands a machine with a GPU the CUDA
# build, and the rest is resolved around it. It brings setuptools, so our own package needs no build environment.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("doppel needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "Making .venv ..."
	@$(PYTHON) -m venv .venv
	@echo "Installing dependencies 1/2: PyTorch (a large download, a minute or two) ..."
	@$(pip) torch==2.13.0
	@echo "Installing dependencies 2/2: everything else (another minute) ..."
	@$(pip) --no-build-isolation --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	@echo "Installing what the tests need ..."
	@$(pip) --no-build-isolation --editable '.[dev]'
	@touch $@
