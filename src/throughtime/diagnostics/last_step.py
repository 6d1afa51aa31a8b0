"""A layer's gradients as they would be if error entered only at its last step: the effect of its recurrence.

If error enters at many steps, gradients are sums over all later errors, so their decay and growth do not
describe the layer. The Jacobians along the captured trajectory give the share of the last step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime import cells
from throughtime._arguments import takes
from throughtime._errors import DiagnosticError
from throughtime._tree import Layer, require
from throughtime._vocabulary import STANDARD_KINDS
from throughtime.diagnostics.cell_pass import NEEDED, OPTIONAL, Values, cell_layer, cell_pass
from throughtime.diagnostics.checks import certified, certified_vectors
from throughtime.diagnostics.lags import runs_backward, valid_steps

_SOLVED = ("hidden_gradient", "cell_gradient", "step_contribution")


@takes(DiagnosticError)
def from_last_step(layer: Layer) -> xr.Dataset:
    """Replace a layer's gradients by those of the error at its last valid step alone.

    They are δ_T · ∂s_T/∂s_t, with δ_T = dL/dh_T as captured, without the errors that enter at earlier steps.
    If the loss reads only the last step, nothing changes.

    Parameters
    ----------
    layer : one direction of one LSTM, GRU or SimpleRNN of a capture
        It has `input`, `hidden`, `hidden_gradient`, `kernel` and `recurrent_kernel`; biases and initial
        states are used if present.

    Returns
    -------
    Dataset
        The layer with new `hidden_gradient`, `cell_gradient` and `step_contribution`.

    Raises
    ------
    DiagnosticError
        The certificate fails, the cell or its activation has no closed form, or there are several
        directions or training steps.
    SchemaError
        A variable is missing.

    References
    ----------
    Pascanu, Mikolov & Bengio (2013), arXiv 1211.5063, eq. 5.

    Examples
    --------
    >>> from throughtime import testing
    >>> every_step = testing.lag_matrix_of(rate=0.5, steps=4)["rnn"].to_dataset().drop_vars("lag_matrix")
    >>> alone = from_last_step(every_step)["hidden_gradient"].isel(sample=0, unit=0).values
    >>> (alone / alone[-1]).round(6)
    array([0.125, 0.25 , 0.5  , 1.   ])
    """
    captured = certified_vectors(certified(layer))
    for dim in {"direction", "step"} & {*captured.dims}:
        raise DiagnosticError(f"This layer has a dim {dim!r}. Select one position: layer.isel({dim}=0).")
    arrays = {name: require(captured, name).values for name in (*NEEDED, "hidden_gradient")}
    arrays |= {name: captured[name].values for name in OPTIONAL if name in captured}
    arrays["valid"] = valid_steps(captured).values
    solved = solved_from_last_step(arrays, captured.attrs, backward=bool(runs_backward(captured)))
    return captured.assign(
        {name: captured[name].copy(data=solved[name]) for name in _SOLVED if name in captured}
    )


def solved_from_last_step(
    of: Values, attributes: Mapping[Any, Any], *, backward: bool
) -> dict[str, npt.NDArray[Any]]:
    """Do the same as `from_last_step` for plain arrays of one direction whose first axis is the sample."""
    kind, activations = attributes.get("kind"), cells.ACTIVATIONS
    cell = cell_layer(of, attributes)
    if kind not in STANDARD_KINDS or {cell.activation, cell.recurrent_activation} - set(activations):
        raise DiagnosticError(
            f"{attributes.get('layer', 'This layer')} has no closed form: its cell or activation is not one "
            "of the standard ones."
        )
    passed = replace(
        cell_pass(of, backward=backward), final_hidden_gradient=_at_last_step(of, backward=backward)
    )
    return cells.solve(cell, passed, frozenset(_SOLVED))


def _at_last_step(of: Values, *, backward: bool) -> npt.NDArray[Any]:
    """dL/dh at the last processed valid step, (sample, unit); 0 if no step is valid."""
    gradient, valid = of["hidden_gradient"], np.asarray(of["valid"], dtype=bool)
    ordered = valid if backward else valid[:, ::-1]
    first = ordered.argmax(axis=1)
    place = first if backward else valid.shape[1] - 1 - first
    taken = np.take_along_axis(gradient, place[:, None, None], axis=1)[:, 0]
    return np.where(np.any(valid, axis=1, keepdims=True), taken, 0).astype(gradient.dtype)
