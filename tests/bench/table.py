"""Records as a table of text: `line(record)` is one row, `whole(result)` all of them with their heads and notes."""

HEAD = (
    ("command", 12), ("case", 44), ("rows", 6), ("rows/s", 7), ("/core-s", 7), ("CPU s", 7), ("peak MB", 7),
    ("start s", 7), ("peer", 18), ("x wall", 6), ("x core", 6), ("share", 6), ("of", 4), ("goal", 34), ("met", 3),
)  # fmt: skip
LEFT = {"command", "case", "peer", "of", "goal", "met"}


def line(told: dict) -> str:
    """A record; further goals stand in rows of their own."""
    first, *others = told["goals"] or [None]
    cells = [_cells(told, first), *(_goal(g) for g in others)]
    rows = [_joined(c) for c in cells]
    if told.get("note"):
        rows[0] = f"{rows[0].rstrip()}  [{told['note']}]"
    return "\n".join(rows)


def head() -> str:
    """The names of the columns."""
    return _joined({name: name for name, _ in HEAD})


def whole(result: dict) -> str:
    """The table of a whole run: `machine`, `records`."""
    of = result["machine"]
    words = (
        f"{of['processor']}, {of['cores']} cores, load {of['load']:.1f}. Copy {of['copy_core'] / 1e9:.1f} GB/s a core, "
        f"{of['copy_all'] / 1e9:.1f} all; float32 products {of['gemm_core'] / 1e9:.0f} and {of['gemm_all'] / 1e9:.0f} "
        f"GFLOP/s; exp {of['exp_core'] / 1e9:.2f} G/s a core."
    )
    rows = [line(r) for r in result["records"]]
    goals = [g for r in result["records"] for g in r["goals"]]
    met = f"{sum(g['met'] for g in goals)} of {len(goals)} goals met."
    gone = sorted({r["absent"] for r in result["records"] if r.get("absent")})
    met += f" Peers that are not installed: {', '.join(gone)}." if gone else " All peers are installed."
    failed = [r["command"] for r in result["records"] if r.get("failed")]
    met += f" FAILED: {', '.join(failed)}." if failed else ""
    return "\n".join([words, LEGEND, head(), *rows, met])


LEGEND = (
    "Rates are of the best round. x: rate of xp over the peer's, median over rounds that alternate; ~: the same rates "
    "of the peer,\nmeasured in this run in memory, without its start-up and reading. share: of one core's limit, by "
    "copying the bytes or by the arithmetic."
)


def _cells(told: dict, first: dict | None) -> dict[str, str]:
    mark = "~" if told.get("peer_elsewhere") else ""
    ratio = {k: f"{mark}{_ratio(told[f'ratio_{k}'])}" if told.get(f"ratio_{k}") else "" for k in ("wall", "core")}
    return {
        "command": told["command"],
        "case": told["case"],
        "rows": _number(told.get("rows")),
        "rows/s": _number(told.get("rows_per_s")),
        "/core-s": _number(told.get("rows_per_core_s")),
        "CPU s": _seconds(told.get("cpu_s")),
        "peak MB": f"{told['peak_mb']:.0f}" if told.get("peak_mb") else "",
        "start s": _seconds(told.get("startup_s")),
        "peer": told.get("peer", ""),
        "x wall": ratio["wall"],
        "x core": ratio["core"],
        "share": f"{told['share']:.2g}" if told.get("share") else "",
        "of": told.get("limit_by", ""),
        **(_goal(first) if first else {}),
    }


def _goal(goal: dict) -> dict[str, str]:
    return {"goal": f"{goal['goal']}: {_ratio(goal['measured'])}", "met": "yes" if goal["met"] else "NO"}


def _joined(cells: dict[str, str]) -> str:
    width = dict(HEAD)
    texts = (cells.get(name, "") for name, _ in HEAD)
    return " ".join(
        f"{text:<{width[name]}}" if name in LEFT else f"{text:>{width[name]}}"
        for (name, _), text in zip(HEAD, texts, strict=True)
    ).rstrip()


def _number(value: float | None) -> str:
    if value is None:
        return ""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            text = f"{value / size:.3g}"
            return f"{text}{unit}"
    return f"{value:.3g}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _ratio(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
