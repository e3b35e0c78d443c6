"""What can go wrong, each with its exit code (man page EXIT STATUS); the message is one sentence a user can act on."""


class XpError(Exception):
    """Base of every error that is the user's to mend; `code` is the exit status."""

    code = 1


class UsageError(XpError):
    """The command line is wrong."""

    code = 2


class DataError(XpError):
    """The input is bad, truncated or does not fit the command."""

    code = 65


class MissingColumns(DataError):
    """Columns a step needs are not in the table."""

    def __init__(self, step: str, missing: tuple[str, ...], present: tuple[str, ...]):
        self.step, self.missing, self.present = step, missing, present
        words = ", ".join(missing)
        super().__init__(f"column{'s' * (len(missing) > 1)} {words} missing; the table has {some(present)}")


class InputError(XpError):
    """The input cannot be opened."""

    code = 66


class UnavailableError(XpError):
    """A map, model, package or service that is needed is not there."""

    code = 69


class ComputeError(XpError):
    """The computation failed or the sampler has not converged."""

    code = 70


class OutputError(XpError):
    """The output cannot be created."""

    code = 73


class DiskError(XpError):
    """Reading or writing failed half-way (disk full, device gone)."""

    code = 74


class RemoteError(XpError):
    """The archive fails for now (overloaded, down, cut off); running again resumes."""

    code = 75


class BusyError(XpError):
    """Another process holds what is needed, or the cluster has gone; running again later goes on."""

    code = 75


class IncompleteError(XpError):
    """The archive gave fewer rows or objects than it should have."""

    code = 76


class PermissionFault(XpError):
    """No permission, or credentials are wrong."""

    code = 77


class ConfigError(XpError):
    """The configuration or the version does not fit."""

    code = 78


EXIT_CODES = {
    0: "success",
    1: "internal error: a bug in xp",
    2: "wrong usage",
    64: "no input on a terminal",
    65: "bad, truncated or incompatible data",
    66: "cannot open input",
    69: "needed data, model or network unavailable",
    70: "computation failed or sampler not converged",
    73: "cannot write output",
    74: "I/O error (disk full)",
    75: "temporary remote failure; run again to resume",
    76: "the remote returned fewer rows than asked for",
    77: "permission or credentials",
    78: "configuration or version mismatch",
    130: "interrupted (SIGINT)",
    141: "output closed (SIGPIPE)",
    143: "terminated (SIGTERM)",
}


def some(names: tuple[str, ...], most: int = 12) -> str:
    """The names, or the first of many and how many more there are."""
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "") if names else "no columns"
