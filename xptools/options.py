"""Every option that more than one command has, declared once, and what makes a function a command.

A command is a function that takes its own options and returns a step; `row_command`, `cut_command`, `fold_command` and
`source_command` add the common options, read and write the table, and run it. `plain_command` is for the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

import click

from xptools.completing import offer
from xptools.config import defaults
from xptools.errors import UsageError
from xptools.session import settle

SECTIONS = ("get", "catalogue", "spectra", "population", "models", "tables", "help")
POSITIVE, NOT_NEGATIVE, HEIGHT = click.FloatRange(0, min_open=True), click.FloatRange(0), click.FloatRange(-10, 10)
FORMATS = ("arrows", "arrow", "parquet", "fits", "votable", "ecsv", "csv", "json")
MOST_BINS = 1000  # of --mass-edges and the like


def _option(*names: str, **kwargs) -> Callable:
    return click.option(*names, **kwargs)


PRINT = _option("-P", "--print-params", is_flag=True, help="Print the resolved parameters as TOML and stop.")
# Where bytes come from and go to, and how the run looks. No result depends on these (seed apart).
IO_OPTIONS = (
    _option(
        "-o", "--output", default="-", metavar="FILE", help="Output file; - is stdout. The suffix decides the format."
    ),
    _option("-O", "--output-format", type=click.Choice(FORMATS), help="Output format, if the suffix does not say it."),
    _option(
        "--batch-rows",
        type=click.IntRange(1),
        default=16384,
        show_default=True,
        help="Rows per batch; fewer where rows are wide.",
    ),
    _option("--replace", is_flag=True, help="Compute columns again that are already there."),
    _option("--no-clobber", is_flag=True, help="Never replace an existing output file."),
    _option("--no-provenance", is_flag=True, help="Leave the history out of the output."),
    PRINT,
)
GLOBAL_OPTIONS = (
    _option("-q", "--quiet", is_flag=True, help="Errors only on stderr."),
    _option("-v", "--verbose", is_flag=True, help="Say more on stderr."),
    _option("--debug", is_flag=True, help="Show a traceback when something fails."),
    _option(
        "--progress",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Progress bar on stderr.",
    ),
    _option(
        "--color",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Colours in messages.",
    ),
    _option("-@", "--threads", type=click.IntRange(0), default=0, show_default=True, help="Cores to use; 0 is all."),
    _option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where to compute.",
    ),
    _option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of everything random."),
    _option("--data", metavar="DIR", help="Folders searched for maps and models, separated as PATH is (XP_DATA)."),
    _option(
        "--cache", metavar="DIR", help="Folder for converted maps and compiled kernels; 'off' for none (XP_CACHE)."
    ),
    _option("--offline", is_flag=True, help="Never use the network (XP_OFFLINE)."),
    _option("--config", metavar="FILE", help="Configuration read instead of xp.toml and the user's own."),
    _option("--require-version", metavar="X", help="Stop unless this is version X of xp."),
)
GLOBAL_NAMES = (
    "quiet", "verbose", "debug", "progress", "color", "threads", "device", "seed", "data", "cache", "offline", "config",
    "require_version",
)  # fmt: skip
IO_NAMES = ("output", "output_format", "batch_rows", "replace", "no_clobber", "no_provenance", "print_params")

SHARED: dict[str, Callable] = {
    "map": _option(
        "--map",
        "map_",
        metavar="NAME",
        default="edenhofer2023",
        show_default=True,
        help="3D dust map: edenhofer2023, bayestar2019, another map class of dustmaps, or none.",
    ),
    "map-file": _option(
        "--map-file", metavar="FILE", default="", help="The map's file, if it is not where dustmaps keeps it."
    ),
    "curve-unit": _option("--curve-unit", type=click.Choice(["mag", "tau"]), default="mag", show_default=True,
                          help="Unit of the extinction curve per unit of E."),
    "drop-coefficients": _option(
        "--drop-coefficients",
        is_flag=True,
        help="Leave coefficients, their errors and correlations out of the output.",
    ),
    "isochrones": _option(
        "--isochrones",
        metavar="PATH",
        default="",
        help=(
            "PARSEC, BaSTI or MIST tables: a file, a folder, or several separated by commas. "
            "Without it: the built-in main sequence fitted to PARSEC."
        ),
    ),
    "missing": _option("--missing", metavar="FILE", default="", help="List of missing stars.  [default: beside -o]"),
    "allow-missing": _option("--allow-missing", is_flag=True, help="Write the table even if stars are missing."),
    "age": _option("--age", type=NOT_NEGATIVE, default=10.0, show_default=True, help="Age of the isochrone [Gyr]."),
    "alpha-fe": _option(
        "--alpha-fe",
        type=float,
        default=0.0,
        show_default=True,
        help="[alpha/Fe] that turns [Fe/H] into [M/H] (Salaris+ 1993) [dex].",
    ),
    "model": _option("--model", metavar="FILE", default="", help="Model file; without it the one that comes with xp."),
    "precision": _option("--precision", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto",
                         show_default=True, help="Of matrix products; auto is bfloat16 on a GPU."),
    "mass-edges": _option(
        "--mass-edges",
        metavar="LIST",
        default="0.15:0.90:14",
        show_default=True,
        help="Mass bins [Msun]: LO:HI:N, or edges with commas.",
    ),
    "feh-edges": _option(
        "--feh-edges",
        metavar="LIST",
        default="-2.2,-1.8,-1.6,-1.4,-1.1",
        show_default=True,
        help="[Fe/H] bins [dex]: LO:HI:N, or edges with commas.",
    ),
    "r-sun": _option(
        "--r-sun",
        type=click.FloatRange(0, 100, min_open=True),
        default=8.122,
        show_default=True,
        help="Distance of the Sun from the Galactic centre [kpc].",
    ),
    "z-sun": _option(
        "--z-sun", type=HEIGHT, default=0.0, show_default=True, help="Height of the Sun above the plane [kpc]."
    ),
    "h-r": _option(
        "--h-r", type=POSITIVE, default=1.5, show_default=True, help="Radial scale length of the density law [kpc]."
    ),
    "h-z": _option(
        "--h-z", type=POSITIVE, default=1.43, show_default=True, help="Vertical scale height of the density law [kpc]."
    ),
    "max-distance": _option(
        "--max-distance", type=float, default=1.0, show_default=True, help="Radius of the volume [kpc]."
    ),
    "g-limit": _option("--g-limit", type=float, default=17.0, show_default=True, help="Faintest apparent G [mag]."),
}


def shared(*names: str, **changes: Any) -> Callable:
    """Options from the registry, in this order; `changes` (default=17.5) replace attributes of all of them."""

    def decorate(function: Callable) -> Callable:
        for name in reversed(names):
            function = SHARED[name](function)
            for key, value in changes.items():
                setattr(function.__click_params__[-1], key, value)
        return function

    return decorate


def edges(text: str) -> tuple[float, ...]:
    """Bin edges from "LO:HI:N" or "a,b,c"; raises UsageError unless they ascend, MOST_BINS bins at most."""
    try:
        if ":" in text:
            lo, hi, n = text.split(":")
            step = (float(hi) - float(lo)) / int(n)
            values = (*(float(lo) + i * step for i in range(min(int(n), MOST_BINS + 1))), float(hi))
        else:
            values = tuple(float(x) for x in text.split(","))
    except (ValueError, ZeroDivisionError) as fault:
        raise UsageError(f"{text!r} is no list of edges. TRY: 0.15:0.90:14 or -2.2,-1.8,-1.1") from fault
    if not 2 <= len(values) <= MOST_BINS + 1 or not all(-inf < a < b < inf for a, b in pairwise(values)):
        what = f"are of more than {MOST_BINS:,} bins" if len(values) > MOST_BINS + 1 else "do not ascend, or do not end"
        raise UsageError(f"the edges {text[:80]!r} {what}. TRY: 0.15:0.90:14 or -2.2,-1.8,-1.1")
    return values


@dataclass(frozen=True)
class About:
    """What the man page and the command list need beside the help: where the command stands, examples, neighbours."""

    section: str
    order: int
    kind: str
    examples: tuple[str, ...] = ()
    see: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    report: Any = None


class XpCommand(click.Command):
    """A click command that takes global options before or after its name and reads the configuration file."""

    about: About
    build: Callable | None = None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.default_map = defaults(ctx, args, GLOBAL_NAMES + IO_NAMES)
        rest = super().parse_args(ctx, args)
        for name, value in ctx.params.items():
            if any(v != v for v in (value if isinstance(value, tuple) else (value,))):  # NaN passes every range
                raise UsageError(f"--{name.rstrip('_').replace('_', '-')} is no number")
        return rest

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples of the manual, and where the manual is."""
        with formatter.section("Examples"):
            for line in self.about.examples:
                formatter.write(f"  {line}\n")
        formatter.write(f"\nThe manual: man {ctx.command_path.replace(' ', '-')}, or xp help {ctx.command_path[3:]}\n")

    def get_short_help_str(self, limit: int = 90) -> str:
        return super().get_short_help_str(limit)


def row_command(section: str, order: int, **about: Any) -> Callable:
    """Make a function that returns a RowOp a command."""
    return _step_command(section, order, "row", **about)


def cut_command(section: str, order: int, **about: Any) -> Callable:
    """Make a function that returns a Cut a command."""
    return _step_command(section, order, "cut", **about)


def fold_command(section: str, order: int, report: Callable | None = None, **about: Any) -> Callable:
    """Make a function that returns a Fold a command; `report(table)` is what a terminal shows."""
    return _step_command(section, order, "fold", report=report, **about)


def source_command(section: str, order: int, **about: Any) -> Callable:
    """Make a function that returns a Source a command: it has no INPUT."""
    return _step_command(section, order, "source", **about)


def _step_command(section: str, order: int, kind: str, cls: type = XpCommand, **about: Any) -> Callable:
    def decorate(function: Callable) -> XpCommand:
        build, params = _unwrapped(function)
        decorated: Callable = _runner(build, kind, about.get("report"))
        if kind != "source":
            decorated = click.argument("input", default="-", metavar="[INPUT]")(decorated)
        decorated.__click_params__ = [*getattr(decorated, "__click_params__", []), *params]
        command = _command(decorated, build, IO_OPTIONS + GLOBAL_OPTIONS, cls)
        command.about = About(section, order, kind, **about)
        command.build = build
        return command

    return decorate


def plain_command(
    section: str, order: int, output: bool = False, step: Callable | None = None, **about: Any
) -> Callable:
    """A command that runs by itself (info, doctor ...): gets its own parameters only.

    `step(**parameters)` makes of it, where that is possible, what it is in a pipe of xp run.
    """

    def decorate(function: Callable) -> XpCommand:
        build, params = _unwrapped(function)
        accepts = _accepted(build)

        def call(**values: Any) -> Any:
            if click.get_current_context().find_root().meta.get("xp.parse"):
                return _planned(step(**{k: v for k, v in values.items() if k in accepts})) if step else None
            settle(values, GLOBAL_NAMES)
            if values["print_params"]:
                from xptools.config import show

                return show(click.get_current_context())
            everything = bool(build.__code__.co_flags & 0x08)  # the function has **common
            return build(**{k: v for k, v in values.items() if everything or k in accepts})

        call.__click_params__ = params
        command = _command(call, build, (IO_OPTIONS if output else (PRINT,)) + GLOBAL_OPTIONS, XpCommand)
        command.about = About(section, order, "plain", **about)
        return command

    return decorate


def _command(function: Callable, build: Callable, options: tuple, cls: type) -> XpCommand:
    for option in reversed(options):
        function = option(function)
    # click reads __click_params__ last first: the command's own options come before the common ones.
    params = list(reversed(function.__click_params__))
    own = [p for p in params if p.name not in IO_NAMES + GLOBAL_NAMES]
    common = [p for p in params if p.name in IO_NAMES + GLOBAL_NAMES]
    for p in common:
        p.envvar = f"XP_{p.name.upper()}" if p.name in GLOBAL_NAMES else None
    for p in params:
        p._custom_shell_complete = p._custom_shell_complete or offer(p)
    name = build.__module__.rpartition(".")[2].strip("_")
    return cls(
        name,
        params=own + common,
        callback=function,
        help=build.__doc__,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _unwrapped(function: Callable) -> tuple[Callable, list]:
    return function, list(getattr(function, "__click_params__", []))


def _accepted(function: Callable) -> set[str]:
    return set(function.__code__.co_varnames[: function.__code__.co_argcount + function.__code__.co_kwonlyargcount])


def _runner(build: Callable, kind: str, report: Callable | None) -> Callable:
    accepts = _accepted(build)

    def call(**values: Any) -> Any:
        ctx = click.get_current_context()
        settle(values, GLOBAL_NAMES)
        step = build(**{k: v for k, v in values.items() if k in accepts})
        if ctx.find_root().meta.get("xp.parse"):
            return _planned(step, values["replace"])
        if values["print_params"]:
            from xptools.config import show

            return show(ctx)
        from xptools.protocol import Source

        # a command may make a Source of some of its options (xp veff --table)
        _input_or_usage(ctx, "source" if isinstance(step, Source) else kind, values)
        from xptools import stream

        return stream.run([stream.Plan(step, values["replace"])], run_options(values, report))

    return call


def _planned(step: Any, replace: bool = False):
    """A stream.Plan of a step in a pipe; UsageError if an INPUT or an output was given for it alone."""
    from xptools.stream import Plan

    given = click.get_current_context().params
    for name, word in {"input": "INPUT", "output": "--output", "output_format": "-O", "print_params": "-P"}.items():
        if given.get(name) not in (None, False, "-"):
            raise UsageError(f"a step takes no {word} of its own ({given[name]}). TRY: xp run '...' {word}")
    return Plan(step, replace)


def run_options(values: dict[str, Any], report: Callable | None = None):
    """stream.Options from the common options."""
    from xptools import stream

    return stream.Options(
        input=values.get("input", "-"),
        output=values["output"],
        format=values["output_format"],
        batch_rows=values["batch_rows"],
        clobber=not values["no_clobber"],
        provenance=not values["no_provenance"],
        progress=values["progress"],
        quiet=values["quiet"],
        report=report,
    )


def _input_or_usage(ctx: click.Context, kind: str, values: dict[str, Any]) -> None:
    if kind == "source" or values.get("input", "-") != "-":
        return
    from xptools.io.reader import stdin_is_terminal

    if not stdin_is_terminal():
        return
    click.echo(
        ctx.get_usage() + f"\nNo INPUT, and standard input is a terminal. TRY: {ctx.command_path} --help", err=True
    )
    ctx.exit(64)


__all__ = [
    "SHARED", "About", "UsageError", "XpCommand", "cut_command", "edges", "fold_command", "plain_command",
    "row_command", "shared", "source_command",
]  # fmt: skip
