"""Whether the weight gradients of the steps, and those of the samples, agree or cancel.

Complements `effective_steps`, which uses only the norms of the contributions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._tree import Layer, require
from throughtime.diagnostics.checks import require_vectors
from throughtime.diagnostics.labelled import apply
from throughtime.diagnostics.lags import Floats, by_lag, runs_backward, steps_of_last_episode


@takes(DiagnosticError)
def temporal_coherence(layer: Layer) -> xr.Dataset:
    """Norm of a sum of weight gradients over the sum of their norms: 1 if all agree, near 0 if they cancel.

    Computed over the steps of a sample, ‖Σ_t dU_(t)‖ / Σ_t ‖dU_(t)‖, and over the samples of a batch, κ.

    Parameters
    ----------
    layer : one layer of a capture, with `hidden` and `gate_gradient`
        A GRU also needs `gate_activation`: its reset gate is part of dU. `initial_hidden` is used if present.

    Returns
    -------
    Dataset
        `coherence` (sample, [direction]): over steps; `kappa` ([direction]): over samples;
        `noise_floor`: 1/√B for the B samples with a gradient, the value of κ for random directions.
        NaN if there is no gradient.

    Examples
    --------
    >>> from throughtime import testing
    >>> found = temporal_coherence(testing.constant_gates(samples=4))  # four times the same sample
    >>> round(float(found["kappa"]), 6), float(found["noise_floor"])
    (1.0, 0.5)
    """
    captured = require_vectors(layer)
    hidden = require(captured, "hidden")
    valid, backward = steps_of_last_episode(captured), runs_backward(captured)
    initial = captured.get("initial_hidden", xr.zeros_like(hidden.isel(time=0, drop=True)))
    back = require(captured, "gate_gradient")
    length = valid.sum("time") + xr.zeros_like(hidden.isel(time=0, unit=0, drop=True), dtype=int)
    inputs = [length, *(by_lag(each, valid, backward) for each in (hidden, back))]
    dims = [
        ["sample"],
        ["sample", "unit", "lag"],
        ["sample", *(["gate"] if "gate" in back.dims else []), "unit", "lag"],
    ]
    if captured.attrs.get("kind") == "gru":
        reset = require(captured, "gate_activation").sel(gate="reset", drop=True)
        inputs, dims = [*inputs, by_lag(reset, valid, backward)], [*dims, ["sample", "unit", "lag"]]
    coherence, kappa, floor = apply(
        _coherence,
        initial,
        *inputs,
        over=[("sample", "unit"), *dims],
        returns=[("sample",), (), ()],
        vectorize=True,
        reset_after=bool(captured.attrs.get("reset_after", 1)),
    )
    return xr.Dataset({"coherence": coherence, "kappa": kappa, "noise_floor": floor})


def _coherence(
    initial: Floats, length: Floats, hidden: Floats, back: Floats, *reset: Floats, reset_after: bool
) -> tuple[Any, ...]:
    samples = len(hidden)
    coherence, sizes, total = np.full(samples, np.nan), np.zeros(samples), np.zeros(())
    for sample in range(samples):
        steps = int(length[sample])
        taken = [each[sample][..., :steps] for each in (hidden, back, *reset)]
        parts = _outer_products(initial[sample], *taken, reset_after=reset_after)
        summed = np.concatenate([before @ asked.T for before, asked in parts], axis=1)
        # Each part of a step's dU has rank 1: its norm is a product of norms.
        lengths = np.sqrt(np.sum([_squares(before) * _squares(asked) for before, asked in parts], axis=0))
        sizes[sample] = np.linalg.norm(summed)
        coherence[sample] = sizes[sample] / lengths.sum() if lengths.sum() > 0 else np.nan
        total = total + summed
    pulling = np.count_nonzero(sizes)
    kappa = np.linalg.norm(total) / sizes.sum() if pulling else np.nan
    return coherence, kappa, 1 / np.sqrt(pulling) if pulling else np.nan


def _squares(values: Floats) -> Floats:
    return np.asarray(np.sum(values**2, axis=0))


def _outer_products(
    initial: Floats, hidden: Floats, back: Floats, reset: Floats | None = None, *, reset_after: bool
) -> list[tuple[Floats, Floats]]:
    """Return pairs (state, gradient), each (…, lag), whose outer products add up to dU_(t)."""
    before = np.concatenate([hidden, initial[:, None]], axis=1)[:, 1:]
    steps = hidden.shape[1]
    flat: npt.NDArray[np.float64] = back.reshape(math.prod(back.shape[:-1]), steps)
    if reset is None:
        return [(before, flat)]
    # GRU gates are update, reset, candidate; the reset gate acts only on the candidate's part.
    others, candidate = flat[: -len(reset)], flat[-len(reset) :]
    if reset_after:
        return [(before, np.concatenate([others, candidate * reset]))]
    return [(before, others), (before * reset, candidate)]
