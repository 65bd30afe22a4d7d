# RoboCache: one way to build, to test, to measure. `make help` lists the targets.
#
# demo, test, lint, bench and wheel make their own virtual environment in .venv and install the locked packages there.
# test-gpu, sanitize-gpu and bench-gpu run with the system's Python and torch and download nothing.

SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
ARGS ?=
# Another torch than the locked one, as pip says it: TORCH="==2.10.*". For a new virtual environment.
TORCH ?=
LOCKED_TORCH = $(shell sed -n 's/^torch==//p' requirements-dev.txt)
# Parallel test processes: one a core, at most 12 (each holds torch, and on a GPU a context); 0: all in one process.
WORKERS ?= auto
XDIST = -n $(WORKERS) --maxprocesses 12 --dist worksteal
DATA ?=
MINUTES ?= 2
TOOLS ?=
OUT ?= out

C_FILES = $(wildcard csrc/*/*.c csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu csrc/*/*.cuh csrc/*/*.inc tests/c/*.c tests/c/*.h examples/c/*.c)
PYTHON_FILES = setup.py build_tools robocache tests examples benchmarks

.DEFAULT_GOAL := help
.PHONY: sota report compare ratchet ratchet-gpu tune-gpu soak soak-gpu docs sbom audit lint-workflows
.PHONY: help venv build demo demo-voxelize demo-train test lint lint-c lint-python format test-gpu sanitize sanitize-gpu bench bench-gpu wheel clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- Set-up -----------------------------------------------------------------------------------------------------

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $(PYTHON) is missing or older than 3.10; try: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "error: $(PYTHON) cannot make a virtual environment (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@touch $@

$(VENV)/.packages: requirements-dev.txt $(VENV)/.created
	@echo "installing the locked packages into $(VENV) (torch among them: this takes minutes the first time)"
	@sed 's/^torch==.*/torch$(or $(TORCH),==$(LOCKED_TORCH))/' requirements-dev.txt > $(VENV)/requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check -r $(VENV)/requirements.txt
	@touch $@

# pip registers the package in place; what is compiled comes from `build`, which knows what is out of date.
$(VENV)/.installed: pyproject.toml setup.py $(VENV)/.packages
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

venv: $(VENV)/.packages ## Make .venv with the locked packages

build: $(VENV)/.installed ## Build the native libraries in place (what changed)
	@$(PY) setup.py --quiet build_ext --inplace

# ---- Use --------------------------------------------------------------------------------------------------------

demo: build ## Align a robot log and plot it; DATA=<TUM trajectory file> takes that instead
	@$(PY) examples/align_robot_log.py --out "$(OUT)" $(if $(DATA),--tum "$(DATA)") $(ARGS)

demo-voxelize: build ## Voxelize depth images of a tabletop and plot the grid; DATA=<PCD file> takes a point cloud instead
	@$(PY) examples/voxelize_tabletop.py --out "$(OUT)" $(if $(DATA),--pcd "$(DATA)") $(ARGS)

# A model that a CPU trains in seconds; ARGS may say otherwise.
TRAIN_SIZES = --samples 100 --tokens 50 --chunk 20 --width 64 --heads 4 --feedforward 256 --steps 200 --learning-rate 1e-3
TRAIN_ROBOT = --episodes 8 --seconds 10 --features 64

demo-train: build ## Train a policy on a synthetic robot and plot the loss; DATA=<RLDS or LeRobot dataset> takes that instead
	@$(PY) examples/train_policy.py $(if $(DATA),"$(DATA)",$(TRAIN_ROBOT)) --out "$(OUT)" $(TRAIN_SIZES) $(ARGS)

test: build ## Run the tests; without a GPU the GPU tests are left out and counted
	@$(PY) -m pytest $(XDIST) $(ARGS)

bench: build ## Measure on the CPU
	@$(PY) -m benchmarks --device cpu $(ARGS)

docs: build ## Check the pages: links, examples, make targets, tables and numbers
	@$(PY) -m pytest -q tests/test_docs.py tests/test_voxel_docs.py $(ARGS)

soak: build ## Random work on the CPU for MINUTES=2, checked, memory flat
	@$(PY) -m benchmarks.soak --device cpu --minutes $(MINUTES) $(ARGS)

compare: $(VENV)/.packages ## The ratchet: BASE=<results> NEW=<results>, files or folders; fails when a case got slower
	@$(PY) -m benchmarks.compare $(BASE) $(NEW) $(ARGS)

ratchet: build ## Measure on the CPU and compare with this machine's committed results; the report is out/ratchet.md
	@rm -rf out/bench
	@$(PY) -m benchmarks --device cpu --ours-only --results out/bench $(ARGS)
	@$(PY) -m benchmarks.compare benchmarks/results/$$(ls out/bench) out/bench/* --markdown out/ratchet.md

report: $(VENV)/.packages ## Draw README's and the docs' tables and numbers from the committed results
	@$(PY) -m benchmarks.evidence $(ARGS)

sota: build ## Draw the side-by-side report and its plots from the committed results
	@$(PY) -m benchmarks.sota $(ARGS)

wheel: $(VENV)/.packages ## Build a release wheel into dist/ and check its content
	@rm -rf build/lib* dist/*.whl
	@$(PY) -m build --wheel --no-isolation
	@$(PY) -m build_tools.check_wheel dist/*.whl

# ---- Lint -------------------------------------------------------------------------------------------------------

lint: lint-c lint-python lint-workflows ## Check format, types and common mistakes

lint-c: $(VENV)/.packages
	@$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)
	@$(PY) -m build_tools.lint_c

lint-python: $(VENV)/.packages
	@$(VENV)/bin/ruff check $(wildcard $(PYTHON_FILES))
	@$(VENV)/bin/ruff format --check $(wildcard $(PYTHON_FILES))
	@$(VENV)/bin/mypy

lint-workflows: $(VENV)/.packages
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: $(VENV)/.packages ## Rewrite the sources in the project's format
	@$(VENV)/bin/clang-format -i $(C_FILES)
	@$(VENV)/bin/ruff check --fix-only $(wildcard $(PYTHON_FILES))
	@$(VENV)/bin/ruff format $(wildcard $(PYTHON_FILES))

# ---- Sanitizers -------------------------------------------------------------------------------------------------

sanitize: ## Run the C kernels' test programs under AddressSanitizer and UBSan
	@$(PYTHON) -m build_tools.sanitize

# ---- With a GPU: the system's Python and torch, for the GPU present ----------------------------------------------

GPU_ENV = ROBOCACHE_CUDA=1 PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}"

.PHONY: build-gpu
build-gpu:
	@archs=$$($(PYTHON) -m build_tools.present_gpu) && \
		$(GPU_ENV) ROBOCACHE_CUDA_ARCHS="$$archs" $(PYTHON) setup.py --quiet build_ext --inplace

test-gpu: build-gpu ## Run every test with the GPU required: none may be skipped for want of it
	@$(GPU_ENV) $(PYTHON) -m pytest --require-gpu $(XDIST) -p build_tools.test_summary --summary tests-gpu $(ARGS)

sanitize-gpu: build-gpu ## Run the marked GPU tests under compute-sanitizer; TOOLS=memcheck,racecheck,synccheck,initcheck
	@$(GPU_ENV) $(PYTHON) -m build_tools.sanitize_gpu $(if $(TOOLS),--tools $(TOOLS)) $(ARGS)

soak-gpu: build-gpu ## Random work on the GPU for MINUTES=2, checked, memory flat
	@$(GPU_ENV) $(PYTHON) -m benchmarks.soak --device cuda --minutes $(MINUTES) $(ARGS)

bench-gpu: build-gpu ## Measure on the GPU
	@$(GPU_ENV) $(PYTHON) -m benchmarks --device cuda $(ARGS)

tune-gpu: build-gpu ## Choose the kernels' launch parameters on this GPU; ARGS=--write puts them into the source's table
	@$(GPU_ENV) $(PYTHON) -m benchmarks.tune --device cuda $(ARGS)

ratchet-gpu: build-gpu ## Measure on the GPU and compare with this machine's committed results; the report is out/ratchet.md
	@rm -rf out/bench
	@$(GPU_ENV) $(PYTHON) -m benchmarks --device cuda --ours-only --results out/bench $(ARGS)
	@$(GPU_ENV) $(PYTHON) -m benchmarks.compare benchmarks/results/$$(ls out/bench) out/bench/* --markdown out/ratchet.md

# ---- Packages: what is installed and what is known against it -----------------------------------------------------

AUDIT = $(VENV)-audit

$(AUDIT)/.packages: requirements-audit.txt
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-audit.txt
	@touch $@

sbom: $(AUDIT)/.packages $(VENV)/.installed ## List what is installed as CycloneDX, out/sbom.json
	@mkdir -p out
	@$(AUDIT)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o out/sbom.json $(PY)
	@echo "written: out/sbom.json"

audit: $(AUDIT)/.packages ## Look the locked packages up for known vulnerabilities
	@$(AUDIT)/bin/pip-audit --no-deps --disable-pip -r requirements-dev.txt

# ---- Clean ------------------------------------------------------------------------------------------------------

clean: ## Remove what was built; the virtual environment stays
	@rm -rf build dist out *.egg-info robocache/lib robocache/include robocache/*.so .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
