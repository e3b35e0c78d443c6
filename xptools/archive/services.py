"""The TAP services that xp knows by name, and what is their own."""

from dataclasses import dataclass

from xptools.errors import UsageError

# How a truth is written in ADQL, by what services take; the first that is not refused is used.
TRUTHS = ("'true'", "TRUE", "1", "'t'")


@dataclass(frozen=True)
class Service:
    """A TAP service: its address, and its table of astrometric fidelities ("" for none)."""

    name: str
    url: str
    fidelity: str = ""


KNOWN = {
    "esa": Service("esa", "https://gea.esac.esa.int/tap-server/tap", fidelity="external.gaiaedr3_spurious"),
    "ari": Service("ari", "https://gaia.ari.uni-heidelberg.de/tap"),
    "aip": Service("aip", "https://gaia.aip.de/tap"),
}
ALIASES = {"gavo": "ari"}


def services(text: str) -> tuple[Service, ...]:
    """The services of a list with commas, by name or address, in its order; UsageError if a name is unknown."""
    found = []
    for word in filter(None, (w.strip() for w in text.split(","))):
        name = ALIASES.get(word.lower(), word.lower())
        if name in KNOWN:
            found.append(KNOWN[name])
        elif word.startswith(("http://", "https://")):
            found.append(Service(word, word.rstrip("/")))
        else:
            raise UsageError(f"no service is called {word!r}. TRY: one of {', '.join(KNOWN)}, or an address")
    if not found:
        raise UsageError(f"--service {text!r} names none. TRY: one of {', '.join(KNOWN)}, or an address")
    return tuple(found)
