"""The command `xp`: finds its commands by file name, lists them in pipeline order, turns errors into exit codes."""

import errno
import json
import os
import sys
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path

import click

from xptools import interrupt, session
from xptools.errors import DataError, MissingColumns, XpError
from xptools.options import GLOBAL_NAMES, GLOBAL_OPTIONS, SECTIONS, UsageError, XpCommand

COMMANDS = Path(__file__).parent / "commands"
LISTING = Path(__file__).parent / "data" / "commands.json"  # of `listing`, written with the manual pages


@cache
def names() -> tuple[str, ...]:
    """The commands there are: one file each."""
    return tuple(sorted(p.stem for p in COMMANDS.glob("*.py") if not p.stem.startswith("_")))


class Xp(click.Group):
    """A group whose commands are modules, imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(names())

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in names():
            return None
        return import_module(f"xptools.commands.{name}").command

    def resolve_command(self, ctx: click.Context, args: list[str]):
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as fault:
            import difflib

            near = difflib.get_close_matches(args[0], names(), 1)
            raise click.UsageError(
                f"there is no command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""),
                ctx,
            ) from fault

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        listed = [tuple(row) for row in json.loads(LISTING.read_text())]
        if {row[2] for row in listed} != set(names()):  # a command was added, and the pages not yet made anew
            listed = listing()
        for section in SECTIONS:
            rows = [(name, text) for where, _, name, text in sorted(listed) if where == section]
            if rows:
                with formatter.section(section.capitalize()):
                    formatter.write_dl(rows)


def listing() -> list[tuple[str, int, str, str]]:
    """Section, order, name and summary of every command; importing them all takes longer than --help may."""
    commands = [(name, xp.get_command(click.Context(xp), name)) for name in names()]
    return sorted((c.about.section, c.about.order, name, c.get_short_help_str(70)) for name, c in commands)


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        import xptools

        click.echo(f"xp {xptools.__version__}")
        ctx.exit()


def _usage(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        click.echo(json.dumps(xp.to_info_dict(ctx), default=str))
        ctx.exit()


def _group() -> Xp:
    """Stellar spectra and catalogues in pipes: from Gaia's archive to the stellar mass function.

    \b
    Commands read and write Arrow streams, so they join with |:
      xp mock 100000 | xp deredden --map none | xp mass | xp veff | xp mf

    A command's own help is `xp COMMAND --help`; its manual is `man xp-COMMAND`.
    """

    def callback(**_values):
        return None

    for option in reversed(GLOBAL_OPTIONS):
        callback = option(callback)
    params = list(reversed(callback.__click_params__))
    for p in params:
        p.envvar = f"XP_{p.name.upper()}"
    params += [
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Show the version and stop.",
        ),
        click.Option(
            ["--json-usage"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_usage,
            help="All commands and options as JSON.",
        ),
    ]
    return Xp(
        "xp",
        params=params,
        callback=callback,
        help=_group.__doc__,
        context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "XP"},
    )


xp = _group()


def parse_step(command_line: str | list[str]):
    """A stream.Plan from a command line without `xp`: what `xptools.op`, `xp run` and the shell share."""
    import shlex

    words = shlex.split(command_line) if isinstance(command_line, str) else list(command_line)
    if {"-h", "--help", "--version", "--json-usage"} & set(words):
        raise UsageError(f"{' '.join(words)!r} asks for help, not for a step")
    try:
        ctx = xp.make_context("xp", words)
        ctx.meta["xp.parse"] = True
        with ctx:
            plan = xp.invoke(ctx)
    except click.exceptions.Exit as stop:
        raise UsageError(f"{' '.join(words)!r} asks for help, not for a step") from stop
    except click.ClickException as fault:
        raise UsageError(f"in {' '.join(words)!r}: {fault.format_message()}") from fault
    if plan is None or not hasattr(plan, "step"):
        raise UsageError(
            f"{words[0]} is not a step of a pipe. TRY: one of {', '.join(n for n in names() if _is_step(n))}"
        )
    return plan


def _is_step(name: str) -> bool:
    command = import_module(f"xptools.commands.{name}").command
    return getattr(getattr(command, "about", None), "kind", "plain") not in ("plain", "group") or name == "info"


def makers(column: str) -> list[str]:
    """The commands that write a column, as they are without options, in the order of the help."""
    found = {}
    for name in names():
        module = import_module(f"xptools.commands.{name}")
        own = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
        if any(column in _writes(value) for value in own):
            found[name] = (module.command.about.section, module.command.about.order)
    return [n for n in sorted(found, key=found.get) if n != "mock"] or list(found)


def _writes(kind: type) -> dict:
    """The columns that a class of steps writes; none if it is no step, or one that needs options."""
    adds = getattr(kind, "adds", {})
    try:
        return kind().adds if isinstance(adds, property) else adds
    except TypeError:
        return {}


def main() -> None:
    """Entry point: run, and exit with the status the man page promises."""
    _fill_descriptors()
    interrupt.listen()
    session.lean()
    debug = "--debug" in sys.argv or os.environ.get("XP_DEBUG", "") not in ("", "0", "false")
    if not (debug or sys.warnoptions):
        # stderr carries xp's own sentences only.
        warnings.simplefilter("ignore")
    code = _guarded(debug)
    if code in interrupt.CODES.values():
        interrupt.leave(code)
    interrupt.end(_flushed(code))


def _guarded(debug: bool) -> int:
    from xptools import progress

    try:
        result = _invoke(sys.argv[1:])
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as fault:
        progress.say(fault.format_message())
        return 2
    except click.ClickException as fault:
        ctx = getattr(fault, "ctx", None)
        path = ctx.command_path if ctx else "xp"
        message = fault.format_message()
        return _failed(path, message if "TRY:" in message else f"{message} TRY: {path} --help", 2, debug)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except interrupt.Terminated:
        return 143
    except BrokenPipeError:
        return _quiet_pipe()
    except Exception as fault:
        return _failed(_path(), *described(fault), debug)


def described(fault: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit status that goes with it."""
    if isinstance(fault, XpError):
        return _helped(fault), fault.code
    if isinstance(fault, MemoryError):
        return "out of memory. TRY: a smaller --batch-rows", 70
    if isinstance(fault, OSError):
        return _disk(fault), 74
    words = f"internal error, {type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}"
    return f"{words}. This is a bug. TRY: --debug, and report what it shows", 1


def _disk(fault: OSError) -> str:
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"cannot write {fault.filename or 'the output'}: {fault.strerror}. TRY: df -h, or write to another disk"
    return f"{fault}. TRY: --debug to see where"


def _invoke(args: list[str]):
    if "_XP_COMPLETE" in os.environ:
        return xp.main(args, "xp")
    # Not through click's own `main`, which takes a closed pipe for exit status 1.
    with xp.make_context("xp", list(args)) as ctx:
        return xp.invoke(ctx)


def _path() -> str:
    words = sys.argv[1:]
    place = next((i for i, word in enumerate(words) if word in names()), None)
    if place is None:
        return "xp"
    command = import_module(f"xptools.commands.{words[place]}").command
    below = command.list_commands(click.Context(command)) if isinstance(command, click.Group) else ()
    return " ".join(["xp", words[place], *[w for w in words[place + 1 :] if w in below][:1]])


def _failed(path: str, message: str, code: int, debug: bool) -> int:
    from xptools import progress

    if debug:
        import traceback

        traceback.print_exc()
    progress.say(f"{path}: error: {message}")
    return code


def _helped(fault: XpError) -> str:
    """The message, with the nearest name and the command that makes what is missing."""
    if not isinstance(fault, MissingColumns):
        cure = "xp info on the input" if fault.code == 65 else f"{_path()} --help"
        return str(fault) if "TRY:" in str(fault) else f"{str(fault).rstrip('.')}. TRY: {cure}"
    import difflib

    near = difflib.get_close_matches(fault.missing[0], fault.present, 1)
    words = str(fault) + (f"; nearest is {near[0]}" if near else "")
    return f"{words}. TRY: {_source(fault.missing[0])}"


def _source(column: str) -> str:
    """Where a missing column is to be had."""
    from xptools.columns import ASTROMETRY, GAIA, XP

    if made := makers(column):
        return f"xp {made[0]} first"
    if column in XP:
        return "xp fetch xp, which gets the spectra of a table's stars, or xp info on the input"
    if column in GAIA or column in ASTROMETRY:
        return "xp fetch gaia, or xp convert --rename if xp info shows it under another name"
    return "xp info on the input"


def _flushed(code: int) -> int:
    """The exit status after what was printed is really out."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        return _quiet_pipe()
    except OSError as fault:
        return _failed(_path(), *described(fault), False)
    return code


def _quiet_pipe() -> int:
    from xptools import terminal

    # The reader has gone: say nothing, and let the interpreter's last flush hit nothing either.
    terminal.silence()
    return 141


def _fill_descriptors() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed, lest the next file opened become one of them."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


__all__ = ["GLOBAL_NAMES", "DataError", "XpCommand", "described", "main", "makers", "names", "parse_step", "xp"]
