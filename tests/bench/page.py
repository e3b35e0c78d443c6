"""The tables of xp-scale(7) from the JSON of `make bench`, so that the page says what was measured last.

    python tests/bench/page.py [tests/bench/out/bench.json] [--page man/xp-scale.7]

Each part stands between two comments of the page, `rows begin` and `rows end` and so on, and is replaced whole: the
machine, the rows of whole commands, their start-up, the projection to data releases, the goals. What is said of them in
words is kept, and must be read again after that.
"""

import argparse
import json
from pathlib import Path

import growth
import projection
from table import _number, _ratio

ROOT = Path(__file__).parents[2]
NAME = 34  # characters of a command with its options


def parts(result: dict) -> dict[str, list[str]]:
    """What stands between the comments: name of the part -> lines of mdoc."""
    return {
        "machine": machine(result["machine"]),
        "rows": literal(rows(result)),
        "start-up": literal(startup(result)),
        "projection": literal(projection.lines(result)),
        "goals": literal(goals(result)),
    }


def replaced(page: str, found: dict[str, list[str]]) -> str:
    """The page with these parts; ValueError if it lacks the comments of one."""
    for name, lines in found.items():
        begin, end = (f'.\\" {name} {word}\n' for word in ("begin", "end"))
        before, mark, rest = page.partition(begin)
        _, mark_end, after = rest.partition(end)
        if not (mark and mark_end):
            raise ValueError(f"the page has no comments {begin.strip()} and {end.strip()}")
        page = before + begin + "".join(f"{line}\n" for line in lines) + end + after
    return page


def machine(of: dict) -> list[str]:
    """Where and when, in words."""
    return [
        f"They were measured on {of['date']}: {of['processor']}, {of['cores']} cores, load {of['load']:.1f} before the",
        f"run, copying {of['copy_core'] / 1e9:.0f} GB/s, float32 matrix products {of['gemm_core'] / 1e9:.0f} GFLOP/s",
        f"and exponentials {of['exp_core'] / 1e9:.1f} G/s a core.",
    ]


def literal(lines: list[str]) -> list[str]:
    """Lines kept as they are."""
    safe = (line.replace("\\", r"\e").replace("-", r"\-") for line in lines)
    return [".Bd -literal", *(rf"\&{line}" if line[:1] in (".", "'") else line for line in safe), ".Ed"]


def named(told: dict) -> str:
    """A command with its options, no longer than a column."""
    text = f"{told['command']} {told['case']}".strip()
    return text if len(text) <= NAME else f"{text[: NAME - 3].rstrip()} .."


def rows(result: dict) -> list[str]:
    """The largest size of each command, how time and memory grow to it, and what it is measured against."""
    largest: dict[str, dict] = {}
    for told in result["records"]:
        if told.get("kind") == "process" and "startup_cpu_s" in told:
            name = f"{told['command']} {told['case']}".strip()
            largest[name] = max(largest.get(name, told), told, key=lambda r: r["rows"])
    points = growth.points(result)
    head = f"{'rows':>5} {'/core-s':>7} {'CPU s':>6} {'MB':>5} {'time':>5} {'mem':>5}  times the peer"
    out = [f"{'command':{NAME}} {head}"]
    for name, told in largest.items():
        sizes = points.get(name, [])
        steep = growth.slope(sizes)
        more = [f"{steep:5.2f}" if steep == steep else f"{'':5}"]
        more.append(f"{sizes[-1][3] / sizes[-2][3]:5.2f}" if len(sizes) > 1 else f"{'':5}")
        peer = f"{_ratio(told['ratio_core'])} {told['peer']}" if told.get("ratio_core") else ""
        share = f"{told['share']:.2g} of {told['limit_by']}"
        cells = f"{_number(told['rows']):>5} {_number(told['rows_per_core_s']):>7} {told['cpu_s']:6.1f}"
        out.append(f"{named(told):{NAME}} {cells} {told['peak_mb']:5.0f} {' '.join(more)}  {peer:22} {share}".rstrip())
    return out


def startup(result: dict) -> list[str]:
    """Seconds that each command takes on 100 rows, or without any; those without a model have a goal."""
    out, seen = [f"{'command':{NAME}} {'clock':>6} {'CPU':>6}  goal"], set()
    for told in result["records"]:
        name = named(told)
        if "startup_s" not in told or name in seen:
            continue
        seen.add(name)
        wanted = [g for g in told["goals"] if g["goal"].startswith("start-up")]
        words = [f"{g['goal'].split('<= ')[1].split(' s')[0]} {'yes' if g['met'] else 'NO'}" for g in wanted]
        cpu = told.get("startup_cpu_s", told["cpu_s"])
        out.append(f"{name:{NAME}} {told['startup_s']:6.2f} {cpu:6.2f}  {' '.join(words) or '(model)'}")
    return out


def goals(result: dict) -> list[str]:
    """Every other goal, what was measured and whether that is enough."""
    out = [f"{'command':{NAME}} {'goal':33} {'measured':>8}  met"]
    for told in result["records"]:
        for goal in told["goals"]:
            if not goal["goal"].startswith("start-up"):
                met = "yes" if goal["met"] else "NO"
                out.append(f"{named(told):{NAME}} {goal['goal'][:33]:33} {_ratio(goal['measured']):>8}  {met}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, nargs="?", default=Path(__file__).parent / "out" / "bench.json")
    parser.add_argument("--page", type=Path, default=ROOT / "man" / "xp-scale.7")
    args = parser.parse_args()
    args.page.write_text(replaced(args.page.read_text(), parts(json.loads(args.json.read_text()))))
    print(f"{args.page} has the numbers of {args.json}")


if __name__ == "__main__":
    main()
