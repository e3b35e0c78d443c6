"""xptools: stellar spectra and catalogues in pipes. `xptools.op("mass --model m.safetensors")` is a step for Python."""

__all__ = ["__version__", "op"]


def op(command_line: str):
    """The step that `xp COMMAND_LINE` would run, as an object: `step(record_batch) -> record_batch`.

    It parses exactly as the shell does. A step is picklable, comparable and cheap; models load on first use.
    """
    from xptools.cli import parse_step

    return parse_step(command_line).step


def __getattr__(name: str):
    if name == "__version__":
        from importlib.metadata import version

        return version("xptools")
    raise AttributeError(f"module 'xptools' has no attribute {name!r}")
