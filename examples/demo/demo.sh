#!/usr/bin/env bash
# From stars to a mass function, offline: a mock universe of the halo near the Sun goes through the whole pipe, with its
# [Fe/H] known and with [Fe/H] from its XP spectra, and the mass function that comes out stands beside the one that went
# in. `make demo` runs this; figures go to out/.
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

# 3. From spectra: [Fe/H] is what xp feh reads out of the stars' XP spectra, and the masses rest on it. Its scatter, 0.07
# to 0.3 dex, mixes neighbouring stars, so this universe has Kroupa's mass function at every [Fe/H], and one bin holds
# the whole halo; V_eff is averaged over the halo's [Fe/H].
xp mock 100000 --seed 5 --fractions 0 0 1 --binaries 0 --outliers 0 --imf ../kroupa.toml --spectra --correlations |
  xp feh --replace --drop-coefficients |
  xp deredden --map none |
  xp select --cstar-nsigma 3 --fidelity 0.5 --feh -2.9:-0.4 --magnitude :17 |
  xp mass --model mass.safetensors -o spectra.parquet

halo="--feh-points 19 --mdf -1.45,0.4"
xp $volumes $halo --feh-edges -2.9,-0.4 spectra.parquet |
  xp $functions --method exact -o mf-spectra.parquet
xp $volumes $halo --feh-edges -2.9,-1.8,-1.45,-1.1,-0.4 spectra.parquet |
  xp $functions --method exact -o mf-spectra-bins.parquet

echo
echo "=== With [Fe/H] from XP spectra, the whole halo in one bin ==="
python ../scatter.py spectra.parquet
python ../table.py mf-spectra.parquet
echo "=== The same stars in four bins, which that scatter mixes (for that there is xp mf --deconvolve) ==="
python ../table.py --summary mf-spectra-bins.parquet

# 4. Step 2 with 40 % unresolved pairs and [Fe/H] errors of 0.1 to 0.3 dex, in one process and without sampling.
xp run "mock 150000 --seed 2 --fractions 0 0 1 | deredden --map none | $cuts | mass --model mass.safetensors
        | $volumes | $functions --method exact" -o mf-pairs.parquet

echo
echo "=== With pairs and [Fe/H] errors, for which the published method does not correct ==="
python ../table.py --summary mf-pairs.parquet

# 5. The halo among the discs: stars of all populations without spectra of their own, chosen by place and motion. The
# share of the halo's stars that the choice keeps comes from other stars, per bin, and goes into V_eff.
bins="--mass-edges 0.15:0.75:12"
xp mock 150000 --seed 4 --fractions 0 0 1 --binaries 0 --outliers 0 |
  xp eta |
  xp plot eta --kind completeness $bins -o kept.pdf --data-out kept.parquet
xp mock 600000 --seed 3 --binaries 0 --feh-error 0 --outliers 0 |
  xp deredden --map none |
  xp eta -o galaxy.parquet
xp plot eta --kind threshold galaxy.parquet -o eta.pdf
xp $cuts --eta-ratio 10 galaxy.parquet |
  xp mass --model mass.safetensors |
  xp $volumes --eta-completeness kept.parquet |
  xp $functions --method exact -o mf-eta.parquet

echo
echo "=== Chosen by eta, with a model trained on mock giants ==="
python ../purity.py eta.pdf.parquet
python ../table.py --summary mf-eta.parquet

# 6. Figures, each with its numbers beside it.
xp plot cmd --locus -2,-1.5,-1 stars.parquet -o cmd.pdf
xp plot feh spectra.parquet -o feh.pdf
xp plot mf mf.parquet -o mf.pdf
xp plot xi mf.parquet -o xi.pdf
xp plot veff mf.parquet -o veff.pdf

echo
echo "Figures and tables are in examples/demo/out; what made them: xp info --history mf.parquet"
