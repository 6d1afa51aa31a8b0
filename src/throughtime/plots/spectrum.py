"""`spectrum`: eigenvalues of the recurrent kernel on the unit circle, and Lyapunov exponents beside them."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import xarray as xr

from throughtime._arguments import takes
from throughtime._arguments.rules import whole
from throughtime._drawing.scale import Array, number
from throughtime._drawing.theme import DISTINCT, hue
from throughtime._errors import DiagnosticError, PictureError, SchemaError
from throughtime._tree import Layer
from throughtime.diagnostics.checks import certified
from throughtime.diagnostics.lyapunov_spectrum import of_few_samples
from throughtime.diagnostics.recurrent_spectrum import recurrent_spectrum
from throughtime.picture import Axis, Dots, Line, Mark, Panel, Picture
from throughtime.plots.axes import labels
from throughtime.plots.data import count, dotted, last_step, located, parts, subject, where
from throughtime.plots.look import Look, checked, size, titled
from throughtime.plots.sentences import sentence

NOTE = (
    "Left: eigenvalues of each gate's recurrent kernel, or of the step Jacobians of a custom cell. Inside "
    "the circle a direction shrinks, outside it grows, before gates and activations scale it. Right: "
    "Lyapunov exponents along the trajectory of the layer; above 0 neighbouring states separate, and "
    "gradients grow. Neither a radius above 1 nor growth is a fault in itself."
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

    Returns
    -------
    Picture

    Raises
    ------
    SchemaError, DiagnosticError
        As `tt.diagnostics.recurrent_spectrum`.
    PictureError
        An argument is not as described above.

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
    return Picture(
        tuple(panels),
        columns=len(panels),
        **titled(look, _found(found, exponents, where(captured)), noun),
        note=NOTE,
        **size(look, 0.6 + 4.2 * len(panels), 4.7),
    )


def _found(spectra: xr.Dataset, exponents: xr.DataArray | None, name: str) -> str:
    """Describe whether neighbouring states approach or separate; without exponents, the spectral radius."""
    if exponents is not None:
        means = [(name, _mean(_finite(part))) for name, part in parts(exponents, ["sample", "exponent"])]
        known = [(direction, rate[0]) for direction, rate in means if rate.size and np.isfinite(rate[0])]
        return sentence(
            subject(name, "Neighbouring states"),
            [
                (
                    way,
                    f"{'separate' if rate > 0 else 'approach each other'}, λ₁ = {number(rate)} per step",
                )
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
    for place, (gate, part) in enumerate(parts(values, ["mode"])):
        numbers = part.values
        radius = number(float(np.abs(numbers).max()))
        details = (("real", numbers.real), ("imaginary", numbers.imag), ("size", np.abs(numbers)))
        label = f"{gate}  ρ {radius}".strip()
        marks.append(Dots(numbers.real, numbers.imag, hue(place), 4.0, label=label, details=details))
    finite = np.abs(values.values[np.isfinite(values.values)])
    reach = 1.12 * float(max(1.0, finite.max(initial=0.0)))
    return Panel(
        tuple(marks),
        title=name,
        x=Axis("real part", (-reach, reach)),
        y=Axis("imaginary part", (-reach, reach)),
        equal=True,
        grid=True,
    )


def _exponents(layer: xr.Dataset, samples: int) -> tuple[xr.DataArray | None, str]:
    """Return the exponents of a few samples, or the reason why there are none."""
    try:
        found = of_few_samples(layer, samples)
    except (DiagnosticError, SchemaError):
        return None, "no Lyapunov spectrum for this layer"
    return found, "" if found is not None or samples < 1 else "too large for a Lyapunov spectrum here"


def _lyapunov(exponents: xr.DataArray) -> Panel:
    marks: list[Mark] = []
    total = exponents.sizes["exponent"]
    place = np.arange(float(total))
    for color, (name, part) in zip(DISTINCT, parts(exponents, ["sample", "exponent"]), strict=False):
        finite = _finite(part)
        marks += [Line(place, each, color, 0.7, 0.4) for each in finite]
        mean = _mean(finite)
        label = dotted(name, f"λ₁ {number(float(mean[0]))}")
        marks.append(Line(place, mean, color, 1.8, label=label, details=(("index", place), ("value", mean))))
    marks.append(Line(np.array([-0.5, total - 0.5]), np.zeros(2), "#555555", 0.8, dashed=True))
    return Panel(
        tuple(marks),
        title=f"Lyapunov, mean of {count(exponents.sizes['sample'], 'sample')}",
        x=Axis("index, largest first", (-0.5, total - 0.5)),
        y=Axis("exponent λ, per step"),
        grid=True,
    )


def _finite(part: xr.DataArray) -> Array:
    """Return the exponents of the samples that have any, (sample, exponent)."""
    values: Array = part.transpose("sample", "exponent").values
    return np.where(np.isfinite(values), values, np.nan)[~np.isnan(values).all(axis=1)]


def _mean(finite: Array) -> Array:
    """Return the mean over samples of finite values; NaN if there are none."""
    return np.asarray(np.ma.masked_invalid(finite).mean(axis=0).filled(np.nan))
