"""`xp doctor`: what this machine has of what xp needs."""

import click

from xptools.options import plain_command

NOTES = {
    "WHAT IS LOOKED AT": """Packages and their versions; whether JAX computes, and on which device; cores; free memory
and disk; whether the cache can be written; the folders of `--data`; each external file of the manifest (dust maps);
the model that comes with xp; the manual pages.

A package that is missing or too old, a JAX that does not compute, a cache that cannot be written, a damaged model, and
an external file that is there but is not whole are faults: status 69. An external file, or a program, that is not
there is none: only the commands that name it need it."""
}


@plain_command("help", 2, examples=("xp doctor", "xp doctor --json --quick"), see=("deredden", "info"), notes=NOTES)
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
@click.option("--quick", is_flag=True, help="Compare only the sizes of external files, not their sums.")
def command(as_json, quick, offline):
    """Check packages, device, memory, disk, cache, data files and manual pages of this machine.

    Every line says ok, absent (needed by some commands only) or fault, and every fault what to do about it. The
    network is not used. External files are read whole for their sums: --quick leaves that out.
    """
    from xptools import diagnosis

    findings = diagnosis.findings(quick)
    faults = [f for f in findings if f.state == "fault"]
    if as_json:
        import json

        click.echo(json.dumps({"ok": not faults, "checks": [f._asdict() for f in findings]}, indent=1))
    else:
        for f in findings:
            click.echo(f"{f.state:<7} {f.about:<12} {f.words}" + (f" TRY: {f.cure}" if f.cure else ""))
        click.echo("xp has what it needs" if not faults else f"{len(faults)} fault(s)")
    click.get_current_context().exit(69 if faults else 0)
