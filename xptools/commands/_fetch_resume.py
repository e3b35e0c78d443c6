"""`xp fetch resume`: goes on with a fetch into a folder."""

import click

from xptools.options import plain_command


@plain_command("get", 11, examples=("xp fetch resume gaia/",), see=("fetch gaia", "fetch status", "fetch verify"))
@click.argument("folder", metavar="DIR")
def command(folder, quiet, progress):
    """Go on with a fetch that was cut off.

    The fetch in DIR goes on with the query and the options it was begun with. Jobs that still run on the server are
    found again; ranges that were short are asked for again; parts that `xp fetch verify` found damaged are fetched
    again. The result has the same bytes as that of a fetch that was never cut off.
    """
    from xptools.commands import _fetch_gaia
    from xptools.commands._fetch_status import kept

    manifest, wish = kept(folder)
    manifest.close()
    options = {"output": folder.rstrip("/") + "/", "output_format": None, "quiet": quiet, "progress": progress}
    _fetch_gaia.carry_out(wish, False, options)
