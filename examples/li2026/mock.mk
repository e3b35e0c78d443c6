# The default: a universe that is known. `make recovery` (below) stands beside the paper's tables.
MAP := $(OUT)/dust.fits
DUST := --map edenhofer2023 --map-file $(MAP)
LIGHT :=
ISOCHRONES :=
AGES := 10:13
MH := -2.6:-0.6
TRUTH := --truth
TEFF := teff_label
GIANT_FEH :=
FEH_OF_GIANTS := true_feh
REFERENCE := true_feh
MEASURED := $(OUT)/candidates.parquet
OTHERS := 12Gyr $(if $(PARSEC),PARSEC)
VARIANTS := 10Gyr 12Gyr alpha0.3
VOLUMES_12Gyr := --age 12
VOLUMES_alpha0.3 := --alpha-fe 0.3
MH_PARSEC := -1.5:0
KEPT := $(OUT)/kept.parquet
COMPLETENESS := completeness.csv
CHECKED := $(OUT)/recovery.csv $(OUT)/deconvolved.csv $(OUT)/selection.csv $(OUT)/models.csv

$(OUT)/dust.fits: dust.py | $(OUT)
	$(PYTHON) dust.py $@

# Every star of the universe in one stream: catalogue, dust, [Fe/H] from its spectrum, velocities and eta. The spectra
# with their correlations, 13 kB a star, are never written.
FROM_SPECTRA := --spectra --correlations | convert --drop feh,feh_err,bp_n_relevant_bases,rp_n_relevant_bases \
    | deredden $(DUST) | $(FEH) --drop-coefficients
MEASURING := $(if $(SPECTRA),$(FROM_SPECTRA),| deredden $(DUST))
$(OUT)/stars.parquet: $(MAP) conf/universe.toml $(OUT)/universe.settings $(FEH_MODEL) $(ETA_MODEL)
	$(XP) run --config conf/universe.toml "mock $(STARS) --binaries $(PAIRS) --map-file $(MAP) $(MEASURING) | $(ETA)" -o $@

# Other stars of the same Galaxy, whose [Fe/H] and mass are taken as known: by them the errors of both are measured.
$(OUT)/known.parquet: $(MAP) conf/universe.toml $(OUT)/universe.settings $(OUT)/known.settings $(FEH_MODEL) $(OUT)/mass.safetensors
	$(XP) run --config conf/universe.toml "mock $(KNOWN) --seed 21 --fractions 0.03 0.17 0.8 --binaries $(PAIRS) --map-file $(MAP) \
	    $(MEASURING) | mass --model $(OUT)/mass.safetensors | $(SOUND) | convert --keep source_id,mass,mass_err,feh,feh_err,true_feh,true_mass" -o $@

$(OUT)/validation.parquet: $(OUT)/stars.parquet
	$(XP) select --cstar-nsigma 3 --fidelity 0.5 $< -o $@

# Giants of the same Galaxy as a catalogue of labels would have them, and dwarfs as APOGEE's, with its flags and errors.
$(OUT)/giants.parquet: $(OUT)/giants.settings
	$(XP) mock $(GIANTS) --sample giants --seed 11 -o $@

$(OUT)/dwarfs.parquet: $(OUT)/dwarfs.settings labels.py
	$(XP) run 'mock $(DWARFS) --seed 12 --spectra --correlations --g-limit 16 --fractions 0.4 0.3 0.3 | convert --drop feh,feh_err | feh --binary' -o $(OUT)/dwarfs-spectra.parquet
	$(PYTHON) labels.py $(OUT)/dwarfs-spectra.parquet -o $@

# Halo stars with spectra, and the flux that the network gives their labels.
$(OUT)/spectra.parquet: $(FEH_MODEL) model.py | $(OUT)
	$(XP) run "mock 4000 --seed 13 --fractions 0 0 1 --binaries 0 --outliers 0 --spectra --correlations | convert --drop feh,feh_err \
	    | deredden --map none | $(FEH) | select --feh -2.2:-1.1 --magnitude :16 | calibrate" -o $(OUT)/flux.parquet
	$(PYTHON) model.py $(OUT)/flux.parquet $(FEH_MODEL) -o $@

# Which share of the halo's stars passes the cut on eta, per bin, from other stars than those that it corrects.
$(OUT)/halo.parquet: $(MAP) conf/universe.toml conf/candidates.toml $(OUT)/halo.settings $(OUT)/mass.safetensors $(ETA_MODEL)
	$(XP) run --config conf/universe.toml "mock $(HALO) --seed 2 --fractions 0 0 1 --binaries 0 --map-file $(MAP) \
	    | deredden $(DUST) | mass --model $(OUT)/mass.safetensors | $(ETA)" -o $@

$(OUT)/sound.parquet: $(OUT)/halo.parquet
	$(XP) select --isochrone --cstar-nsigma 3 --fidelity 0.5 --cutflow-out $(OUT)/cutflow-sound.parquet $< -o $@

$(OUT)/kept.parquet: $(OUT)/sound.parquet
	$(XP) plot eta --kind completeness --eta-ratio 10 --feh true_feh $< -o $(OUT)/kept.pdf --data-out $@

# Where does the difference to the injected functions come from? Each rung puts one measured thing for a true one.
TRUE_FEH := convert --drop feh,feh_err --rename true_feh=feh
TRUE_MASS := convert --drop mass,mass_err --rename true_mass=mass
SOUND := select --isochrone --cstar-nsigma 3 --fidelity 0.5 --magnitude :17
RUNGS := counts masses cuts eta feh
STEPS_counts := select --magnitude :17 | $(TRUE_FEH) | $(TRUE_MASS)
STEPS_masses := select --magnitude :17 | $(TRUE_FEH)
STEPS_cuts := $(SOUND) | $(TRUE_FEH)
STEPS_eta := $(SOUND) --eta-ratio 10 | $(TRUE_FEH)
STEPS_feh := $(SOUND) --eta-ratio 10
STEPS_deconvolved := $(STEPS_feh)
FUNCTION_deconvolved := --deconvolve --method nuts --error-table $(OUT)/known.parquet
STEPS_singles := $(STEPS_eta)
FUNCTION_singles = --binaries fraction=$(PAIRS),q=uniform --model $(OUT)/mass.safetensors --method nuts
$(OUT)/weighed-stars.parquet: $(OUT)/stars.parquet $(OUT)/mass.safetensors
	$(XP) mass --model $(OUT)/mass.safetensors $< -o $@

SKY := veff --config conf/functions.toml --table --plx-sn 10 $(DUST)
QUALITY = --veff-scale $$($(PYTHON) tables.py share $(OUT)/cutflow-sound.parquet)
$(OUT)/sky.parquet: $(MAP) conf/functions.toml
	$(XP) $(SKY) -o $@

$(OUT)/sky-sound.parquet: $(OUT)/sound.parquet conf/functions.toml
	$(XP) $(SKY) $(QUALITY) -o $@

$(OUT)/sky-eta.parquet: $(OUT)/kept.parquet conf/functions.toml
	$(XP) $(SKY) $(QUALITY) --eta-completeness $< -o $@

SKY_counts := sky
SKY_masses := sky
SKY_cuts := sky-sound
SKY_eta := sky-eta
SKY_feh := sky-eta
SKY_deconvolved := sky-eta
SKY_singles := sky-eta
.SECONDEXPANSION:
$(patsubst %,$(OUT)/rung-%.parquet,$(RUNGS) deconvolved singles): $(OUT)/rung-%.parquet: $(OUT)/weighed-stars.parquet $(OUT)/$$(SKY_$$*).parquet conf/functions.toml
	$(XP) run --config conf/functions.toml "$(STEPS_$*) | mf $(FUNCTION_$*) --truth --veff $(OUT)/$(SKY_$*).parquet" $< -o $@

#: make recovery    recovered against injected mass functions, one measured thing for a true one after the other
recovery: $(OUT)/recovery.csv
$(OUT)/recovery.csv: $(RUNGS:%=$(OUT)/rung-%.parquet) tables.py
	$(PYTHON) tables.py recovery $(filter %.parquet,$^) -o $@

#: make picture     the rung of eta, and dotted the one of XP's [Fe/H], as README shows them
picture: $(OUT)/recovered.png
$(OUT)/recovered.png: $(OUT)/rung-eta.parquet $(OUT)/rung-feh.parquet
	$(XP) plot mf --column double --no-reference --compare "[Fe/H] from XP, counted"=$(OUT)/rung-feh.parquet $< -o $@

#: make deconvolve  the last rung with errors of mass and [Fe/H] undone by xp mf --deconvolve, table and figure: 1 minute of CPU
deconvolve: $(OUT)/deconvolved.csv $(OUT)/deconvolved.pdf
$(OUT)/rung-deconvolved.parquet: $(OUT)/known.parquet
$(OUT)/deconvolved.pdf: $(OUT)/rung-deconvolved.parquet $(OUT)/rung-feh.parquet
	$(XP) plot mf --column double --no-reference --compare counted=$(OUT)/rung-feh.parquet $< -o $@
$(OUT)/deconvolved.csv: $(OUT)/rung-feh.parquet $(OUT)/rung-deconvolved.parquet tables.py
	$(PYTHON) tables.py recovery $(filter %.parquet,$^) -o $@
.PHONY: recovery picture deconvolve

# The sample of the selection study, true masses and [Fe/H]: some stars are missing from the catalogue, the fainter the
# more (completeness.csv says so too), so that each effect is in the stars and can be taken into V_eff.
$(OUT)/thinned.parquet: $(OUT)/weighed-stars.parquet
	$(XP) run "$(SOUND) --eta-ratio 10 --where '(source_id // 128) % 1000 < 1000 - 75 * max(phot_g_mean_mag - 15, 0)' \
	    | $(TRUE_FEH) | $(TRUE_MASS)" $< -o $@

#: make pairs       all of it once more with 40 % unresolved pairs, in OUT/pairs, and the single stars behind (mf --binaries)
pairs:
	$(MAKE) OUT=$(OUT)/pairs PAIRS=0.4 table5 recovery singles
singles: $(OUT)/singles.csv
$(OUT)/singles.csv: $(OUT)/rung-eta.parquet $(OUT)/rung-singles.parquet tables.py
	$(PYTHON) tables.py recovery $(filter %.parquet,$^) -o $@
.PHONY: pairs singles
