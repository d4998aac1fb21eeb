# Two commands set everything up: `make demo` runs the main job, `make test` passes the tests.
# A fresh machine needs Python 3.11, pip and make; nothing else, and no compiler.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

PEERS := $(patsubst benchmarks/peers/%/requirements.txt,%,$(wildcard benchmarks/peers/*/requirements.txt))
PROGRAMS := nginx wrk slowhttptest

.PHONY: install clients demo test check prove peers bench lock clean

install: $(STAMP)

# The lock is complete, so nothing is resolved: pip would look for the newest `coverage[toml]` beside the locked one.
# Debian without python3-venv has no ensurepip: the environment is then made without pip, and the pip outside fills it.
$(STAMP): requirements.lock pyproject.toml
	@echo "installing the locked dependencies into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(VENV)
	$(PYTHON) -m pip --python $(BIN)/python install --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Real clients and a real model server for tests/clients: their pins contradict ours and each other's, so each has an
# environment of its own.
CLIENTS := tests/clients

clients: $(CLIENTS)/.envs/mlserver/.installed $(CLIENTS)/.envs/kserve/.installed

$(CLIENTS)/.envs/%/.installed: $(CLIENTS)/requirements/%.txt
	@echo "installing $* into $(@D) ..."
	@$(PYTHON) -m venv $(@D) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(@D)
	$(PYTHON) -m pip --python $(@D)/bin/python install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

demo: install
	$(BIN)/gateway demo $(ARGS)

# Tests run beside each other, but for those that start gateways: these have the machine to themselves.
test: install
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest -n auto --maxprocesses 4 -m "not process and not slow"
	$(BIN)/python -m pytest -m "process and not slow"
endif

check: install
	$(BIN)/ruff check gateway models tests benchmarks
	$(BIN)/ruff format --check gateway models tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

prove: install
	$(BIN)/python -m benchmarks.prove $(ARGS)
ifndef ARGS
	$(BIN)/python -m pytest -m slow --timeout 900
endif

# What the request path is measured against, each in an environment of its own, and the programs from Debian.
peers: install $(PEERS:%=benchmarks/.peers/%/.installed)
	@for program in $(PROGRAMS); do PATH="$$PATH:/usr/sbin" command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	test -z "$$missing" || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing; } \
	|| { echo "missing:$$missing; as root: apt-get install$$missing" >&2; exit 1; }

benchmarks/.peers/%/.installed: benchmarks/peers/%/requirements.txt
	@echo "building $(@D) ..."
	@$(PYTHON) -m venv --clear $(@D) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(@D)
	@$(PYTHON) -m pip --python $(@D)/bin/python install --quiet --disable-pip-version-check -r $< -c $(<D)/constraints.txt
	@touch $@

bench: peers
	@for one in $(or $(ONLY),proxy flat onnx openai); do $(BIN)/python -m benchmarks.bench_$$one --json $(ARGS) || missed=1; done; test -z "$$missed"

lock:
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --group dev --no-annotate --no-header pyproject.toml -o requirements.lock
	for name in mlserver kserve; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	    $(CLIENTS)/requirements/$$name.in -o $(CLIENTS)/requirements/$$name.txt || exit 1; \
	done

clean:
	rm -rf $(VENV) $(CLIENTS)/.envs benchmarks/.peers dist build
