#!/bin/bash
# Makes xptools/data/feh_demo.safetensors, the demonstration model of `xp feh`: five minutes of one core.
# Single mock stars, metal-poor ones far more common than in the sky, exact labels, exact spectra, a small network: what
# is smooth in the labels is what the errors, the slopes of chi2, need.
set -eu -o pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$(mktemp -d)"
xp mock 80000 --noise 0 --select true --seed 103 --spectra --correlations --fractions 0.4 0.3 0.3 --binaries 0 \
    --outliers 0 --spurious 0 -o mock.parquet
xp train feh --noise-free --teff true_teff --feh true_feh --hidden 64,64 --guess 128,64 --rate 4e-3 --batch 1024 \
    --epochs 300 mock.parquet -o feh_demo.safetensors
cp feh_demo.safetensors "$here/xptools/data/"
