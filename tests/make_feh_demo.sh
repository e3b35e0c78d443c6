#!/bin/bash
# Makes xptools/data/feh_demo.safetensors, the demonstration model of `xp feh`: two minutes on two cores.
# Single mock stars, metal-poor ones far more common than in the sky, exact labels, a small network.
set -eu -o pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$(mktemp -d)"
xp mock 60000 --seed 103 --spectra --correlations --fractions 0.4 0.3 0.3 --binaries 0 --outliers 0 --spurious 0 \
    -o mock.parquet
xp train feh --teff true_teff --feh true_feh --hidden 128,128,64 --guess 128,64 --rate 3e-3 --batch 256 --epochs 200 \
    mock.parquet -o feh_demo.safetensors
cp feh_demo.safetensors "$here/xptools/data/"
