"""`xp fetch cancel`: removes the jobs of a fetch from its servers."""

import click

from xptools.options import plain_command


@plain_command("get", 13, examples=("xp fetch cancel gaia/",), see=("fetch gaia", "fetch resume", "fetch status"))
@click.argument("folder", metavar="DIR")
@click.option("--credentials", default="", metavar="FILE", help="File with user and password, or token; mode 600.")
def command(folder, credentials):
    """Remove the jobs of a fetch from the archive.

    All jobs of the fetch in DIR go, running or not. What was fetched stays; `xp fetch resume` makes new jobs for the
    rest. Status 75: some jobs could not be removed.
    """
    from xptools.archive import credentials as secrets
    from xptools.archive import uws
    from xptools.archive.http import Client
    from xptools.archive.tap import Tap
    from xptools.commands._fetch_status import kept
    from xptools.errors import RemoteError

    manifest, wish = kept(folder)
    client = Client(wish.timeout, wish.tries)
    taps = {s.name: Tap(client, s.url) for s in wish.services()}
    if file := credentials or wish.credentials:
        for tap in taps.values():
            secrets.sign_in(client, tap.url, secrets.read(file))
    with manifest.held():
        jobs = [r for r in manifest.ranges() if r.job and r.service in taps]
        for r in jobs:
            if uws.Job(taps[r.service], r.job).delete():
                manifest.set(r.lo, job=None)
        left = sum(bool(r.job) for r in manifest.ranges())
        strays = [uws.Job(t, u).delete() for t in taps.values() for u in uws.orphans(t, manifest.runid)]
    manifest.close()
    if left:
        raise RemoteError(f"{left} jobs could not be removed. {folder}. TRY: xp fetch cancel {folder} later")
    click.echo(f"{len(jobs) + len(strays)} jobs removed")
