"""Manual pages from the commands themselves: `python -m xptools.manual man` (that is, `make man`) writes them.

A page says what the command says (tests/test_man.py compares); xp-pipes.7, xp-scale.7, xp-model.5 are made by hand.
"""

import json
import os
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click

from xptools import cli, mdoc, references
from xptools.columns import KNOWN, XP, Column
from xptools.errors import EXIT_CODES, XpError
from xptools.options import GLOBAL_NAMES, GLOBAL_OPTIONS, IO_NAMES, SECTIONS
from xptools.protocol import Fold, Step

RELEASED = "November 21, 2026"  # of this version; pages carry no other date, so making them again changes nothing
MARK = '.\\" Made from the command by `make man`; change the command, not this page.'
RESERVED = ("CONTEXT", "DIAGNOSTICS", "ERRORS", "STANDARDS", "HISTORY", "AUTHORS", "CAVEATS", "BUGS")
GENERAL = (("xp", "1"), ("xp-columns", "5"), ("xp-pipes", "7"))
OTHERS = [("xp-columns", "5"), ("xp-model", "5"), ("xp-pipes", "7"), ("xp-scale", "7")]
FOLDERS = (Path(sys.prefix) / "share" / "man", Path(__file__).parent.parent / "man")


class Documented(NamedTuple):
    """A command and where it stands: its words after `xp`, and its step with default options (None: it has none)."""

    path: tuple[str, ...]
    command: click.Command
    step: Any

    @property
    def page(self) -> str:
        """The page's name."""
        return "-".join(("xp", *self.path))

    @property
    def about(self) -> Any:
        """What the decorator was told; a group's subcommands may have nothing."""
        return getattr(self.command, "about", None)

    @property
    def summary(self) -> str:
        """The whole first sentence of the help, without its full stop."""
        first = (self.command.help or "").strip().split("\n\n")[0]
        return mdoc.FULL_STOP.split(" ".join(first.split()))[0].rstrip(".")


@cache
def documented() -> tuple[Documented, ...]:
    """Every command and subcommand, in the order of `xp --help`."""
    found = []
    for name in cli.names():
        found += list(_tree((name,), import_module(f"xptools.commands.{name}").command))

    def order(item: Documented) -> tuple:
        top = next(d for d in found if d.path == item.path[:1]).about
        return SECTIONS.index(top.section), top.order, item.path

    return tuple(sorted(found, key=order))


def _tree(path: tuple[str, ...], command: click.Command) -> Iterator[Documented]:
    yield Documented(path, command, None if isinstance(command, click.Group) else _step(path, command))
    if isinstance(command, click.Group):
        ctx = click.Context(command, info_name=path[-1])
        for name in command.list_commands(ctx):
            yield from _tree((*path, name), command.get_command(ctx, name))


def _step(path: tuple[str, ...], command: click.Command) -> Any:
    """The step of the default command line; where it needs an argument, the class, if that says enough."""
    if getattr(getattr(command, "about", None), "kind", "plain") == "plain":
        return None
    try:
        return cli.parse_step(list(path)).step
    except XpError:
        module = import_module(command.build.__module__)
        named = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Step) and c.name == path[-1]]
        return named[0] if named and isinstance(named[0].adds, dict) else None


def pages() -> dict[str, str]:
    """File name -> text of every page that is made."""
    made = {f"{d.page}.1": _command_page(d) for d in documented()}
    return {"xp.1": _main_page(), "xp-columns.5": _columns_page(), **made}


def write(folder: Path) -> None:
    """Write the pages and what --help lists, and remove made pages of commands that are gone."""
    folder.mkdir(exist_ok=True)
    made = pages()
    for old in folder.glob("*.[157]"):
        if old.name not in made and old.read_text().startswith(MARK):
            old.unlink()
    for name, words in made.items():
        (folder / name).write_text(words)
    cli.LISTING.write_text(json.dumps(cli.listing(), indent=0) + "\n")


def find(name: str) -> Path | None:
    """The installed page of `xp-mass`, `xp-pipes` ..., or the one beside the source; None if there is none."""
    for folder in FOLDERS:
        for path in (*folder.glob(f"man?/{name}.?"), *folder.glob(f"{name}.?")):
            return path
    return None


# --- the page of a command -----------------------------------------------------------------------------------------


def _command_page(d: Documented) -> str:
    names = [p.name for p in d.command.params]
    # A command that writes no table has an --output of its own.
    shared = (*IO_NAMES, *GLOBAL_NAMES) if "output_format" in names else GLOBAL_NAMES
    own = [p for p in d.command.params if p.name not in shared]
    common = [p for p in d.command.params if p not in own]
    about = d.about
    lines = [
        *_head(d.page, "1", d.summary),
        *mdoc.section("SYNOPSIS", _synopsis(d, own, common)),
        *mdoc.section("DESCRIPTION", mdoc.paragraphs(d.command.help or "")),
        *mdoc.section("COMMANDS", _subcommands(d)),
        *mdoc.section("OPTIONS", mdoc.listed(_option(p) for p in own if isinstance(p, click.Option))),
        *_columns_of(d.step),
        *(line for title, words in getattr(about, "notes", {}).items() for line in _note(title, words)),
        *mdoc.section("COMMON OPTIONS", mdoc.listed(_option(p) for p in common)),
        *_surroundings(),
        *mdoc.section("EXAMPLES", _examples(about)),
        *mdoc.section("REFERENCES", _references(d.step)),
        *mdoc.section("SEE ALSO", mdoc.crossed(p for p in _neighbours(d) if p[0] != d.page)),
    ]
    return _joined(lines)


def _head(name: str, number: str, summary: str) -> list[str]:
    return [
        MARK,
        f".Dd {RELEASED}",
        f".Dt {name.upper()} {number}",
        ".Os xptools",
        ".Sh NAME",
        f".Nm {name}",
        f".Nd {mdoc.inline(summary)}",
    ]


def _joined(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _synopsis(d: Documented, own: list, common: list) -> list[str]:
    lines = [".Nm xp", *(f".Cm {mdoc.argument(word)}" for word in d.path)]
    options = [p for p in own if isinstance(p, click.Option)]
    lines += [f".{'' if p.required else 'Op '}{_flags(p, first=True)}" for p in options]
    if common:
        lines.append('.Op Ar "common options"')
    if isinstance(d.command, click.Group):
        return [*lines, ".Ar COMMAND", ".Ar ..."]
    for p in own:
        if isinstance(p, click.Argument):
            name = (p.metavar or p.name.upper()).strip("[]")
            lines.append(f".{'Ar' if p.required else 'Op Ar'} {mdoc.argument(name)}")
            lines += [".Ar ..."] if p.nargs == -1 else []
    return lines


def _subcommands(d: Documented) -> list[str]:
    under = [s for s in documented_under(d.path)] if isinstance(d.command, click.Group) else []
    return mdoc.listed(((f".Xr {s.page} 1".removeprefix("."), s.summary + ".") for s in under), compact=True)


def documented_under(path: tuple[str, ...]) -> list[Documented]:
    """The subcommands of a command."""
    return [s for s in documented() if len(s.path) > len(path) and s.path[: len(path)] == path]


def _flags(p: click.Option, first: bool = False) -> str:
    names = sorted(p.opts, key=len)[-1:] if first else sorted((*p.opts, *p.secondary_opts), key=len)
    values = [] if p.is_flag or p.count else [_metavar(p)] * p.nargs
    value = "".join(f" Ar {mdoc.argument(v)}" for v in values)
    return " , ".join(f"Fl {mdoc.argument(n[1:])}" for n in names) + value


def _metavar(p: click.Option) -> str:
    if p.metavar:
        return p.metavar
    if isinstance(p.type, click.Choice):
        return "|".join(map(str, p.type.choices))
    kinds = {"float range": "float", "integer range": "integer"}
    return kinds.get(p.type.name, p.type.name).upper()


def _option(p: click.Option) -> tuple[str, str]:
    words = (p.help or "").strip()
    words += "" if words.endswith((".", "!", "?")) else "."
    if not p.is_flag and p.default not in (None, "", ()) and "UNSET" not in str(p.default).upper():
        shown = ", ".join(map(str, p.default)) if isinstance(p.default, tuple | list) else str(p.default)
        words += f" Default: {shown}."
    if p.multiple:
        words += " May be given more than once."
    return _flags(p), words


def _note(title: str, words: str) -> list[str]:
    # mdoc keeps these names for certain places and for pages of system calls.
    title = f"NOTES ON {title}" if title.upper() in RESERVED else title
    return mdoc.section(title, mdoc.paragraphs(words))


def _examples(about: Any) -> list[str]:
    return mdoc.verbatim(f"$ {line}" for line in about.examples) if about and about.examples else []


def _references(step: Any) -> list[str]:
    keys = getattr(step, "cites", ())
    found, _ = references.of(tuple(keys) if not isinstance(keys, property) else ())
    return mdoc.listed((f"{mdoc.argument(e.key)}", e.line() + ".") for e in found) if found else []


def _neighbours(d: Documented) -> Iterator[tuple[str, str]]:
    yield from GENERAL
    pages_there = {s.page for s in documented()}
    for name in getattr(d.about, "see", ()):
        page = f"xp-{name.replace(' ', '-')}"
        if page in pages_there:
            yield page, "1"
    for s in documented_under(d.path):
        yield s.page, "1"
    if len(d.path) > 1:
        yield f"xp-{d.path[0]}", "1"
    if any(p.name in ("model", "models") for p in d.command.params) or d.path[0] == "train":
        yield "xp-model", "5"


# --- columns -------------------------------------------------------------------------------------------------------


def _columns_of(step: Any) -> list[str]:
    if step is None:
        return []
    alone = isinstance(step, Fold) or (isinstance(step, type) and issubclass(step, Fold))
    written = "COLUMNS WRITTEN" if not alone else "COLUMNS OF THE RESULT"
    read = [(n, "") for n in _seen(step, "needs")] + [(n, "Used if present. ") for n in _seen(step, "wants")]
    rows = [(f"Va {mdoc.argument(n)}", before + _described(n)) for n, before in read]
    return [
        *mdoc.section("COLUMNS READ", mdoc.listed(rows)),
        *mdoc.section(written, mdoc.listed((f"Va {mdoc.argument(n)}", _words(c)) for n, c in _added(step).items())),
        *mdoc.section("FLAG BITS", _bits(step)),
    ]


def _seen(step: Any, what: str) -> tuple[str, ...]:
    value = getattr(step, what)
    return () if isinstance(value, property) else tuple(value)


def _added(step: Any) -> dict[str, Column]:
    columns = step.added() if not isinstance(step, type) else dict(step.adds)
    flag = f"{step.name}_flag"
    # The column's own description lists its bits; a page has a section for them.
    short = {flag: columns[flag]._replace(text="Quality bits, listed in FLAG BITS")} if flag in columns else {}
    return columns | short


def _bits(step: Any) -> list[str]:
    flags = step.flags if isinstance(step.flags, dict) else {}
    if not flags:
        return []
    name = f"{step.name}_flag"
    return [
        f".Va {name}",
        "is the sum of:",
        *mdoc.listed(((mdoc.argument(str(bit)), f"{words}.") for bit, words in flags.items()), "XXXX", True),
    ]


def _words(c: Column) -> str:
    unit = f" [{c.unit}]" if c.unit else ""
    return f"{c.text}{unit}; {c.type}." if not c.text.endswith(".") else f"{c.text[:-1]}{unit}; {c.type}."


def _described(name: str) -> str:
    column = (KNOWN | XP).get(name) or next((_added(d.step)[name] for d in documented() if name in _writes(d)), None)
    return _words(column) if column else "Any numeric column of this name."


def _writes(d: Documented) -> dict[str, Column]:
    return _added(d.step) if d.step is not None else {}


def _columns_page() -> str:
    columns: dict[str, Column] = {}
    makers: dict[str, list[str]] = {}
    readers: dict[str, list[str]] = {}
    for d in documented():
        for name, column in _writes(d).items():
            columns.setdefault(name, column)
            makers.setdefault(name, []).append(" ".join(d.path))
        for name in (*_seen(d.step, "needs"), *_seen(d.step, "wants")) if d.step is not None else ():
            readers.setdefault(name, []).append(" ".join(d.path))
    gaia = {n: c for n, c in KNOWN.items() if n not in columns or makers[n] == ["mock"]}
    own = {n: c for n, c in columns.items() if n not in gaia}
    lines = [
        *_head("xp-columns", "5", "the columns that xp reads and writes"),
        *mdoc.section("DESCRIPTION", mdoc.paragraphs(COLUMNS_TEXT)),
        *mdoc.section("COLUMNS OF THE GAIA ARCHIVE", mdoc.listed(_catalogued(gaia, {}, readers))),
        *mdoc.section("COLUMNS OF XP", mdoc.listed(_catalogued(own, makers, readers))),
        *mdoc.section("SEE ALSO", mdoc.crossed((("xp", "1"), ("xp-info", "1"), ("xp-pipes", "7")))),
    ]
    return _joined(lines)


def _catalogued(columns: dict[str, Column], makers: dict, readers: dict) -> Iterator[tuple[str, str]]:
    for name, column in columns.items():
        made = f" Written by {', '.join(makers[name])}." if name in makers else ""
        read = f" Read by {', '.join(readers[name])}." if name in readers else ""
        yield f"Va {mdoc.argument(name)}", f"{_words(column)} UCD {column.ucd}.{made}{read}"


COLUMNS_TEXT = """
Tables speak the dialect of the Gaia archive; names are found whatever their case.
Every column carries its unit (VOUnit), UCD and description; a column that is read in another unit than stated here
is refused. Quantities in dex have no unit, because VOUnit has none, and say dex in their description.

The suffix `_err` is a standard error, `_lo` and `_hi` are the 16 and 84 per cent points, `_flag` are quality bits
(int16), and `true_` marks what only a mock catalogue knows. Unknown is NaN; null is read as NaN.

Below are the columns written with default options; the options of a command may add to them.
"""


# --- the page of xp ------------------------------------------------------------------------------------------------


def _main_page() -> str:
    own = [p for p in cli.xp.params if p.name not in GLOBAL_NAMES]
    common = [p for p in cli.xp.params if p.name in GLOBAL_NAMES]
    lines = [
        *_head("xp", "1", "stellar spectra and catalogues in pipes"),
        *mdoc.section("SYNOPSIS", [".Nm", '.Op Ar "global options"', ".Ar COMMAND", ".Op Ar options", ".Op Ar INPUT"]),
        *mdoc.section("DESCRIPTION", mdoc.paragraphs(cli.xp.help or "")),
        *_listing(),
        *mdoc.section("GLOBAL OPTIONS", mdoc.listed(map(_option, [*common, *own]))),
        *_surroundings(),
        *mdoc.section("EXAMPLES", mdoc.verbatim(FIRST_PIPE)),
        *mdoc.section("SEE ALSO", mdoc.crossed([(d.page, "1") for d in documented()] + OTHERS)),
    ]
    return _joined(lines)


FIRST_PIPE = ("$ xp mock 100000 | xp deredden --map none | xp mass | xp info -",)


def _listing() -> list[str]:
    lines = [".Sh COMMANDS"]
    for title in SECTIONS:
        rows = [d for d in documented() if len(d.path) == 1 and d.about.section == title]
        if rows:
            lines += [f".Ss {title.capitalize()}", *mdoc.listed((f"Xr {d.page} 1", d.summary + ".") for d in rows)]
    return lines


def _surroundings() -> list[str]:
    """ENVIRONMENT, FILES and EXIT STATUS: the same for every command."""
    function = lambda: None  # noqa: E731 - click hangs parameters on any function
    for option in GLOBAL_OPTIONS:
        function = option(function)
    names = {p.name: sorted(p.opts, key=len)[-1] for p in function.__click_params__}
    settings = [(f"Ev XP_{n.upper()}", f"As `{flag}`.") for n, flag in sorted(names.items()) if n != "debug"]
    codes = [(str(code), words[:1].upper() + words[1:] + ".") for code, words in EXIT_CODES.items()]
    return [
        *mdoc.section("ENVIRONMENT", mdoc.listed([*settings, *ENVIRONMENT])),
        *mdoc.section("FILES", mdoc.listed(FILES)),
        *mdoc.section("EXIT STATUS", mdoc.listed(codes, "XXX", True)),
    ]


ENVIRONMENT = (
    ("Ev NO_COLOR", "No colours, if set."),
    ("Ev TERM", "With dumb, nothing is drawn."),
    ("Ev TMPDIR", "Where Parquet and FITS from a pipe are kept while they are read."),
    ("Ev DUSTMAPS_CONFIG_FNAME", "The configuration of dustmaps, which says where its maps are."),
)
FILES = (
    ("Pa xp.toml", "Options of this folder: a table for each command, as `-P` prints them."),
    ("Pa $XDG_CONFIG_HOME/xp/config.toml", "Options of this user; ~/.config without the variable."),
    ("Pa $XDG_CACHE_HOME/xp", "Converted maps and compiled kernels; ~/.cache without the variable."),
)


if __name__ == "__main__":
    os.environ["XP_CACHE"] = "off"
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("man"))
