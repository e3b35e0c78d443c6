"""`xp fetch`: one subcommand per kind of thing, found by file name: _fetch_<what>.py beside this file."""

from xptools.group import Found
from xptools.options import About

EXAMPLES = ("xp fetch gaia --plan", "xp fetch gaia -o gaia/", "xp fetch resume gaia/", "xp fetch recipe --list li2026")

command = Found(
    "fetch",
    About("get", 1, "group", examples=EXAMPLES, see=("mock", "join", "doctor")),
    help="""Get data from the archives: catalogues, spectra, files. The only command that uses the network.

    What is to be had: xp fetch WHAT --help. A fetch that was cut off goes on when it is run again.
    """,
    short_help="Get data from the archives; resumable, checked.",
    subcommand_metavar="WHAT [ARGS]...",
)
