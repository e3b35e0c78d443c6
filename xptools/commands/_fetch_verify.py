"""`xp fetch verify`: whether what a fetch left in a folder is whole and as it was written."""

import click

from xptools.options import plain_command


@plain_command("get", 12, examples=("xp fetch verify gaia/",), see=("fetch gaia", "fetch resume", "fetch status"))
@click.argument("folder", metavar="DIR")
def command(folder):
    """Check every part of a fetch.

    The parts in DIR are read: checksum, number of rows, no source twice, range. The network is not used.
    A part that is not what was written is removed and noted, so that `xp fetch resume` gets it again: status 65. Status
    75: all parts are sound, but something is left to fetch. 76: some ranges have fewer rows than the archive counts.
    """
    from xptools.archive import parts
    from xptools.archive.manifest import DONE, OPEN, SHORT, TODO
    from xptools.commands._fetch_status import kept
    from xptools.errors import DataError, RemoteError

    manifest, wish = kept(folder)
    with manifest.held():
        done, bad = manifest.ranges(DONE), []
        for r in done:
            path = manifest.folder / r.file if r.file else None
            if path is None and not r.rows:
                continue
            if fault := parts.fault(path, r, unique=not wish.adql, ranged=not wish.whole):
                bad.append(f"{path.name}: {fault}")
                path.unlink(missing_ok=True)
                manifest.set(r.lo, state=TODO, expected=r.rows, rows=None, job=None, file=None, sha256=None)
        left, short = len(manifest.ranges(OPEN, TODO)), manifest.ranges(SHORT)
    rows = sum(r.rows or 0 for r in done)
    manifest.close()
    if bad:
        raise DataError(
            f"{len(bad)} of {len(done)} parts are damaged ({bad[0]}). {folder}. TRY: xp fetch resume {folder}"
        )
    if short:
        from xptools.archive.fetching import missing

        raise missing(short, not wish.whole)
    if left:
        raise RemoteError(f"{rows:,} rows are sound, {left} ranges are left. {folder}. TRY: xp fetch resume {folder}")
    click.echo(f"{rows:,} rows in {sum(bool(r.file) for r in done)} parts, all whole")
