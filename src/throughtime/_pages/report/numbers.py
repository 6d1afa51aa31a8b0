"""Tables of a report: certificates, measures of a layer, and the origin of the data."""

import platform
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import numpy as np
import xarray as xr

from throughtime import cells, diagnostics
from throughtime._common.text.tables import Table
from throughtime._errors import ThroughTimeError
from throughtime._monitor.provenance import version_of
from throughtime._vocabulary import CERTIFICATES
from throughtime.diagnostics.alarm import ATTRIBUTE
from throughtime.diagnostics.checks import agreement, dtype_of
from throughtime.picture._drawing.scale import number
from throughtime.plots.data import count

LIBRARIES = ("throughtime", "numpy", "xarray", "matplotlib", "bokeh")


def certificates(tree: xr.DataTree) -> tuple[Table, ...]:
    """Tabulate each layer's certificate beside the error that its precision allows."""
    rows = []
    for node in tree.leaves:
        leaf = node.to_dataset()
        errors = [_written(leaf[name]) if name in leaf else "not compared" for name in CERTIFICATES]
        if any(name in leaf for name in CERTIFICATES):
            bar, verdict = cells.bar(dtype_of(leaf)), agreement(leaf)
            rows.append((node.path.strip("/"), *errors, number(bar), verdict))
    caption = "Certificate: relative error of what was computed inside each layer against the framework's own"
    names = ("layer", "weight gradients", "input gradients, step by step", "output", "allowed", "result")
    return (Table(tuple(rows), names, caption),) if rows else ()


def measures(leaf: xr.Dataset) -> tuple[Table, ...]:
    """Tabulate the measures of a layer, with a column for each direction."""
    rows = []
    for name, meaning, measure in _MEASURES:
        try:
            rows.append((name, ", ".join(_each(measure(leaf))), meaning))
        except (ThroughTimeError, ValueError, KeyError):
            continue
    return (Table(tuple(rows), ("measure", "value", "meaning"), "Measures"),) if rows else ()


def origin(tree: xr.DataTree, training: xr.DataTree | None) -> Table:
    """Tabulate what was captured, when, where and with which versions; commit and path are the run's."""
    run = tree if training is None else training
    known = {**run.attrs, **tree.attrs}
    rows = [("written", datetime.now().astimezone().isoformat(timespec="seconds"))]
    rows += [(words, str(known[name])) for name, words in _ORIGIN.items() if name in known]
    rows += [("run", str(run.encoding["source"]))] if "source" in run.encoding else []
    losses = [float(np.ravel(node["loss"])[-1]) for node in tree.leaves if "loss" in node.data_vars]
    sizes = {dim: max(int(node.sizes.get(dim, 0)) for node in tree.subtree) for dim in _SIZES}
    rows.append(("sizes", ", ".join(count(size, _SIZES[dim]) for dim, size in sizes.items() if size)))
    if "training" in tree.attrs:
        rows.append(("mode", "training" if tree.attrs["training"] else "inference"))
    rows += [("loss of the batch", number(losses[-1]))] if losses else []
    rows += [
        (str(name).replace("_", " "), str(value))
        for name, value in tree.attrs.items()
        if name not in (*_ORIGIN, ATTRIBUTE, "training") and len(str(value)) < _LINE
    ]
    rows.append(("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"))
    rows.append(
        ("libraries", ", ".join(f"{name} {version_of(name)}" for name in LIBRARIES if version_of(name)))
    )
    return Table(tuple(rows))


_ORIGIN = {
    "started": "recording began",
    "git_commit": "git commit",
    "model_class": "model",
    "order_of_calls": "layers, in the order of their calls",
    "batch": "batch taken from",
}
_SIZES = {"sample": "sample", "time": "timestep", "step": "training step"}
_LINE = 300  # characters; `throughtime info` prints longer texts of a run

_MEASURES: tuple[tuple[str, str, Callable[[xr.Dataset], Any]], ...] = (
    (
        "k90",
        "lags that hold 90 % of the step contributions, median over samples",
        lambda leaf: diagnostics.effective_steps(leaf)["k90"].median("sample"),
    ),
    (
        "effective steps",
        "how many steps make the recurrent kernel's gradient, median over samples",
        lambda leaf: diagnostics.effective_steps(leaf)["n_eff"].median("sample"),
    ),
    (
        "decay rate",
        "slope of ln R(k) per step of lag; above 0 gradients grow",
        lambda leaf: diagnostics.decay_rate(leaf)["rate"],
    ),
    (
        "spectral radius",
        "largest |eigenvalue| of the recurrent kernel",
        lambda leaf: diagnostics.recurrent_spectrum(leaf)["spectral_radius"],
    ),
)


def _each(values: xr.DataArray) -> Iterator[str]:
    """Yield each value with its direction and gate."""
    dims = [dim for dim in ("direction", "gate") if dim in values.dims]
    stacked = values.stack(each=dims) if dims else values.expand_dims("each")
    for place in range(stacked.sizes["each"]):
        one = stacked.isel(each=place)
        names = one["each"].item() if dims else ()
        words = " ".join(names if isinstance(names, tuple) else (str(names),))
        yield f"{words} {_written(one)}".strip()


def _written(values: xr.DataArray) -> str:
    """Format numbers with three digits; texts are unchanged."""
    if values.dtype.kind in "OUS":
        return ", ".join(map(str, np.ravel(values)))
    return ", ".join("not defined" if np.isnan(each) else number(float(each)) for each in np.ravel(values))
