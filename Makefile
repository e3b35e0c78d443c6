# Everything is done in .venv, made on first use. `make` alone lists the targets.
# Ready-made environment instead: make test PYTHON=python3 READY=
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BASE := python3
PYTHON := .venv/bin/python
READY := .venv/.ready
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup demo test check bench bench-gpu calibration recovery fuzz man clean

help:
	@echo 'make setup        the environment .venv with the tested versions (network, 2 GB of disk, minutes)'
	@echo 'make demo         a mock universe through the whole pipe, offline, under 2 minutes; see examples/demo/out'
	@echo 'make test         all tests'
	@echo 'make check        ruff, then all tests'
	@echo 'make man          the manual pages from the commands'
	@echo 'make bench        every command by size, against other programs and the limits of the machine (an hour);'
	@echo '                  make bench ONLY=mass SIZES=1e5 is short; tests/bench/out has the table, JSON and a figure'
	@echo 'make bench-gpu    the commands that know a GPU, on it and beside the CPU'
	@echo 'make fuzz         spoilt files to every reader for an hour: none may crash, hang or go without a sentence'
	@echo 'make calibration  200 mock universes: do the intervals cover the truth? (long)'
	@echo 'make recovery     what the auto-encoder of xp vae recovers of mock spectra (long)'
	@echo 'make clean        what demo, examples and bench made, and caches away'

setup: $(READY)

# The stamp holds until what is installed is asked for anew.
.venv/.ready: pyproject.toml constraints.txt
	test -x $(PYTHON) || $(BASE) -m venv .venv
	$(PYTHON) -m pip install --quiet -c constraints.txt torch
	$(PYTHON) -m pip install --quiet -c constraints.txt -e '.[plot,test]'
	for n in 1 5 7; do mkdir -p .venv/share/man/man$$n; ln -sf "$(CURDIR)"/man/*.$$n .venv/share/man/man$$n/; done
	touch $@

demo: $(READY)
	cd examples/demo && bash demo.sh

test: $(READY)
	$(PYTHON) -m pytest -n auto

check: $(READY)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m pytest -n auto

man: $(READY)
	$(PYTHON) -m xptools.manual man

# For a short one: make bench ONLY=mass,feh SIZES=1e5,1e6 SPECTRA=1e4, or QUICK=1 for the shortest of all.
# RESUME=1 goes on with one that was cut off.
BENCH = $(PYTHON) tests/bench/all.py $(if $(ONLY),--only $(ONLY)) $(if $(SIZES),--sizes $(SIZES)) \
	$(if $(SPECTRA),--spectra $(SPECTRA)) $(if $(OUT),--out $(OUT)) $(if $(QUICK),--quick) \
	$(if $(LONGEST),--longest $(LONGEST)) $(if $(RESUME),--resume)

bench: $(READY)
	$(BENCH)

bench-gpu: $(READY)
	$(BENCH) --device cuda

fuzz: $(READY)
	$(PYTHON) tests/fuzz/readers.py --seconds 3600

recovery: $(READY)
	$(PYTHON) tests/recovery_vae.py

calibration: $(READY)
	$(PYTHON) tests/calibration.py
	$(PYTHON) tests/calibration_joint.py --prior 40 --tails 0.1 --known 20000
	$(MAKE) -C examples/li2026 OUT=out/errors KNOWN=4000000 out/errors/known.parquet
	$(PYTHON) tests/calibration_joint.py --pool examples/li2026/out/errors/known.parquet --known 400000 --universes 16 --quick
	$(PYTHON) tests/calibration_pairs.py
	$(PYTHON) tests/calibration_gp.py

clean:
	rm -rf examples/*/out tests/bench/out .pytest_cache .ruff_cache build dist
