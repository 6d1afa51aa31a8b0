"""`weights`: kernel, recurrent kernel and biases by gate and direction, as an image and as histograms."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import xarray as xr

from throughtime._errors import PictureError, SchemaError
from throughtime._inputs import takes
from throughtime._inputs.rules import whole
from throughtime._tree import NOT_RECORDED, Layer, keeps_norms
from throughtime._tree import layer as one_layer
from throughtime._vocabulary import WEIGHTS
from throughtime.picture import Axis, Image, Line, Mark, Panel, Picture, Rectangles
from throughtime.picture._drawing.colors import Colors
from throughtime.picture._drawing.scale import Array, Scale, largest_magnitude, number
from throughtime.picture._drawing.theme import hue
from throughtime.plots.colored import colors
from throughtime.plots.curves import outline
from throughtime.plots.data import Source, count, dotted, last_step, located, parts, subject, where
from throughtime.plots.look import Look, checked, finished, in_columns
from throughtime.plots.sentences import SAME, change

GAP = 0.05  # between gates, in parts of one
HEIGHTS = {"kernel": 0.8, "recurrent_kernel": 1.6, "bias": 0.3, "recurrent_bias": 0.3}
NOTE = (
    "A row of blocks is one weight, a column of blocks one gate; rows are its inputs, columns its units. "
    "W is the kernel, from the inputs, U the recurrent kernel, from the state before. ρ is the largest "
    "|eigenvalue| of a gate's recurrent kernel, ‖·‖ are Frobenius norms."
)
NOTE_OF_NORMS = (
    "Frobenius norms at each recorded training step, a line for each gate, on one scale. A jump shows where "
    "training was disturbed; a constant norm shows what does not learn."
)


@takes(PictureError, bins=whole(2, 1000))
def weights(captured: Layer, *, gradient: bool = False, bins: int = 60, **look: Unpack[Look]) -> Picture:
    """Draw the weights of a recurrent layer by gate and direction: values, distribution and norms.

    Parameters
    ----------
    captured : capture or run with one layer, a layer, or what `tt.weights` returns
        If a run keeps norms, they are drawn by training step.
    gradient : bool
        Draw the gradients of the weights instead of their values.
    bins : int
        Number of bins of the histograms.
    **look
        See `tt.plots.Look`. By default `share=False`: kernel, recurrent kernel and biases each have a scale
        up to their largest magnitude, which is written beside them.

    Examples
    --------
    >>> from throughtime import testing
    >>> picture = weights(testing.decaying(rate=0.5))
    >>> [image.name for image in picture.panels[0].of(Image)]
    ['kernel', 'recurrent_kernel', 'bias']
    """
    look = checked(look)
    whole = one_layer(captured)
    if keeps_norms(whole) and (drawn := _weight_norms(whole, where(captured), look, gradient=gradient)):
        return drawn
    dataset = last_step(whole)
    found = _found(dataset, gradient)
    is_directed = any("direction" in array.dims for array in found.values())
    directions = [str(name) for name in dataset["direction"].values] if is_directed else [""]
    panels: list[Panel] = []
    for name in directions:
        own = {each: array.sel(direction=name) if name else array for each, array in found.items()}
        panels += [_canvas(own, name, look, gradient=gradient), _histograms(own, name, bins)]
    heights = tuple(ratio for _ in directions for ratio in (2.6, 1.3))
    what = "weight gradients" if gradient else "weights"
    noun = dotted(what, located(captured, dataset))
    titles = _largest_gate(found, where(captured), what), noun
    picture = Picture(tuple(panels), note=NOTE, heights=heights)
    return finished(picture, look, titles, (10.0, 0.8 + 5.6 * len(directions)))


def _largest_gate(found: dict[str, xr.DataArray], name: str, what: str) -> str:
    """Name the gate and direction whose recurrent kernel has the largest Frobenius norm."""
    kernel = found.get("recurrent_kernel")
    if kernel is None or not np.isfinite(kernel.values).all() or not kernel.values.any():
        return ""
    norms = {words: float(np.linalg.norm(part)) for words, part in parts(kernel, _axes(kernel))}
    most = max(norms, key=lambda words: norms[words])
    of = f"{subject(name, what.capitalize())}: ‖U‖ is"
    return (
        f"{of} {number(norms[most])}" if len(norms) == 1 else f"{of} largest in {most}, {number(norms[most])}"
    )


def _axes(kernel: xr.DataArray) -> list[str]:
    return [str(dim) for dim in kernel.dims if dim not in ("gate", "direction")]


def _found(dataset: xr.Dataset, gradient: bool) -> dict[str, xr.DataArray]:
    names = {name: f"{name}_gradient" if gradient else name for name in WEIGHTS}
    found = {name: dataset[variable] for name, variable in names.items() if variable in dataset}
    # Gates are as wide as the cell where the hidden state is projected.
    wide = {name: array for name, array in found.items() if "cell_unit" in array.dims}
    found |= {name: array.rename(cell_unit="unit") for name, array in wide.items()}
    found = {name: array for name, array in found.items() if "unit" in array.dims}
    if not found:
        raise SchemaError(_missing(dataset, gradient))
    return found


def _missing(dataset: xr.Dataset, gradient: bool) -> str:
    have = ", ".join(map(str, dataset.data_vars))
    if "kernel" in dataset:
        dims = ", ".join(map(str, dataset["kernel"].dims))
        return (
            f"The kernel of this layer has the axes {dims}; weights draws units of gates. "
            "tt.show_features_hist draws any array."
        )
    if keeps_norms(dataset):
        return f"There are no weights here: {NOT_RECORDED}."
    asked = "weight_gradients" if gradient else "weights"
    return (
        f"There are no recurrent weights here: tt.capture(model, x, y, quantities=[{asked!r}]) captures "
        f"them. It has: {have}."
    )


def _gates(array: xr.DataArray) -> list[str]:
    return [str(gate) for gate in array["gate"].values] if "gate" in array.dims else [""]


def _matrix(array: xr.DataArray, gate: str) -> Array:
    """Return inputs as rows and units as columns; a bias has one row."""
    part = array.sel(gate=gate) if gate else array
    rows = [dim for dim in part.dims if dim != "unit"]
    return np.atleast_2d(part.transpose(*rows, "unit").values.reshape(-1, part.sizes["unit"]))


def _canvas(found: dict[str, xr.DataArray], direction: str, look: Look, *, gradient: bool) -> Panel:
    """Draw blocks on one colour scale: a row for each weight, a column for each gate."""
    largest = {
        name: largest_magnitude(array.values) or 1.0 if not look.get("share") else 1.0
        for name, array in found.items()
    }
    scaled = {name: array / largest[name] for name, array in found.items()}
    fit = _colors(scaled, look, gradient=gradient)
    marks: list[Mark] = []
    ticks, boxes, top = [], [], 0.0
    for name, array in scaled.items():
        height = HEIGHTS[name]
        for place, gate in enumerate(_gates(array)):
            left = place * (1 + GAP)
            boxes.append((left, top, left + 1, top + height))
            marks.append(Image(_matrix(array, gate), (left, left + 1), (top, top + height), fit, name=name))
        ticks.append((top + height / 2, _range(name, found[name])))
        top += height + 2 * GAP
    gates = _gates(next(iter(found.values())))
    under = [(place * (1 + GAP) + 0.5, gate) for place, gate in enumerate(gates)]
    return Panel(
        (*marks, Rectangles(np.array(boxes), edge="#8a8a8a")),
        title=direction,
        x=Axis("", (0.0, len(gates) * (1 + GAP) - GAP), tuple(under)),
        y=Axis("", (0.0, top - 2 * GAP), tuple(ticks), reversed=True),
        framed=False,
    )


def _range(name: str, array: xr.DataArray) -> str:
    largest = largest_magnitude(array.values)
    words = f"±{number(largest)}" if largest else "all 0" if np.isfinite(array.values).all() else "not finite"
    between = " " if name == "recurrent_bias" else "\n"
    return "".join((name.replace("_", "\n"), between, words))


def _colors(scaled: dict[str, xr.DataArray], look: Look, *, gradient: bool) -> Colors:
    values = np.concatenate([array.values.ravel() for array in scaled.values()])
    what = "gradient" if gradient else "weight"
    symbol = what if look.get("share") else f"{what} ÷ largest of its kind"
    scale = look.get("scale") or "linear"
    source = Source(next(iter(scaled.values())), None, "weights", symbol)
    return colors(source, values, Look(**{**look, "scale": scale, "share": True}))


def _norms(found: dict[str, xr.DataArray], gate: str) -> str:
    """Write the norms of a gate, and the spectral radius of its recurrent kernel."""
    kinds = {"kernel": "‖W‖", "recurrent_kernel": "‖U‖"}
    known = {symbol: _matrix(found[name], gate) for name, symbol in kinds.items() if name in found}
    detail = [f"{symbol} {number(float(np.linalg.norm(part)))}" for symbol, part in known.items()]
    square = _matrix(found["recurrent_kernel"], gate) if "recurrent_kernel" in found else np.empty((0, 1))
    if square.shape[0] == square.shape[1] and np.isfinite(square).all():
        detail.append(f"ρ {number(float(np.abs(np.linalg.eigvals(square.astype(np.float64))).max()))}")
    return " ".join(detail)


def _histograms(found: dict[str, xr.DataArray], direction: str, bins: int) -> Panel:
    """Draw the distribution over both kernels, a curve for each gate."""
    kernels = [found[name] for name in ("kernel", "recurrent_kernel") if name in found] or [*found.values()]
    largest = max(largest_magnitude(array.values) for array in kernels) or 1.0
    edges = np.linspace(-largest, largest, bins + 1)
    marks: list[Mark] = []
    top = 0.0
    for place, gate in enumerate(_gates(kernels[0])):
        values = np.concatenate([_matrix(array, gate).ravel() for array in kernels])
        finite = values[np.isfinite(values)]
        shares = np.histogram(finite, edges)[0] / max(1, values.size)
        broken = f"{values.size - finite.size} NaN or ∞" if finite.size < values.size else ""
        marks += outline(edges, shares, hue(place), dotted(gate, _norms(found, gate), broken))
        top = max(top, float(shares.max()))
    x, y = Axis("value", (-largest, largest)), Axis("share of weights", (0.0, 1.9 * top or 1.0))
    return Panel(tuple(marks), title=dotted(direction, "both kernels"), x=x, y=y, grid=True)


def _weight_norms(dataset: xr.Dataset, where: str, look: Look, *, gradient: bool) -> Picture | None:
    """Draw a panel for each weight and direction; return None if the run keeps no norms."""
    ending = "_gradient_norm" if gradient else "_norm"
    norms = {name: dataset[f"{name}{ending}"] for name in WEIGHTS if f"{name}{ending}" in dataset}
    if not norms or "step" not in dataset.dims:
        return None
    norms = {name: values.astype(np.float64).load() for name, values in norms.items()}
    everything = np.concatenate([values.values.ravel() for values in norms.values()])
    known = everything[np.isfinite(everything) & (everything > 0)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.1, 1.0)
    scale = Scale("log10", *map(float, look.get("limits") or (low / 1.2, high * 1.2)))
    panels = tuple(_norm_panels(norms, dataset["step"].values.astype(float), scale))
    what = "norms of the weights' gradients" if gradient else "norms of the weights"
    steps = count(int(dataset.sizes["step"]), "training step")
    titles = _most_changed(norms, where, what), dotted(what, located(where, dataset), steps)
    return in_columns(Picture(panels, note=NOTE_OF_NORMS, linked="xy"), look, titles, 3.2, 1.0)


def _most_changed(norms: dict[str, xr.DataArray], where: str, what: str) -> str:
    """Name the norm that has changed most since the first record."""
    ends = {
        dotted(name.replace("_", " "), words): (float(row[0]), float(row[-1]))
        for name, values in norms.items()
        for words, row in parts(values, ["step"])
    }
    ratios = {name: abs(np.log(last / first)) for name, (first, last) in ends.items() if change(first, last)}
    if not ratios:
        return ""
    most = max(ratios, key=lambda name: ratios[name])
    norms_of, words = subject(where, what.capitalize()), change(*ends[most])
    return f"{norms_of} stay about the same" if words == SAME else f"{norms_of}: {most} {words}"


def _norm_panels(norms: dict[str, xr.DataArray], steps: np.ndarray, scale: Scale) -> list[Panel]:
    ends = (steps[0] - 0.5, max(steps[-1], steps[0] + 1) + 0.5)
    found = []
    for name, values in norms.items():
        for direction, part in parts(values, ["step", "gate"] if "gate" in values.dims else ["step"]):
            lines = [
                Line(steps, scale.clipped(row.values), hue(place), 1.5, label=gate, details=details)
                for place, (gate, row) in enumerate(parts(part, ["step"]))
                for details in [(("training step", steps), ("norm", row.values))]
            ]
            title = dotted(name.replace("_", " "), direction)
            y = Axis(scale.label("norm"), (-0.04, 1.06), scale.ticks())
            found.append(Panel(tuple(lines), title=title, x=Axis("training step", ends), y=y, grid=True))
    return found
