# One file for all set-up: every target works in a fresh clone that has Python >= 3.11 and a Rust toolchain.
# Stamps keep a second run short: dependencies are installed when pyproject.toml changed, the core is built when Rust did.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
PY := $(VENV)/bin/python
BIN := $(VENV)/bin
RUST := Cargo.toml $(wildcard Cargo.lock .cargo/config.toml) $(shell find rust -name '*.rs' -o -name Cargo.toml)
OUT := build/demo

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export MPLBACKEND := Agg

.PHONY: help setup demo test lint format bench clean
help:
	@echo "make demo    build, fit sleepstudy and InstEval, save pictures to $(OUT)/"
	@echo "make test    every test of the Rust core and of the Python package"
	@echo "make lint    formatting, lints and types      make format    let the tools format"
	@echo "make bench   time ranef (and the peers that are installed) on the benchmark models"

setup: $(VENV)/.core

$(VENV)/.deps: pyproject.toml
	@test -n "$(PYTHON)" || { echo "ranef needs Python 3.11 or newer; none found. Try: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --upgrade pip "maturin>=1.7,<2"
	@$(PY) -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
		print(*p['dependencies'], *p['optional-dependencies']['dev'], sep='\n')" > $(VENV)/requirements.txt
	$(PY) -m pip install --quiet --prefer-binary --requirement $(VENV)/requirements.txt
	@touch $@

$(VENV)/.core: $(VENV)/.deps $(RUST)
	@command -v cargo > /dev/null || { echo "ranef is built with Rust: install cargo (https://rustup.rs) first"; exit 1; }
	PIP_QUIET=1 VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --quiet
	@touch $@

demo: setup
	@mkdir -p $(OUT)
	@echo "== sleepstudy, from the command line"
	$(BIN)/ranef fit examples/sleepstudy.csv "Reaction ~ Days + (Days | Subject)" --time --plot $(OUT)/sleepstudy.png
	@echo
	@echo "== InstEval, from Python (examples/insteval.py)"
	$(PY) examples/insteval.py --plot $(OUT)/insteval.png

test: setup
	cargo test --quiet --package ranef-core
	$(PY) -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- --deny warnings

format: setup
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .
	cargo fmt --all

bench: setup
	$(PY) benchmarks/run.py $(BENCH)

clean:
	rm -rf $(VENV) build dist target
