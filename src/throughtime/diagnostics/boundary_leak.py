"""Finds gradient that crosses a boundary between two episodes in one sequence.

Reads `carried_by_state`, the gradient that a loop carries back from call to call: across a true reset it is
exactly 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._tree import Layer, require
from throughtime.diagnostics.checks import certified

_NOT_KNOWN = (
    "boundary_leak needs a layer that a loop calls at each step with its states. {layer} is called once, so "
    "the states between its steps are hidden. Let the model call it step by step."
)


@dataclass(frozen=True)
class Leak:
    """One state of one sample through which gradient crosses a boundary.

    Attributes
    ----------
    sample : int
    time : int
        First step after the boundary.
    state : str
    norm : float
        Norm of the gradient that crosses the boundary, in units of the loss per unit of the state.
    """

    sample: int
    time: int
    state: str
    norm: float

    def __str__(self) -> str:
        return f"{self.state} of sample {self.sample} leaks into step {self.time} (‖dL/ds‖ = {self.norm:.3g})"


@takes(DiagnosticError)
def boundary_leak(layer: Layer, boundaries: Any = None) -> list[Leak]:
    """Find the episode boundaries that gradient crosses, by sample, step and state.

    Parameters
    ----------
    layer : one layer of a capture of a torch model that calls it in a loop
        It has `reset` and `carried_by_state`.
    boundaries : array_like of bool (sample, time), optional
        True at the first step of each episode, like `episode_starts` of a rollout. The default is `reset`,
        the steps at which any state was replaced; then only a state that the reset omitted can leak.

    Returns
    -------
    list of Leak
        Sorted by sample and step; empty if no boundary leaks. Step 0 has no step before it.

    Raises
    ------
    DiagnosticError
        `boundaries` has another shape, the layer is called only once, or its certificate exceeds the limit.
    SchemaError
        The capture has no gradients.

    Examples
    --------
    >>> carried = np.array([[[0.5, 0.2], [0.0, 0.3], [0.0, 0.0]]])
    >>> leaf = xr.Dataset(
    ...     {
    ...         "carried_by_state": (("sample", "time", "state"), carried),
    ...         "reset": (("sample", "time"), [[False, False, True]]),
    ...     },
    ...     coords={"state": ["hidden", "cell"]},
    ... )
    >>> print(*boundary_leak(leaf))
    cell of sample 0 leaks into step 2 (‖dL/ds‖ = 0.3)
    """
    captured = certified(layer)
    if "carried_by_state" not in captured and "reset" not in captured and "hidden_gradient" in captured:
        name = str(captured.attrs.get("layer", "this layer")).strip("/")
        raise DiagnosticError(_NOT_KNOWN.format(layer=name))
    carried = require(captured, "carried_by_state").transpose("sample", "time", "state")
    starts = _starts(require(captured, "reset") if boundaries is None else boundaries, carried)
    crossing = np.asarray(carried)[:, :-1]
    leaks = np.argwhere(starts[:, 1:, None] & (crossing != 0))
    names = [str(name) for name in carried["state"].values]
    return [Leak(int(b), int(t) + 1, names[s], float(crossing[b, t, s])) for b, t, s in leaks]


def _starts(boundaries: Any, carried: xr.DataArray) -> npt.NDArray[np.bool_]:
    if isinstance(boundaries, xr.DataArray):
        boundaries = boundaries.transpose("sample", "time")
    starts = np.asarray(boundaries)
    if starts.shape != carried.shape[:2] or starts.dtype.kind not in "biuf":
        samples, steps = carried.shape[:2]
        raise DiagnosticError(
            f"boundaries has shape {starts.shape} and dtype {starts.dtype}; expected one bool per step, "
            f"(sample, time) = ({samples}, {steps}). Transpose an array whose first axis is time: "
            "episode_starts.T."
        )
    return starts.astype(bool)
