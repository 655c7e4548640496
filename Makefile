# `make help` lists the targets.

PYTHON ?= python3
# The build of PyTorch: TORCH=cpu or TORCH=cuda, each with its lock file. Left out, it is the one for CPUs where pip finds
# it, else that of the package index, which on Linux is for CUDA. Another build: TORCH_LOCK=FILE, a lock file with hashes
# of your own, or UNVERIFIED_TORCH="what pip takes", without hashes.
TORCH_LOCK ?= $(or $(TORCH:%=requirements-%.lock),requirements-cpu.lock requirements-cuda.lock)

VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
INSTALL := $(BIN)/python -m pip install
export PATH := $(BIN):$(PATH)
export PYTHONNOUSERSITE := 1
# More ranks than cores are fine for a demonstration and for tests.
export PRTE_MCA_rmaps_default_mapping_policy := :oversubscribe
ifeq ($(shell id -u),0)
# Open MPI asks root twice; root here means a container or a throwaway machine.
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
endif

.PHONY: help demo model model-dense test everyday browser test-faults test-facility acceptance lint env format lock clean

help: # list the targets
	@sed -n 's/^\([a-z-]*\):[^#=]*# \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

env: $(VENV)/.ready # make the environment in .venv

# Debian and Ubuntu split pip off Python: without python3-venv, pip is taken from the system, else unpacked from its
# package without being installed. That pip installs the locked one, which installs all the rest.
$(VENV)/.ready: $(wildcard requirements*.lock)
	rm -rf $(VENV)
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed" if sys.version_info < (3, 10) else 0)'
	set -e; \
	if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	else \
	  $(PYTHON) -m venv --without-pip $(VENV); \
	  site=$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])'); \
	  if $(PYTHON) -m pip --version >/dev/null 2>&1; then \
	    $(PYTHON) -m pip install --target "$$site" --require-hashes -r requirements-pip.lock; \
	  else \
	    (cd $(VENV) && apt-get download python3-pip-whl && dpkg-deb -x python3-pip-whl_*.deb pip-package) || \
	      { echo 'No pip here: install python3-venv, then try again.' >&2; exit 2; }; \
	    export PYTHONPATH=$$(echo $(CURDIR)/$(VENV)/pip-package/usr/share/python-wheels/pip-*.whl); \
	  fi; \
	fi; \
	$(INSTALL) --force-reinstall --require-hashes -r requirements-pip.lock
	$(INSTALL) --require-hashes -r requirements.lock
ifdef UNVERIFIED_TORCH
	@echo 'Warning: PyTorch and what it needs beyond requirements.lock are not verified by hashes.' >&2
	$(INSTALL) $(UNVERIFIED_TORCH)
else
	set -- $(TORCH_LOCK); for lock; do \
	  $(INSTALL) --require-hashes -r "$$lock" && exit; \
	  echo "PyTorch can't be installed by $$lock." >&2; \
	done; exit 2
endif
	$(INSTALL) --no-deps --no-build-isolation -e .
	touch $@

demo: env # simulate a movie that drifts, analyse it on two ranks, draw the report
	mkdir -p demo
	hrtemvae simulate --drift 10 -o demo/movie.h5
	mpirun -n 2 hrtemvae analyze demo/movie.h5 --config configs/demo.yaml -o demo/maps.h5 --restart
	hrtemvae report demo/maps.h5 -o demo/report
	python -m hrtemvae_hpc.maps.verdict demo/maps.h5
	@echo "movie demo/movie.h5, maps demo/maps.h5, page demo/report/report.html, a picture of each map in demo/report/"

# Two files of tests at a time, each on one thread: more would wait for each other.
PYTEST := OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=20
test: env # linters, types and everyday tests
	$(MAKE) --no-print-directory -j 2 lint everyday

everyday: env browser
	$(PYTEST)

browser: # Debian's chromium for the tests of pages, if it is missing; only root can install it
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then exit; fi; \
	if [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver; then exit; fi; \
	echo 'The tests of pages are skipped: root can install chromium and chromium-driver for them.' >&2

test-faults: env # kills, signals, full disks and hostile files
	$(PYTEST) tests/faults

# Models from simulated segments and the micrographs in the folder MICROGRAPHS. Those of graphene have no scale: it
# follows from the lattice of graphene, 0.213 nm; that of ai-stem is chosen so that its lattice fits.
MICROGRAPHS ?= ../shared/data/micrographs
CUT := --pixel-size 0.0145 --low-pass --turns 6 --stride 24 --most 800 --scaling
model: env # train the bundled model
	$(call TRAIN_MODEL,window,shipped,lattices)

model-dense: env # train a model without padding on the same images
	$(call TRAIN_MODEL,local,dense,dense)

# Segments scaled by $(1), trained on as configs/$(2).yaml says, to model/$(3).safetensors.
define TRAIN_MODEL
	mkdir -p model/$(1)
	hrtemvae segments --simulated 60000 --validation 0.03 --scaling $(1) -o model/$(1)/simulated.h5
	hrtemvae segments $(MICROGRAPHS)/16_STOimage_1.ser $(MICROGRAPHS)/example_Au_nanoparticle.emd \
	  $(MICROGRAPHS)/Acquisition_18.emd $(CUT) $(1) -o model/$(1)/calibrated.h5
	hrtemvae segments $(MICROGRAPHS)/ai-stem_tem.tif $(CUT) $(1) --assume-pixel-size 0.029 -o model/$(1)/stem.h5
	hrtemvae segments $(MICROGRAPHS)/graphene_defect_raw.tif $(CUT) $(1) --assume-pixel-size 0.0109 \
	  -o model/$(1)/graphene.h5
	hrtemvae segments $(MICROGRAPHS)/graphene_flower_raw.tif $(CUT) $(1) --assume-pixel-size 0.0218 \
	  -o model/$(1)/flower.h5
	hrtemvae train configs/$(2).yaml -o model/$(3).safetensors
	hrtemvae model evaluate model/$(3).safetensors --segments model/$(1)/simulated.h5 -o model/$(3).html --store
endef

# On a cluster of two nodes that is made for it, as root on a machine that may be thrown away.
test-facility: env # tests of the image, Slurm jobs and sessions, as root on a throwaway machine
	python -m pytest tests/facility --timeout 1800 --durations=20

acceptance: env # check and measure a GPU, stage by stage; without one, try the stages on the CPU
	python benchmarks/gpu_acceptance.py -o acceptance.json

lint: env # linters and types
	ruff check
	ruff format --check
	mypy
	shellcheck -x slurm/*.sh configs/sites/*.sh

format: env # format the code
	ruff format
	ruff check --fix

# Every dependency of every extra with the hashes of its files, for Python 3.10 and newer, and those of the image, for
# its Python; in files of their own pip, which installs them, and PyTorch for CUDA with what it needs beyond: with ===,
# or pip would take a build for CPUs that it also finds. requirements-cpu.lock is kept by hand.
lock: env # resolve the dependencies of setup.cfg into the lock files
	printf 'torch ; sys_platform == "never"\n' > $(VENV)/without-torch
	printf '%s\n' $(OF_TORCH) > $(VENV)/of-torch.in
	echo pip > $(VENV)/installer.in
	sed -n 's/^\(torch==[^+]*\).*/\1/p' requirements-cpu.lock > $(VENV)/torch.in
	uv pip compile $(VENV)/installer.in $(LOCK) --universal --python-version 3.10 -o requirements-pip.lock
	uv pip compile setup.cfg $(VENV)/of-torch.in $(WITHOUT_TORCH) --extra mpi --extra formats \
	  --extra facility --extra training --extra dev $(LOCK) --universal --python-version 3.10 -o requirements.lock
	uv pip compile $(VENV)/torch.in $(WITH_TORCH) $(LOCK) -c requirements.lock --universal --fork-strategy fewest \
	  --python-version 3.10 -o requirements-cuda.lock
	sed -i 's/^torch==/torch===/' requirements-cuda.lock
	uv pip compile setup.cfg $(VENV)/of-torch.in $(VENV)/installer.in $(WITHOUT_TORCH) --extra mpi --extra formats \
	  --extra training $(LOCK) -c requirements.lock -c requirements-pip.lock --python-version 3.11 --python-platform linux \
	  -o containers/requirements.lock

LOCK := --generate-hashes --no-header --no-annotate --quiet
# What PyTorch needs on any machine.
OF_TORCH := filelock fsspec jinja2 networkx setuptools sympy typing-extensions
WITHOUT_TORCH := --override $(VENV)/without-torch --no-emit-package torch
WITH_TORCH := $(OF_TORCH:%=--no-emit-package %) --no-emit-package markupsafe --no-emit-package mpmath

clean: # remove the environment and what demo and model made
	rm -rf $(VENV) demo model acceptance.json
