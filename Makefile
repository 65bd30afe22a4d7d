# RoboCache: one way to build, to test, to measure. `make help` lists the targets.
#
# Targets that need packages make a virtual environment in .venv and install the locked ones there. Those in -gpu run
# with the system's Python and torch and download nothing.
#
# A target with a help text behind `##` is no file; `help` lists it under its section.

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
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.* \#\# .*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## List the targets
	@awk -F ':.*## ' '/^# ---- / { title = $$0; gsub(/^# -+ | -+$$/, "", title); printf "\n%s\n", title } \
		/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- Set-up -------------------------------------------------------------------------------------------------------

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

build: $(VENV)/.installed ## Build the native libraries in place: what changed
	@$(PY) setup.py --quiet build_ext --inplace

# ---- Demos --------------------------------------------------------------------------------------------------------

demo: build ## Align a robot log and plot it; DATA=<TUM trajectory> takes that instead
	@$(PY) examples/align_robot_log.py --out "$(OUT)" $(if $(DATA),--tum "$(DATA)") $(ARGS)

demo-voxelize: build ## Voxelize depth images of a tabletop and plot the grid; DATA=<PCD file> takes that instead
	@$(PY) examples/voxelize_tabletop.py --out "$(OUT)" $(if $(DATA),--pcd "$(DATA)") $(ARGS)

# A model that a CPU trains in seconds; ARGS may say otherwise.
TRAIN_SIZES = --samples 100 --tokens 50 --chunk 20 --width 64 --heads 4 --feedforward 256 --steps 200 --learning-rate 1e-3
TRAIN_ROBOT = --episodes 8 --seconds 10 --features 64

demo-train: build ## Train a policy on a synthetic robot and plot the loss; DATA=<RLDS or LeRobot> takes that instead
	@$(PY) examples/train_policy.py $(if $(DATA),"$(DATA)",$(TRAIN_ROBOT)) --out "$(OUT)" $(TRAIN_SIZES) $(ARGS)

# ---- Checks -------------------------------------------------------------------------------------------------------

test: build ## Run the tests; without a GPU the GPU tests are left out and counted
	@$(PY) -m pytest $(XDIST) $(ARGS)

DOCS_TESTS = $(wildcard tests/test_*docs.py) tests/test_sota.py tests/test_evidence.py tests/test_benchmarks_evidence.py

docs: build ## Check the pages: links, examples, make targets, tables, plots and numbers
	@$(PY) -m pytest -q $(DOCS_TESTS) $(ARGS)

lint: lint-c lint-python lint-workflows ## Check format, types and common mistakes: the three below

lint-c: $(VENV)/.packages ## clang-format and clang-tidy
	@$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)
	@$(PY) -m build_tools.lint_c

lint-python: $(VENV)/.packages ## ruff and mypy
	@$(VENV)/bin/ruff check $(wildcard $(PYTHON_FILES))
	@$(VENV)/bin/ruff format --check $(wildcard $(PYTHON_FILES))
	@$(VENV)/bin/mypy

lint-workflows: $(VENV)/.packages ## The workflows against their schema
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: $(VENV)/.packages ## Rewrite the sources in the project's format
	@$(VENV)/bin/clang-format -i $(C_FILES)
	@$(VENV)/bin/ruff check --fix-only $(wildcard $(PYTHON_FILES))
	@$(VENV)/bin/ruff format $(wildcard $(PYTHON_FILES))

sanitize: ## Run the C kernels' test programs under AddressSanitizer and UBSan
	@$(PYTHON) -m build_tools.sanitize

soak: build ## Random work for MINUTES=2, checked, memory flat
	@$(PY) -m benchmarks.soak --device cpu --minutes $(MINUTES) $(ARGS)

# ---- Measurement --------------------------------------------------------------------------------------------------

bench: build ## Measure on the CPU
	@$(PY) -m benchmarks --device cpu $(ARGS)

report: $(VENV)/.packages ## Draw the tables and numbers of README and docs from the committed results
	@$(PY) -m benchmarks.evidence $(ARGS)

sota: build ## Draw docs/comparison.md, the plots and the list of rows that are not the fastest
	@$(PY) -m benchmarks.sota $(ARGS)

compare: $(VENV)/.packages ## Judge two results, BASE=<file or folder> NEW=<the same>: fails when a case got slower
	@$(PY) -m benchmarks.compare $(BASE) $(NEW) $(ARGS)

# $(call measure-and-judge,<python>,<device>): judged is what was measured, also where a row or the whole run failed. What
# lost is measured again first, in new processes: a loss must show in all of them.
measure-and-judge = status=0; \
	$(1) -m benchmarks --device $(2) --ours-only --results "$(OUT)/bench" $(ARGS) || status=$$?; \
	$(1) -m benchmarks.remeasure benchmarks/results "$(OUT)/bench"; \
	$(1) -m benchmarks.compare benchmarks/results "$(OUT)/bench" --partial --markdown "$(OUT)/ratchet.md" || status=$$?; \
	exit $$status

# First of all, before a build that may fail: what an earlier run left is no report of this one.
.PHONY: forget-ratchet
forget-ratchet:
	@rm -rf "$(OUT)/bench" "$(OUT)/ratchet.md"

ratchet: forget-ratchet build ## Measure on the CPU and judge against the committed results; writes out/ratchet.md
	@$(call measure-and-judge,$(PY),cpu)

# ---- With a GPU: the system's Python and torch, for the GPU present -----------------------------------------------

GPU_ENV = ROBOCACHE_CUDA=1 PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}"

build-gpu: ## Build the native libraries in place for the GPU present
	@archs=$$($(PYTHON) -m build_tools.present_gpu) && \
		$(GPU_ENV) ROBOCACHE_CUDA_ARCHS="$$archs" $(PYTHON) setup.py --quiet build_ext --inplace

test-gpu: build-gpu ## Run every test; none may be skipped for want of a GPU
	@$(GPU_ENV) $(PYTHON) -m pytest --require-gpu $(XDIST) -p build_tools.test_summary --summary tests-gpu $(ARGS)

sanitize-gpu: build-gpu ## Run the marked tests under compute-sanitizer; TOOLS=memcheck,racecheck,synccheck,initcheck
	@$(GPU_ENV) $(PYTHON) -m build_tools.sanitize_gpu $(if $(TOOLS),--tools $(TOOLS)) $(ARGS)

soak-gpu: build-gpu ## Random work for MINUTES=2, checked, memory flat
	@$(GPU_ENV) $(PYTHON) -m benchmarks.soak --device cuda --minutes $(MINUTES) $(ARGS)

bench-gpu: build-gpu ## Measure on the GPU
	@$(GPU_ENV) $(PYTHON) -m benchmarks --device cuda $(ARGS)

tune-gpu: build-gpu ## Choose the kernels' launch parameters for this GPU; ARGS=--write puts them into the table
	@$(GPU_ENV) $(PYTHON) -m benchmarks.tune --device cuda $(ARGS)

ratchet-gpu: forget-ratchet build-gpu ## Measure on the GPU and judge against the committed results; writes out/ratchet.md
	@$(call measure-and-judge,$(GPU_ENV) $(PYTHON),cuda)

# ---- Packages -----------------------------------------------------------------------------------------------------

wheel: $(VENV)/.packages ## Build a release wheel into dist/ and check its content
	@rm -rf build/lib* dist/*.whl
	@$(PY) -m build --wheel --no-isolation
	@$(PY) -m build_tools.check_wheel dist/*.whl

AUDIT = $(VENV)-audit

$(AUDIT)/.packages: requirements-audit.txt
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-audit.txt
	@touch $@

sbom: $(AUDIT)/.packages $(VENV)/.installed ## List what is installed as CycloneDX: out/sbom.json
	@mkdir -p out
	@$(AUDIT)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o out/sbom.json $(PY)
	@echo "written: out/sbom.json"

audit: $(AUDIT)/.packages ## Look the locked packages up for known vulnerabilities
	@$(AUDIT)/bin/pip-audit --no-deps --disable-pip -r requirements-dev.txt

# ---- Clean --------------------------------------------------------------------------------------------------------

clean: ## Remove what was built; the virtual environment stays
	@rm -rf build dist out *.egg-info robocache/lib robocache/include robocache/*.so .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
