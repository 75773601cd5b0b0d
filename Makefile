# `make demo` and `make test` each do everything on a fresh machine: virtual environment, install,
# run. They need make and Python 3.11-3.13; name another one with PYTHON=python3.12.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := requirements.txt requirements-dev.txt constraints.txt pyproject.toml

# The contract is recorded under real Detectron2, in an environment of its own.
DETECTRON2 ?= git+https://github.com/facebookresearch/detectron2.git
D2_VENV := .venv-detectron2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all lint benchmark record-contract clean

help:
	@echo 'make demo             draw pictures, train a detector on them, evaluate it (CPU: minutes)'
	@echo 'make test             lint, types, the quick tests'
	@echo 'make test-all         the same with the slow tests and coverage: the demo, a few steps of each config'
	@echo 'make lint             lint and types only'
	@echo 'make benchmark        measure what d2pd costs, in ratios (minutes; see benchmarks/README.md)'
	@echo 'make record-contract  record what Detectron2 does (builds it: minutes)'
	@echo 'make clean            remove the environments and caches; datasets/ and output/ stay'

demo: $(VENV)/.installed
	$(BIN)/python train_net.py --config-file configs/quick/faster_rcnn_synthetic.yaml \
		$(if $(wildcard output/demo/last_checkpoint),--resume,--overwrite) OUTPUT_DIR output/demo

test: lint
	$(BIN)/python -m pytest -n auto --dist worksteal

test-all: lint
	$(BIN)/python -m pytest -n auto --dist worksteal -m '' --cov=d2pd --cov-report=term

lint: $(VENV)/.installed
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

benchmark: $(VENV)/.installed
	$(BIN)/python -m benchmarks

record-contract: $(D2_VENV)/.installed
	$(D2_VENV)/bin/python tests/engine_contract/record.py

clean:
	rm -rf $(VENV) $(D2_VENV) build *.egg-info .coverage
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(D2_VENV)/.installed: VENV := $(D2_VENV)
%/.installed: $(REQUIREMENTS)
	@$(check_python)
	@$*/bin/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $*
	@echo 'Installing into $*: minutes the first time, torch is large'
	$*/bin/python -m pip install -q -r requirements-dev.txt -c constraints.txt
	@$(check_opencv)
	$*/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	$(if $(filter $(D2_VENV),$*),$(install_detectron2))
	@touch $@

install_detectron2 = $*/bin/python -m pip install -q -c constraints.txt wheel ninja && \
	$*/bin/python -m pip install -q --no-build-isolation -c constraints.txt '$(DETECTRON2)'

define check_python
command -v $(PYTHON) >/dev/null || { \
  echo 'd2pd: no command $(PYTHON). Name one: make PYTHON=python3.12 ...' >&2; exit 1; }; \
$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 13))' || { \
  echo "d2pd needs Python 3.11, 3.12 or 3.13 and $(PYTHON) is" \
    "$$($(PYTHON) -V 2>&1). Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }; \
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
  echo 'd2pd: $(PYTHON) has no venv module. On Debian or Ubuntu: apt-get install python3-venv' >&2; \
  exit 1; }
endef

# opencv-python needs libGL, which a machine without a screen may lack.
define check_opencv
$*/bin/python -c 'import cv2' 2>/dev/null || { \
  echo 'OpenCV does not load (no libGL?): opencv-python-headless takes its place'; \
  $*/bin/python -m pip uninstall -q -y opencv-python opencv-python-headless && \
  $*/bin/python -m pip install -q -c constraints.txt opencv-python-headless; }
endef
