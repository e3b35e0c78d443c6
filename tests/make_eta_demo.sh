#!/bin/bash
# Makes xptools/data/eta_demo.safetensors, the demonstration model of `xp eta`: two minutes on two cores.
# Mock giants of the default universe through the paper's cuts (Li+ 2026 Table 2), [Fe/H] with its errors.
set -eu -o pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$(mktemp -d)"
xp mock 1000000 --seed 104 --sample giants -o mock-giants.parquet
xp train eta --quality aspgap --epochs 150 --check 5 --patience 2 mock-giants.parquet -o eta_demo.safetensors
cp eta_demo.safetensors "$here/xptools/data/"
