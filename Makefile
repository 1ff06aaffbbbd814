# Each target makes .venv when it is missing or stale; nothing but Python 3.10-3.12 is needed before.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
  $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
  2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
# compiled at once: where PYTHONDONTWRITEBYTECODE is set, each start would compile torch's modules
UV := $(BIN)/uv pip install --compile-bytecode --python $(BIN)/python
READY := .venv/.ready
# two processes of one thread use two cores better than one process of two threads
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist loadfile \
  --no-loadscope-reorder

# Where no number comes out of a kernel of PyTorch, or the same ones in a file that is not named here. What is not
# named, a new file too, is tested on other processors.
NO_KERNELS := $(patsubst %,--ignore-glob='tests/%',core slurm faults annotations api benchmarks decoding docs \
  $(patsubst %,pretrain/test_%*,advise audit backbones_timm channel con dist docs gpu image_range methods_runs \
  new_method presets scenes show.py show_c show_d starting_weights tiles videos) \
  $(patsubst %,pretrain/test_views_%*,bad_input remote sources) \
  $(patsubst %,pretrain/test_engine_%*,changes checkpoint command facts full_disk loading logs memory names \
  order placement schedules trackers unreadable waiting) \
  $(patsubst %,d2_transfer/test_classification_%*,config data loading trials) \
  $(patsubst %,d2_transfer/test_convert_%*,frameworks hub images layouts names reading targets unpickling variants vit) \
  $(patsubst %,d2_transfer/test_evaluation_%*,build cityscapes coco pascal_voc processes) \
  $(patsubst %,d2_transfer/test_%*,channel coco_stuff compare compat custom datasets dense_probes_own doctor flags inspect \
  labels launch limits model official own pictures plots prepare pretrainings protocol reading report results resume sampling \
  semantic_configs study tables timm trials))

# Numbers that are compared with another implementation's, or with float64.
COMPARED := tests/probes tests/core/knn $(wildcard $(patsubst %,tests/pretrain/test_%*.py,correspondence losses \
  methods_curves methods_dino methods_golden views_colour views_geometry views_recipes signs))

# Pure functions: of tensors, text and numbers; no run, no process of its own.
QUICK := tests/probes tests/decoding tests/annotations $(wildcard $(patsubst %,tests/%.py,core/knn/test_* \
  $(patsubst %,core/test_%,arrows errors lines names overrides text) \
  $(patsubst %,pretrain/test_%,correspondence* losses* engine_schedules views_geometry)))

# Many containers set it; each of the tests' processes would compile our own modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo evidence test test-quick test-slow test-processors lint format docs benchmarks detectron2-main clean
.DEFAULT_GOAL := setup

setup: $(READY)  ## make .venv with everything in it

$(READY): requirements.txt setup.py pyproject.toml Makefile
	@test -n "$(PYTHON)" || { echo "DenseSSL needs Python 3.10, 3.11 or 3.12 with the venv module \
	(on Debian: apt-get install python3-venv), or: make PYTHON=/path/to/python3.11" >&2; exit 3; }
	@echo "making .venv with $(PYTHON): about 5 GB, a minute or more" >&2
	@rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	$(UV) --quiet -r requirements.txt
	@# the official Python sources of 0.5; their C++ sources are not in the package, hence skip-build
	$(UV) --quiet --no-build-isolation --no-deps -C=--global-option=build_py \
	  -C=--build-option=--skip-build detectron2-cdo==0.5
	$(UV) --quiet --no-build-isolation --no-deps -e .
	@touch $@

# DETECTRON2: a folder with a checkout, in place of the commit that was chosen
DETECTRON2 ?= git+https://github.com/facebookresearch/detectron2@fd27788985af0f4ca800bca563acdb700bb890e2
detectron2-main: $(READY)  ## the official Detectron2 main instead of 0.5: a compiler and its repository are needed
	-$(BIN)/uv pip uninstall --python $(BIN)/python detectron2-cdo
	$(UV) --quiet iopath==0.1.9 black==25.1.0  # which it asks for: iopath below 0.1.10, any black
	$(UV) --no-build-isolation --no-deps '$(DETECTRON2)'
	$(BIN)/uv pip check --python $(BIN)/python

demo: $(READY)  ## the whole way in miniature, seven to ten minutes on two cores
	$(BIN)/densessl demo

# PHOTOS: a folder of photographs to pretrain on; CAMVID: the folder that holds CamVid's train and test
EVIDENCE := $(BIN)/densessl reproduce
evidence: $(READY)  ## dense against image-level methods, measured: three hours on two cores
	$(UV) --quiet --no-build-isolation -e '.[evidence]'
	$(EVIDENCE) evidence/scenes -o evidence/scenes --local --jobs 2
ifeq ($(and $(PHOTOS),$(CAMVID)),)
	@echo "skipped: real photographs; make evidence PHOTOS=DIR CAMVID=DIR measures them, too (docs/data.md)" >&2
else
	$(EVIDENCE) evidence/photos -o evidence/photos --local --jobs 2 --data 'photos=$(PHOTOS)' 'camvid=$(CAMVID)'
endif
	$(BIN)/python -m benchmarks.evidence evidence -o docs/evidence.md

test: $(READY)  ## the fast tests
	$(PYTEST) -m "not slow"

test-quick: $(READY)  ## pure functions alone, in less than a minute
	$(PYTEST) -m "not slow" $(QUICK)

test-slow: test-processors  ## what takes longer: whole protocols, long runs, other processors
	@# test by test, in the order of tests/conftest.py
	$(subst loadfile,worksteal,$(PYTEST)) -m slow

# The variables choose among the kernels that a processor has; with avx2 on one without, PyTorch would crash.
test-processors: $(READY)  ## what computes in an old processor's kernels, what is compared in AVX2's on two threads
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE $(PYTEST) -m "not slow" $(NO_KERNELS)
	! grep -qw avx2 /proc/cpuinfo || ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 \
	  $(subst _THREADS=1,_THREADS=2,$(PYTEST)) -m "not slow" $(COMPARED)

# mypy and the site see the one package as a wheel has it: links, as setup.py maps the folders.
PACKAGE := build/package/densessl
define LAY_OUT
@rm -rf $(PACKAGE) && mkdir -p $(PACKAGE)
@ln -s $(abspath $(wildcard densessl/* pretrain d2_transfer slurm configs)) $(PACKAGE)
endef

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(LAY_OUT)
	cd $(PACKAGE)/.. && $(abspath $(BIN))/mypy --config-file $(abspath pyproject.toml)

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## the site of docs/, in site/; a warning is an error
	$(UV) --quiet --no-build-isolation -e '.[docs]'
	$(LAY_OUT)
	$(BIN)/mkdocs build --strict

benchmarks: $(READY)  ## measured comparisons, with what people would use instead; each prints ratios from one run
	$(UV) --quiet --no-build-isolation -e '.[benchmarks]'
	for name in $(notdir $(basename $(wildcard benchmarks/*.py))); do $(BIN)/python -m benchmarks.$$name || exit 1; done

clean:
	rm -rf .venv demo evidence site build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
