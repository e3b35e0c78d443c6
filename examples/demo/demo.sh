#!/usr/bin/env bash
# From stars to a mass function, offline: a mock universe of the halo near the Sun goes through the whole pipe, and the
# mass function that comes out stands beside the one that went in. `make demo` runs this; figures go to out/.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p out
cd out

# Bins of mass [Msun]: above 0.75 old stars leave the main sequence. One good star in a hundred is lost to the
# fidelity cut (xp mock says which), so V_eff is scaled by 0.99; 5 % is granted for the scatter of the masses.
volumes="veff --mass-edges 0.15:0.75:12 --veff-scale 0.99 --veff-error 0.05"
functions="mf --truth --segments 0.15,0.55,0.75"
cuts="select --cstar-nsigma 3 --fidelity 0.5 --feh -2.2:-1.1 --magnitude :17"

# 1. A mass model for old stars whose [Fe/H] is known (a quick one; the default needs no [Fe/H]).
xp train mass --feh-input --ages 10:13 --mh -2.6:-0.6 --epochs 100 --points 50000 -o mass.safetensors

# 2. Halo stars with Gaia's parallaxes, magnitudes and errors, all single, [Fe/H] exact: what the method assumes.
xp mock 150000 --seed 1 --fractions 0 0 1 --binaries 0 --feh-error 0 --outliers 0 |
  xp deredden --map none |
  xp $cuts |
  xp mass --model mass.safetensors -o stars.parquet

xp $volumes stars.parquet |
  xp $functions --report mf.json -o mf.parquet

echo
echo "=== Mass function per [Fe/H] bin beside the truth ==="
python ../table.py mf.parquet

# 3. The same with 40 % unresolved pairs and [Fe/H] errors of 0.1 to 0.3 dex, in one process and without sampling.
xp run "mock 150000 --seed 2 --fractions 0 0 1 | deredden --map none | $cuts | mass --model mass.safetensors
        | $volumes | $functions --method exact" -o mf-pairs.parquet

echo
echo "=== With pairs and [Fe/H] errors, for which the published method does not correct ==="
python ../table.py --summary mf-pairs.parquet

# 4. Figures, each with its numbers beside it.
xp plot cmd --locus -2,-1.5,-1 stars.parquet -o cmd.pdf
xp plot mf mf.parquet -o mf.pdf
xp plot xi mf.parquet -o xi.pdf
xp plot veff mf.parquet -o veff.pdf

echo
echo "Figures and tables are in examples/demo/out; what made them: xp info --history mf.parquet"
