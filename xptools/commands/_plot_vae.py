"""From tables of `xp vae`, and from its model files, to the numbers of `xp plot vae`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xptools.columns import Column
from xptools.commands._plot_input import found, need_input
from xptools.errors import DataError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1 << 16
MOST = 200_000  # stars whose residuals are kept for quantiles
SHOWN = (0.005, 0.995)  # quantiles of the latents that the axes show
CELLS = 60
COLUMNS = {
    "part": Column("string", None, "meta.code.class", "cell, bp, rp, training, held-out or background"),
    "x": Column("float64", None, "stat.value", "A latent, the index of a coefficient, or the epoch"),
    "y": Column("float64", None, "stat.value", "A latent, the median residual in sigma, or the loss"),
    "lo": Column("float64", None, "stat.value;stat.min", "16 % quantile of the residuals"),
    "hi": Column("float64", None, "stat.value;stat.max", "84 % quantile of the residuals"),
    "value": Column("float64", None, "stat.mean", "Mean of the colour's column in the cell"),
    "n": Column("int64", None, "meta.number", "Stars"),
}


def latent_numbers(path: str, x: str, y: str, colour: str) -> tuple[dict[str, Any], dict[str, Any], pa.Schema]:
    """Cells of two columns with the mean of a third."""
    import numpy as np

    names, arrays, schema = _columns(path, (x, y, colour))
    a, b, c = (arrays[n].astype(np.float64) for n in names)
    use = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    if not use.any():
        raise DataError(f"no row of {path} has {x}, {y} and {colour}. TRY: xp info on the input")
    a, b, c = a[use], b[use], c[use]
    edges = [np.linspace(*_range(v), CELLS + 1) for v in (a, b)]
    n, total = (np.histogram2d(a, b, edges, weights=w)[0] for w in (None, c))
    i, j = np.nonzero(n)
    centre = [0.5 * (e[1:] + e[:-1]) for e in edges]
    numbers = _table("cell", centre[0][i], centre[1][j], value=total[i, j] / n[i, j], n=n[i, j].astype(np.int64))
    about = {"x": x, "y": y, "colour": colour, "rows": int(use.sum()), "step": [float(e[1] - e[0]) for e in edges]}
    return numbers, about, schema


def residual_numbers(path: str) -> tuple[dict[str, Any], dict[str, Any], pa.Schema]:
    """Median and 68 % of R(j) for each coefficient of both bands."""
    import numpy as np

    names, arrays, schema = _columns(path, ("bp_residuals", "rp_residuals"))
    parts, stars = [], 0
    for band, name in zip(("bp", "rp"), names, strict=True):
        R = arrays[name]
        if R.ndim != 2:
            raise DataError(f"column {name} holds no arrays. TRY: xp vae --add residuals")
        stars = max(stars, int(np.isfinite(R).any(1).sum()))
        known = np.isfinite(R).sum(0)
        lo, middle, hi = np.nanquantile(R[:, known > 0].astype(np.float64), (0.15865, 0.5, 0.84135), axis=0)
        parts.append(_table(band, 1.0 + np.flatnonzero(known), middle, lo=lo, hi=hi, n=known[known > 0]))
    return _joined(parts), {"rows": stars}, schema


def curve_numbers(path: str, background: str | None) -> tuple[dict[str, Any], dict[str, Any], pa.Schema]:
    """Loss by epoch of a model file, and of another file or a table with epoch, loss, score."""
    import pyarrow as pa

    parts = _curve(path, ("training", "held-out"))
    if background:
        parts += _curve(background, ("background training", "background held-out"))
    return _joined(parts), {"rows": len(parts[0]["x"])}, pa.schema([])


def _curve(path: str, names: tuple[str, str]) -> list[dict[str, Any]]:
    import numpy as np

    from xptools import artefact

    if path == "-":
        raise UsageError("--kind curve takes a model file by name. TRY: xp plot vae --kind curve m.safetensors")
    try:
        told = artefact.demand(artefact.about(path), "vae", path)
    except DataError:
        if path.endswith(".safetensors"):
            raise
        _, arrays, _ = _columns(path, ("epoch", "loss", "score"))
        rows = np.stack([arrays[n] for n in ("epoch", "loss", "score")], -1).astype(np.float64)
    else:
        rows = np.array(told.training.get("curve", []), np.float64).reshape(-1, 3)
    if not len(rows):
        raise DataError(f"the model was not trained by xp: it has no learning curve. {path}. TRY: xp info {path}")
    return [_table(name, rows[:, 0] + 1, rows[:, k]) for k, name in enumerate(names, 1)]


def _columns(path: str, names: tuple[str, ...]) -> tuple[list[str], dict[str, Any], pa.Schema]:
    """Columns of at most MOST rows, evenly from the whole table if its length is known, under their own spelling."""
    import numpy as np

    from xptools import io
    from xptools.protocol import to_numpy

    need_input(path)
    parts: dict[str, list] = {}
    with io.open_reader(path, None, ROWS) as reader:
        there = found(reader.schema, names)
        step = max(1, -(-(reader.rows or 0) // MOST))
        for batch in reader:
            for name in there.values():
                values = to_numpy(batch.column(batch.schema.get_field_index(name)), name)
                parts.setdefault(name, []).append(values[::step])
    if not parts:
        raise DataError(f"{path} has no rows to plot. TRY: xp info {path}")
    return list(there.values()), {k: np.concatenate(v) for k, v in parts.items()}, reader.schema


def _range(values) -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(values, SHOWN)
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _table(part: str, x, y, **more) -> dict[str, Any]:
    import numpy as np

    n = len(x)
    blank = {k: np.full(n, np.nan) for k in ("lo", "hi", "value")}
    return {"part": np.full(n, part), "x": x, "y": y, **blank, "n": np.zeros(n, np.int64)} | more


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    import numpy as np

    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
