"""Configuration files: `./xp.toml` over `$XDG_CONFIG_HOME/xp/config.toml`, or the one named by --config.

A file holds common options at the top and one table per command: `[deredden]` with `map = "none"`. `-P` prints one."""

import json
import os
from pathlib import Path
from typing import Any

import click

from xptools.errors import ConfigError

NOT_KEPT = {"help", "config", "print_params", "input", "output", "debug", "no_clobber", "require_version"}


def load(named: str | None) -> dict[str, Any]:
    """The merged configuration; ConfigError (78) if a file is missing or is no TOML."""
    if named:
        if not Path(named).exists():
            raise ConfigError(f"the configuration file {named} is not there. TRY: xp COMMAND -P > {named}")
        return _read(Path(named))
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "xp" / "config.toml"
    merged: dict[str, Any] = {}
    for path in (home, Path("xp.toml")):
        if path.is_file():
            merged = _merged(merged, _read(path))
    return merged


def defaults(ctx: click.Context, args: list[str], common: tuple[str, ...]) -> dict[str, Any]:
    """The configuration for this command: its own table over the top level, where the `common` options stand."""
    named = next((a.split("=", 1)[1] for a in args if a.startswith("--config=")), None)
    if named is None and "--config" in args[:-1]:
        named = args[args.index("--config") + 1]
    named = named or (ctx.find_root().params.get("config")) or os.environ.get("XP_CONFIG")
    config = load(named)
    _check(config, ctx, common)
    path = [c.info_name for c in _lineage(ctx)][1:]
    own: dict[str, Any] = {k: v for k, v in config.items() if not isinstance(v, dict)}
    table: Any = config
    for name in path:
        table = table.get(name, {}) if isinstance(table, dict) else {}
    if not isinstance(table, dict):
        raise ConfigError(f"{path[-1]!r} is a table of the configuration. TRY: [{'.'.join(path)}]")
    own |= {k: v for k, v in table.items() if not isinstance(v, dict)}
    names = {spelling.lstrip("-").replace("-", "_"): p for p in ctx.command.params for spelling in p.opts}
    unknown = [k for k in table if k.replace("-", "_") not in names and not isinstance(table[k], dict)]
    if unknown:
        raise ConfigError(
            f"the configuration of {' '.join(path)} has {unknown[0]!r}, which is no option. TRY: xp {' '.join(path)} -P"
        )
    found = ((names[key], v) for k, v in own.items() if (key := k.replace("-", "_")) in names)
    return {p.name: _written(p, v) for p, v in found}


def _written(option: click.Parameter, value: Any) -> Any:
    """A value as the command line has it: text, so that click says itself what is wrong with it."""
    if option.multiple or option.nargs != 1:
        return [_text(option, v) for v in (value if isinstance(value, list) else [value])]
    return _text(option, value)


def _text(option: click.Parameter, value: Any) -> Any:
    if isinstance(value, bool):
        return value if getattr(option, "is_flag", False) else str(value).lower()
    return str(value)


def _check(config: dict[str, Any], ctx: click.Context, common: tuple[str, ...]) -> None:
    """ConfigError if a table is no command, or a key above the tables no common option."""
    root = ctx.find_root()
    commands = root.command.list_commands(root) if isinstance(root.command, click.Group) else [root.info_name]
    for key, value in config.items():
        if isinstance(value, dict) and key not in commands:
            raise ConfigError(f"the configuration has a table [{key}], which is no command. TRY: xp COMMAND -P")
        if not isinstance(value, dict) and key.replace("-", "_") not in common:
            raise ConfigError(
                f"the configuration has {key!r} above its tables, but it is no common option. "
                "TRY: put it under [COMMAND]"
            )


def _lineage(ctx: click.Context) -> list[click.Context]:
    return [*_lineage(ctx.parent), ctx] if ctx.parent else [ctx]


def show(ctx: click.Context) -> None:
    """Print the resolved parameters of a command as a configuration that gives the same run."""
    path = ctx.command_path.split()[1:]
    lines = [f"[{'.'.join(path)}]"]
    for p in ctx.command.params:
        value = ctx.params.get(p.name)
        if p.name in NOT_KEPT or value is None or value == ():
            continue
        key = max(p.opts, key=len).lstrip("-")
        lines.append(f"{key} = {_toml(value)}")
    click.echo("\n".join(lines))


def _toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return json.dumps(value)


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise ConfigError(
            f"{path} is no valid TOML: {fault}. TRY: mend that line, or begin with xp COMMAND -P"
        ) from fault
    except OSError as fault:
        raise ConfigError(f"cannot read {path}: {fault.strerror}") from fault


def _merged(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    out = dict(low)
    for key, value in high.items():
        out[key] = _merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out
