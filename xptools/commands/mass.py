"""`xp mass`: mass and photometric [M/H] from absolute magnitude and colour."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from xptools.columns import OWN, Column
from xptools.commands._mass_model import DEFAULT, about, emulator
from xptools.errors import DataError, MissingColumns
from xptools.options import row_command, shared
from xptools.protocol import RowOp


@dataclass(frozen=True)
class Mass(RowOp):
    """(M, [M/H]) = f(M_G0, (BP-RP)_0), Li+ 2026 App. C.1; errors through the Jacobian and the held-out scatter."""

    model: str = ""
    alpha_fe: float = 0.0

    name: ClassVar[str] = "mass"
    needs: ClassVar = ("mg0", "bp_rp0")
    wants: ClassVar = ("mg0_err", "bp_rp0_err", "feh")
    adds: ClassVar = {
        "mass": OWN["mass"],
        "mass_err": OWN["mass_err"],
        "mh_phot": Column("float32", None, "phys.abund.Z", "Photometric metallicity [M/H] [dex]"),
        "mh_phot_err": Column("float32", None, "stat.error;phys.abund.Z", "Standard error of photometric [M/H] [dex]"),
    }
    flags: ClassVar = {
        1: "mg0 < 4: may have left the main sequence",
        2: "outside the colours the model was trained on",
        4: "magnitude or colour (or [Fe/H], where the model needs it) missing",
        8: "photometric [M/H] differs from feh by more than 0.5 dex: binary or wrong extinction",
    }
    cites: ClassVar = ("li2026", "bressan2012", "chen2014", "chen2019")

    def files(self):
        return {"model": self.model or str(DEFAULT)}

    def added(self):
        """Models that take [Fe/H] answer with a mass only."""
        columns = super().added()
        return {k: c for k, c in columns.items() if not (self._takes_mh() and k.startswith("mh_phot"))}

    def reads(self, schema):
        try:
            found = super().reads(schema)
        except MissingColumns as fault:
            archive = {"phot_g_mean_mag", "bp_rp", "parallax"} <= {n.lower() for n in schema.names}
            if archive and fault.missing == self.needs:
                raise DataError(
                    "columns mg0, bp_rp0 missing, but the table has phot_g_mean_mag, bp_rp and parallax. TRY: "
                    "xp deredden --map none first, or xp deredden with a dust map"
                ) from fault
            raise
        if self._takes_mh() and "feh" not in found:
            raise MissingColumns(self.name, ("feh",), tuple(schema.names))
        return found

    def _takes_mh(self) -> bool:
        path = Path(self.files()["model"])
        return len(about(path).inputs) == 3

    def compute(self, mg0, bp_rp0, mg0_err=None, bp_rp0_err=None, feh=None):
        from xptools.cores.isochrone import salaris
        from xptools.cores.mass import infer

        path = Path(self.files()["model"])
        mh = None if feh is None else feh + salaris(self.alpha_fe)
        out = infer(emulator(path), mg0, bp_rp0, mg0_err, bp_rp0_err, mh)
        out["mass_flag"] = out.pop("flag")
        return out


@row_command(
    "catalogue",
    40,
    examples=(
        "xp deredden --map none stars.parquet | xp mass -o masses.parquet",
        "xp mass --model m.safetensors stars.parquet -o masses.parquet",
    ),
    see=("deredden", "train", "veff", "mf"),
)
@shared("model", "alpha-fe")
def command(model, alpha_fe):
    """Append stellar mass and photometric metallicity from absolute magnitude and colour.

    Needs mg0 and bp_rp0 (xp deredden; --map none where there is no dust). A network that inverts isochrones gives mass
    and [M/H]; errors are mg0_err and bp_rp0_err through its Jacobian, plus its own held-out scatter at that magnitude.
    Stars brighter than mg0 = 4, and colours the model has not seen, are flagged; what lies far outside becomes null.

    Without --model the default is used. It is trained on the built-in main sequence, a smooth fit to PARSEC, for old
    stars (8 to 13.5 Gyr): right for the halo and the thick disc. Stars 1 Gyr old come out 0.03 Msun too light at 0.6
    Msun and 0.05 to 0.15 too light above 0.7. `xp train mass` makes models for other ages, and from real tables.

    Isochrones have scaled-solar abundances. Stars rich in alpha elements have more metals than [Fe/H] says:
    [M/H] = [Fe/H] + log10(0.638 10^[alpha/Fe] + 0.362) (Salaris+ 1993), +0.21 at --alpha-fe 0.3. It matters where feh
    is compared (bit 8 of mass_flag) and where the model takes it as input.
    """
    return Mass(model=model, alpha_fe=alpha_fe)
