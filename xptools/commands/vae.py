"""`xp vae`: what a scatter variational auto-encoder knows of XP spectra without any labels."""

import click

from xptools.commands._vae_inspect import Inspect
from xptools.commands._vae_steps import DEFAULT, Decode, Encode
from xptools.errors import UsageError
from xptools.options import row_command, shared

NOTES = {
    "METHOD": """Coefficients over the G flux, standardised as in training, are encoded to the mean and the standard
deviation of a few latents (six in the published network); the decoder makes a spectrum of the means, the scatter
network an intrinsic scatter for it. Nothing is drawn unless --sample asks for it. vae_chi2 is per known coefficient,
with noise and scatter in its denominator; vae_rmse (eqs 6 and 7 of the paper) has noise alone.""",
    "WHAT IS ADDED": """latent: z1 ... and z1_err ...; fit: vae_chi2, vae_rmse, vae_p; reconstruction, scatter: what the
networks make, in the archive's units; denoised: the mean of data and model, each by its variance, and its error;
residuals: R(j), coefficients minus reconstruction in their errors; flux: vae_rmse_flux, residuals of the flux on 61
wavelengths from 392 to 992 nm in errors that take correlations where the table has them (eqs 8 and 9); all.""",
    "THE OUTLIER PROBABILITY": """vae_p is the chance that a star like those of the training has a larger vae_chi2: its
quantiles are uniform for such stars, as measured on those held out of the training, at the same share of noise in the
variance. Stars with vae_p below 1e-4 are flagged. What the training sample had many of is not odd.""",
    "LATENTS": """Their order and sign are those of one training: z1 means nothing in itself. --inspect LABELS ranks
them, for each column of labels, by the information they share with it (in nats, from ranks) and gives Spearman's
correlation, and the partial one at fixed values of the other labels named: what is known of extinction beyond its
relation to temperature, say. Rank 0 has what all latents know together, by three probes: least squares, linear and
quadratic, and a random forest (50 trees, at least 5 stars in a leaf), each star predicted by what was fitted to others;
and the single coefficient, over the G flux, that knows most of the label, if the table has them. Spectra are encoded on
the way if the table has no latents. At most 100,000 stars count, chosen by their source_id.

From 21,000 mock giants up to 4 kpc away behind dust (xp train vae --warm 0.5 --batch 64 --rate 1e-3 --epochs 60), the
forest finds Teff, log g, [Fe/H] and extinction of others with rank correlations of 0.97, 0.70, 0.97 and 0.95; the best
single coefficient has 0.84, 0.63, 0.73 and 0.79. At fixed values of the other three it has 0.93, 0.29, 0.95 and 0.95:
the gravity of a mock giant is mostly known from the rest. From 8,000 giants, with as many epochs, two latents are in
use, and log g is known to 0.64, no better than from one coefficient (0.65): fewer stars want more epochs.""",
    "THE MODEL": """Without --model a small demonstration model is used. It is trained on the synthetic spectra of
xp mock --spectra, which are like real ones in kind, not in detail: right for trying things and for mock stars, not for
science on real stars. xp train vae makes a model from any table of spectra, or of published weights.""",
}


@row_command(
    "spectra",
    30,
    examples=(
        "xp vae spectra.parquet -o latents.parquet",
        "xp mock 3000 --spectra | xp vae --add latent,denoised -o denoised.parquet",
        "xp vae spectra.parquet | xp vae --inspect true_teff,true_logg,true_feh",
        "xp vae spectra.parquet | xp vae --decode --replace | xp calibrate -o made.parquet",
    ),
    see=("train", "calibrate", "feh", "plot"),
    notes=NOTES,
)
@shared("model")
@click.option("--add", default="latent,fit", show_default=True, metavar="LIST",
              help="Append latent, fit, reconstruction, scatter, denoised, residuals, flux, or all.")  # fmt: skip
@click.option("--sample", type=click.IntRange(0, 1000), default=0, show_default=True,
              help="Draws of each latent from its posterior, by --seed and source_id.")  # fmt: skip
@click.option("--decode", is_flag=True, help="Make spectra of the table's latents instead.")
@click.option("--decode-g", type=float, default=15.0, show_default=True,
              help="With --decode: G of a row that has neither flux nor magnitude [mag].")  # fmt: skip
@click.option("--inspect", metavar="LABELS", default="", help="Rank the latents by what they know of these columns.")
def command(model, add, sample, decode, decode_g, inspect, seed):
    """Append latents of XP spectra, how well they are reconstructed, and how odd they are.

    A variational auto-encoder (xp train vae) has learned, without labels, what stellar spectra there are, and the
    scatter about them that noise does not explain. A star is encoded to a few latents with errors; chi2, residuals, an
    outlier probability and, if asked for, the denoised spectrum come of decoding them. --decode goes the other way.
    """
    if decode and inspect:
        raise UsageError("--decode and --inspect do two different things. TRY: one of them")
    if inspect:
        return Inspect(model=model or str(DEFAULT), labels=inspect)
    if decode:
        return Decode(model=model, g=decode_g)
    return Encode(model=model, add=add, sample=sample, seed=seed if sample else 0)
