# What the folders share: a pipe fails when any of its commands does, a target that failed is removed, `make` alone makes
# `all`. DATA is real input where a folder has such targets, OUT where results go, TABLE a table of the user; XP and
# PYTHON are the programs, PYTHON the one that xp itself runs with: only that surely has the packages.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

DATA ?= ../../../shared/data
OUT ?= out
XP ?= xp
ifeq ($(origin PYTHON),undefined)
PYTHON := $(or $(shell sed -n '1s/^\#!\(.*python[^ ]*\)$$/\1/p' "$$(command -v $(firstword $(XP)))" 2>/dev/null),python3)
endif

ifneq ($(words $(OUT)),1)
$(error OUT='$(OUT)': the name of a folder without spaces, which make takes for several)
endif

ifneq ($(words $(TABLE)),$(if $(TABLE),1,0))
$(error TABLE='$(TABLE)': the name of a file without spaces, which make takes for several)
endif

$(OUT):
	mkdir -p $@

clean:
	rm -rf $(OUT)

.PHONY: all clean
