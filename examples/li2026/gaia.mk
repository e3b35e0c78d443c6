# Gaia's archive (DATA=gaia): the steps of `xp fetch recipe li2026`, each fetched when it is needed and gone on with after
# a stop. 5 GB of catalogue, 3.2 GB of dust, some 15 GB of spectra, hours to days. What no archive of the recipe has:
# LABELS, ASPCAP labels of SDSS-V (astra 0.8, columns as there, Teff as teff_label) joined with XP spectra by source_id.
MAP :=
DUST := --map edenhofer2023
LIGHT := --isochrones $(OUT)/parsec
ISOCHRONES := --isochrones $(OUT)/parsec
AGES := 0.1:10
MH := -2.2:0.5
TRUTH :=
HIDDEN :=
TEFF := teff_label
GIANT_FEH := --feh moh_xp
FEH_OF_GIANTS := moh_xp
REFERENCE := fe_h
MEASURED := $(OUT)/measured.parquet
OTHERS := $(if $(BASTI),BaSTI)
VARIANTS := alpha0.3
TRACKS_alpha0.3 := $(LIGHT)
VOLUMES_alpha0.3 := --alpha-fe 0.3
KEPT := $(OUT)/kept.csv
# The catalogue's completeness, a curve or a map as `xp veff --completeness` reads it, if there is one.
COMPLETENESS ?=
GIANTS_TABLE ?= $(OUT)/aspgap.parquet

#: make fetch DATA=gaia    what the recipe holds, with sizes
fetch:
	$(XP) fetch recipe li2026 --list --to $(OUT)
.PHONY: fetch

$(OUT)/parsec/.whole: | $(OUT)
	$(XP) fetch recipe li2026 isochrones --to $(OUT)
	touch $@

$(OUT)/dust.whole: | $(OUT)
	$(XP) fetch recipe li2026 dust --to $(OUT)
	touch $@

# xp fetch recipe takes a file that is there for done: one that is spoilt is not. What took hours to come is kept when
# writing its checksum down fails.
.PRECIOUS: $(OUT)/catalogue.parquet $(OUT)/spectra-all.parquet
again = $(if $(filter $@,$(SPOILT)),rm -f $@)
$(OUT)/catalogue.parquet: | $(OUT)
	$(again)
	$(XP) fetch recipe li2026 gaia --to $(OUT)
	$(noted)

$(OUT)/mass.safetensors $(OUT)/mass-PARSEC.safetensors $(OUT)/candidates.parquet $(OUT)/fig1.pdf: $(OUT)/parsec/.whole
$(READINGS:%=$(OUT)/phi-%.parquet) $(EFFECTS:%=$(OUT)/volumes-%.parquet): $(OUT)/parsec/.whole

$(OUT)/stars.parquet: $(OUT)/catalogue.parquet $(OUT)/dust.whole $(ETA_MODEL)
	$(XP) run 'deredden $(DUST) | $(ETA)' $< -o $@
	$(noted)

$(OUT)/spectra-all.parquet: $(OUT)/candidates.parquet
	$(again)
	$(XP) fetch recipe li2026 spectra --to $(OUT)
	$(noted)

# [Fe/H] of the candidates; one without a spectrum keeps its row.
ARRAYS := coefficients coefficient_errors coefficient_correlations
comma := ,
empty :=
COEFFICIENTS := $(subst $(empty) $(empty),$(comma),$(ARRAYS:%=bp_%) $(ARRAYS:%=rp_%))
WITH_SPECTRA := join --with $(OUT)/spectra-all.parquet --columns $(COEFFICIENTS)
$(OUT)/measured.parquet: $(OUT)/candidates.parquet $(OUT)/spectra-all.parquet $(FEH_MODEL)
	$(XP) run '$(WITH_SPECTRA) | $(FEH) --drop-coefficients' $< -o $@
	$(noted)

$(OUT)/giants.parquet: $(GIANTS_TABLE) $(OUT)/giants.settings
	$(XP) convert $< -o $@
	$(noted)

$(OUT)/dwarfs.parquet: $(LABELS) $(OUT)/dwarfs.settings
	$(XP) convert $< -o $@
	$(noted)

$(OUT)/aspgap.parquet $(OUT)/apogee-xp.parquet:
	@echo "$@ has to be made of $(if $(findstring aspgap,$@),the files of: xp fetch data aspgap,labels of astra 0.8 joined with xp fetch xp)" >&2
	@exit 1

$(OUT)/validation.parquet: $(OUT)/dwarfs.parquet $(FEH_MODEL)
	$(XP) $(FEH) --replace $< -o $@
	$(noted)

# Stars whose [Fe/H] is known tell how that from spectra scatters. Those of APOGEE are brighter than the sample, and the
# network has learnt from them: LABELS_KNOWN can name stars that are neither, with the columns of LABELS.
LABELS_KNOWN ?= $(OUT)/validation.parquet
$(OUT)/known.parquet: $(LABELS_KNOWN) $(OUT)/mass.safetensors $(OUT)/dust.whole $(FEH_MODEL)
	$(XP) run "deredden $(DUST) --replace | $(FEH) --replace | mass --model $(OUT)/mass.safetensors --replace \
	    | convert --keep source_id,mass,feh,feh_err,fe_h" $< -o $@
	$(noted)

#: make deconvolve DATA=gaia  the mass functions with errors of mass and [Fe/H] undone (xp mf --deconvolve)
deconvolve: $(OUT)/deconvolved.csv $(OUT)/deconvolved.pdf
$(OUT)/phi-deconvolved.parquet: $(OUT)/sample.parquet $(OUT)/known.parquet conf/functions.toml
	$(XP) run --config conf/functions.toml 'veff $(LIGHT) | mf --deconvolve --method nuts --error-table $(OUT)/known.parquet' $< -o $@
	$(noted)
$(OUT)/deconvolved.csv: $(OUT)/phi-text.parquet $(OUT)/phi-deconvolved.parquet tables.py
	$(PYTHON) tables.py laws $(filter %.parquet,$^) -o $@
	$(noted)
$(OUT)/deconvolved.pdf: $(OUT)/phi-deconvolved.parquet $(OUT)/phi-text.parquet
	$(XP) plot mf --column double --no-reference --compare counted=$(OUT)/phi-text.parquet $< -o $@
	$(call noted,$(@F).parquet)
.PHONY: deconvolve

$(OUT)/spectra.parquet: $(OUT)/sample.parquet $(OUT)/spectra-all.parquet $(FEH_MODEL) model.py
	$(XP) run 'select --magnitude :14 | $(WITH_SPECTRA) | calibrate' $< -o $(OUT)/flux.parquet
	$(PYTHON) model.py $(OUT)/flux.parquet $(FEH_MODEL) -o $@
	$(noted)

# The share that passes the cut on eta, from the giants, per [Fe/H] (Li+ 2026 take it for the same at every mass).
$(OUT)/kept.csv: $(OUT)/giants-eta.parquet
	$(PYTHON) tables.py giants-kept $< -o $@
	$(noted)

$(OUT)/thinned.parquet: $(OUT)/sample.parquet
	cp $< $@.part && mv $@.part $@
	$(noted)
