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
from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._tree import Layer, require, state_gradients
from throughtime.diagnostics.checks import certified, require_vectors
from throughtime.diagnostics.lags import runs_backward, valid_steps
from throughtime.diagnostics.state_jacobian import (
    NEEDED,
    OPTIONAL,
    STATES,
    Values,
    cell_pass,
    has_closed_form,
    state_jacobian,
)

_SOLVED = ("hidden_gradient", "cell_gradient", "step_contribution")


@takes(DiagnosticError)
def from_last_step(layer: Layer) -> xr.Dataset:
    """Replace a layer's gradients by those of the error at its last valid step alone.

    They are δ_T · ∂s_T/∂s_t, with δ_T = dL/dh_T as captured, without the errors that enter at earlier steps.
    If the loss reads only the last step, nothing changes.

    Parameters
    ----------
    layer : one direction of one layer of a capture
        LSTM, GRU and SimpleRNN: with `input`, `hidden`, `hidden_gradient`, `kernel` and `recurrent_kernel`;
        biases and initial states are used if present. Any other cell: with `state_jacobian` and the gradient
        of its first state.

    Returns
    -------
    Dataset
        The layer with new `hidden_gradient`, `cell_gradient` and `step_contribution`; of any other cell with
        new gradients of its states, those of a step as independent variables.

    Raises
    ------
    DiagnosticError
        The certificate fails, the cell has neither a closed form nor a captured `state_jacobian`, or there
        are several directions or training steps.

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
    captured = certified(layer)
    for dim in {"direction", "step"} & {*captured.dims}:
        raise DiagnosticError(f"This layer has a dim {dim!r}. Select one position: layer.isel({dim}=0).")
    if not has_closed_form(captured.attrs):
        return _multiply_jacobians(captured)
    captured = require_vectors(captured)
    arrays = {name: require(captured, name).values for name in (*NEEDED, "hidden_gradient")}
    arrays |= {name: captured[name].values for name in OPTIONAL if name in captured}
    arrays["valid"] = valid_steps(captured).values
    solved = solve_from_last_step(arrays, captured.attrs, backward=bool(runs_backward(captured)))
    return captured.assign(
        {name: captured[name].copy(data=solved[name]) for name in _SOLVED if name in captured}
    )


def _multiply_jacobians(captured: xr.Dataset) -> xr.Dataset:
    """Multiply the gradient of the first state at the last step by the Jacobians of the steps before it."""
    names = state_gradients(captured)
    jacobians = state_jacobian(captured).transpose("sample", "time", *STATES).values
    first, backward = require(captured, names[0]), bool(runs_backward(captured))
    of = {
        "hidden_gradient": first.values.reshape(*first.shape[:2], -1),
        "valid": valid_steps(captured).values,
    }
    last = _at_last_step(of, backward=backward)
    back = np.zeros((len(last), jacobians.shape[-1]), jacobians.dtype)
    back[:, : last.shape[-1]] = last
    order = slice(None, None, -1 if backward else 1)
    # Masked steps have the identity, and what stands after the last valid step gets no gradient.
    reached = np.logical_or.accumulate(of["valid"][:, order][:, ::-1], axis=1)[:, ::-1][:, order]
    found = np.empty(jacobians.shape[:3], jacobians.dtype)
    for step in range(found.shape[1])[order][::-1]:
        found[:, step] = back * reached[:, step, None]
        back = np.einsum("si,sij->sj", back, jacobians[:, step])
    sizes = [int(np.prod(captured[name].shape[2:])) for name in names if name in captured]
    parts = np.split(found, np.cumsum(sizes)[:-1], axis=2)
    shaped = {name: part.reshape(captured[name].shape) for name, part in zip(names, parts, strict=True)}
    return captured.assign({name: captured[name].copy(data=values) for name, values in shaped.items()})


def solve_from_last_step(
    of: Values, attributes: Mapping[Any, Any], *, backward: bool
) -> dict[str, npt.NDArray[Any]]:
    """Do the same as `from_last_step` for plain arrays of one direction whose first axis is the sample."""
    if not has_closed_form(attributes):
        raise DiagnosticError(
            f"{attributes.get('layer', 'This layer')} has no closed form: its cell or activation is not one "
            "of the standard ones."
        )
    passed = replace(
        cell_pass(of, backward=backward), final_gradients=(_at_last_step(of, backward=backward),)
    )
    return cells.solve(cells.Layer.of(of, attributes), passed, frozenset(_SOLVED))


def _at_last_step(of: Values, *, backward: bool) -> npt.NDArray[Any]:
    """dL/dh at the last processed valid step, (sample, unit); 0 if no step is valid."""
    gradient, valid = of["hidden_gradient"], np.asarray(of["valid"], dtype=bool)
    ordered = valid if backward else valid[:, ::-1]
    first = ordered.argmax(axis=1)
    place = first if backward else valid.shape[1] - 1 - first
    taken = np.take_along_axis(gradient, place[:, None, None], axis=1)[:, 0]
    return np.where(np.any(valid, axis=1, keepdims=True), taken, 0).astype(gradient.dtype)
