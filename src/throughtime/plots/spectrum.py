"""`spectrum`: eigenvalues of the recurrent kernel on the unit circle, and Lyapunov exponents beside them."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import xarray as xr

from throughtime._errors import DiagnosticError, PictureError, SchemaError
from throughtime._inputs import takes
from throughtime._inputs.rules import whole
from throughtime._tree import Layer
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.lyapunov_spectrum import of_few_samples
from throughtime.diagnostics.recurrent_spectrum import recurrent_spectrum
from throughtime.picture import Axis, Dots, Line, Mark, Panel, Picture, Text
from throughtime.picture._drawing.scale import Array, number
from throughtime.picture._drawing.theme import DISTINCT, hue
from throughtime.plots.axes import labels
from throughtime.plots.data import count, dotted, last_step, located, parts, subject, where
from throughtime.plots.look import Look, checked, finished
from throughtime.plots.sentences import sentence

FARTHEST = 2.0  # an eigenvalue in the plot, unless a tenth of them are larger
LOWEST = -1.0  # an exponent in the plot: a direction is forgotten within a few steps
NOTE = (
    "Dots: eigenvalues of each gate's recurrent kernel, or of the step Jacobians of a custom cell. Inside "
    "the circle a direction shrinks, outside it grows, before gates and activations scale it. A triangle "
    "lies farther out; ×n counts eigenvalues at one point. Curve: Lyapunov exponents along the trajectory of "
    "the layer; above 0 neighbouring states separate, and gradients grow. Neither a radius above 1 nor "
    "growth is a fault in itself. The legend counts exponents below the axis."
)


@takes(PictureError, samples=whole(0))
def spectrum(captured: Layer, *, samples: int = 4, **look: Unpack[Look]) -> Picture:
    """Draw the eigenvalues of the recurrent kernel, gate by gate, and the layer's Lyapunov spectrum.

    Parameters
    ----------
    captured : capture with one layer, or a layer, with `recurrent_kernel`
        For Lyapunov exponents also what `tt.diagnostics.lyapunov_spectrum` needs.
    samples : int
        Number of samples for the exponents; 0 leaves them out. They are also left out, as the title then
        shows, if the layer is too large or lacks a required variable.
    **look
        See `tt.plots.Look`: title, width, height.

    Raises
    ------
    SchemaError, DiagnosticError
        As `tt.diagnostics.recurrent_spectrum`.

    Examples
    --------
    >>> from throughtime import testing
    >>> picture = spectrum(testing.decaying(rate=0.5))
    >>> picture.panels[0].of(Dots)[0].label
    'ρ 0.5'
    """
    look = checked(look, without=("limits", "share", "scale", "cmap"))
    layer = last_step(certified(captured))
    few = layer.isel(sample=slice(0, max(samples, 1))) if "state_jacobian" in layer else layer
    found = recurrent_spectrum(few)
    if "time" in found.dims:  # of step Jacobians: one cloud of all steps
        found = found.stack(every=("sample", "time", "mode"), create_index=False).rename_dims(every="mode")
    directions = labels(found["spectral_radius"], "direction") if "direction" in found.dims else [""]
    panels = [_circle(found.sel(direction=name) if name else found, name) for name in directions]
    exponents, reason = _exponents(layer, samples)
    if exponents is not None:
        panels.append(_lyapunov(exponents))
    noun = dotted("spectrum", located(captured, layer), reason)
    picture = Picture(tuple(panels), columns=len(panels), note=NOTE)
    titles = _found(found, exponents, where(captured)), noun
    return finished(picture, look, titles, (0.6 + 4.2 * len(panels), 4.7))


def _found(spectra: xr.Dataset, exponents: xr.DataArray | None, name: str) -> str:
    """Describe whether neighbouring states approach or separate; without exponents, the spectral radius."""
    if exponents is not None:
        means = [(name, _mean(_finite(part))) for name, part in parts(exponents, ["sample", "exponent"])]
        known = [(direction, rate[0]) for direction, rate in means if rate.size and np.isfinite(rate[0])]
        return sentence(
            subject(name, "Neighbouring states"),
            [
                (way, f"{'separate' if rate > 0 else 'approach each other'}, λ₁ = {number(rate)} per step")
                for way, rate in known
            ],
        )
    radii = spectra["spectral_radius"]
    most = max(parts(radii, []), key=lambda each: float(each[1]), default=None)
    return "" if most is None else f"Largest spectral radius: {number(float(most[1]))} ({most[0] or name})"


def _circle(found: xr.Dataset, name: str) -> Panel:
    turn = np.linspace(0, 2 * np.pi, 181)
    marks: list[Mark] = [Line(np.cos(turn), np.sin(turn), "#8a8a8a", 1.0)]
    values = found["eigenvalues"]
    known = values.values[np.isfinite(values.values)]
    most = float(np.quantile(np.abs(known), 0.9, method="lower")) if known.size else 1.0
    edge = max(1.0, min(float(np.abs(known).max(initial=0.0)), max(FARTHEST, most)))
    for place, (gate, part) in enumerate(parts(values, ["mode"])):
        label = f"{gate}  ρ {number(float(np.abs(part.values).max()))}".strip()
        is_far = np.abs(part.values) > edge
        marks.append(_dots(part.values[~is_far], hue(place), "o", edge, label))
        marks += [_dots(part.values[is_far], hue(place), "^", edge)] if is_far.any() else []
    points, counts = np.unique(np.round(known * 40 / edge) * edge / 40, return_counts=True)
    is_crowd = counts >= max(4, known.size / 8)
    words = tuple(f"×{each} " for each in counts[is_crowd])
    marks.append(Text(points[is_crowd].real, points[is_crowd].imag, words, anchor="bottom right"))
    return Panel(
        tuple(marks),
        title=name,
        x=Axis("real part", (-1.12 * edge, 1.12 * edge)),
        y=Axis("imaginary part", (-1.12 * edge, 1.12 * edge)),
        equal=True,
        grid=True,
    )


def _dots(numbers: Array, color: str, marker: str, edge: float, label: str = "") -> Dots:
    """Draw the eigenvalues that are finite; those beyond the edge lie on it."""
    numbers = numbers[np.isfinite(numbers)]
    sizes = np.abs(numbers)
    drawn = numbers / np.maximum(1.0, sizes / edge)
    details = (("real", numbers.real), ("imaginary", numbers.imag), ("size", sizes))
    return Dots(drawn.real, drawn.imag, color, 5.0, marker=marker, alpha=0.7, label=label, details=details)


def _exponents(layer: xr.Dataset, samples: int) -> tuple[xr.DataArray | None, str]:
    """Return the exponents of a few samples, or the reason why there are none."""
    try:
        found = of_few_samples(layer, samples)
    except (DiagnosticError, SchemaError):
        return None, "no Lyapunov spectrum for this layer"
    if found is not None and bool(found.isnull().all()):
        return None, "no Lyapunov spectrum: its exponents are not finite"
    return found, "" if found is not None or samples < 1 else "too large for a Lyapunov spectrum here"


def _lyapunov(exponents: xr.DataArray) -> Panel:
    marks: list[Mark] = []
    total = exponents.sizes["exponent"]
    place = np.arange(float(total))
    finite = exponents.values[np.isfinite(exponents.values)]
    largest = float(finite.max()) if finite.size else 0.0
    low, top = max(float(finite.min(initial=-0.1)), min(LOWEST, 2 * largest)), max(0.0, largest)
    for color, (name, part) in zip(DISTINCT, parts(exponents, ["sample", "exponent"]), strict=False):
        finite = _finite(part)
        marks += [Line(place, each, color, 0.7, 0.4) for each in finite]
        mean = _mean(finite)
        below = int((~(mean >= low)).sum())
        beyond = f"{below} of {total} below {number(low)}" if below else ""
        label = dotted(name, f"λ₁ {number(float(mean[0]))}", beyond)
        marks.append(Line(place, mean, color, 1.8, label=label, details=(("index", place), ("value", mean))))
    marks.append(Line(np.array([-0.5, total - 0.5]), np.zeros(2), "#555555", 0.8, dashed=True))
    return Panel(
        tuple(marks),
        title=f"Lyapunov, mean of {count(exponents.sizes['sample'], 'sample')}",
        x=Axis("index, largest first", (-0.5, total - 0.5)),
        y=Axis("exponent λ, per step", (low - 0.05 * (top - low), top + 0.05 * (top - low))),
        grid=True,
    )


def _finite(part: xr.DataArray) -> Array:
    """Return the exponents of the samples that have any, (sample, exponent)."""
    values: Array = part.transpose("sample", "exponent").values
    return np.where(np.isfinite(values), values, np.nan)[~np.isnan(values).all(axis=1)]


def _mean(finite: Array) -> Array:
    """Return the mean over samples of finite values; NaN if there are none."""
    return np.asarray(np.ma.masked_invalid(finite).mean(axis=0).filled(np.nan))
