# Thin names for the README's commands.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
GOLDEN ?=

.PHONY: demo test soak install lint test-rust test-python test-golden clean

demo: install
	$(BIN)/threadsafe-ocr read tests/data/pages/docs_en/tex-nutshell-p013.png --text

test: test-rust install test-python

$(VENV)/made:
	$(PYTHON) -m venv $(VENV)
	touch $@

# Builds the wheel and installs it with what the tests need.
install: $(VENV)/made
	$(BIN)/pip install --quiet ".[test]"

# Half an hour and more; writes docs/soak.md.
soak: install
	$(BIN)/python benches/soak.py

test-rust:
	cargo test --locked

test-python: install
	$(BIN)/python -m pytest

# The recorded answers of PaddleOCR 3.7 in a folder GOLDEN (see scripts/golden_check.py).
test-golden: install
	@test -n "$(GOLDEN)" || { echo "give the folder of recorded answers: make test-golden GOLDEN=DIR"; exit 1; }
	$(BIN)/pip install --quiet opencv-python-headless
	$(BIN)/python scripts/golden_check.py $(GOLDEN)

lint:
	cargo fmt --check
	cargo clippy --all-targets --features python -- -D warnings

clean:
	rm -rf target $(VENV)
