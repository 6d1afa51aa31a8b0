"""Gradient that crosses the boundary between two episodes of one sequence."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

import throughtime as tt
from throughtime._errors import DiagnosticError, VerdictError
from throughtime.diagnostics.boundary_leak import Leak, boundary_leak

_MOST = 10  # leaks in a message


def assert_no_leak(
    model: Any, x: Any, y: Any = None, *, boundaries: Any, layers: Any = "recurrent", **options: Any
) -> None:
    """Fail if the loss of an episode depends on states of the episode before.

    In a torch model that calls its layer in a loop, this is the gradient handed from step to step. In every
    other model it is the gradient of each step's loss with respect to the states across the boundary, for
    which the loss needs a value at every step.

    Parameters
    ----------
    model, x, y, layers, **options
        See `capture`.
    boundaries : array_like of bool (sample, time), or sequence of int
        True at the first step of each episode, as `episode_starts` of a rollout; or the timesteps at which an
        episode starts in every sample.

    Raises
    ------
    VerdictError
        With sample, timestep, state and norm of each leak. It is an `AssertionError`.
    DiagnosticError
        `boundaries` does not fit the sequences.
    LossError
        The loss has no value at every step.

    Examples
    --------
    >>> import torch
    >>> rnn = torch.nn.RNN(2, 3, batch_first=True)
    >>> x, y = torch.randn(4, 6, 2), torch.randn(4, 6, 3)
    >>> def loss(output, y):
    ...     return (output[0] - y).square().mean(2)
    >>> assert_no_leak(rnn, x, y, loss=loss, boundaries=[3])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    throughtime._errors.VerdictError: Gradient crosses 4 boundaries: state of sample 0 leaks into step 3 ...
    """
    __tracebackhide__ = True
    tree = tt.capture(model, x, y, layers=layers, **options)
    steps_known = [leaf.to_dataset() for leaf in tree.leaves if "carried_by_state" in leaf.data_vars]
    if steps_known:
        leaks = [leak for leaf in steps_known for leak in boundary_leak(leaf, _starts(boundaries, leaf))]
    else:
        matrices = tt.lag_matrix(model, x, y, layers=layers, **options)
        leaks = [leak for leaf in matrices.leaves for leak in _find_leaks(leaf.to_dataset(), boundaries)]
    if leaks:
        more = f"; and {len(leaks) - _MOST} more" if len(leaks) > _MOST else ""
        words = "; ".join(map(str, leaks[:_MOST]))
        raise VerdictError(
            f"Gradient crosses {len(leaks)} boundar{'y' if len(leaks) == 1 else 'ies'}: {words}{more}."
        )


def _starts(boundaries: Any, leaf: xr.Dataset) -> npt.NDArray[Any]:
    """Return truth values by sample and step; `boundary_leak` refuses what does not fit."""
    starts = np.asarray(boundaries)
    if starts.ndim != 1 or starts.dtype.kind not in "iu":
        return starts
    steps = int(leaf.sizes["time"])
    if ((starts < 0) | (starts >= steps)).any():
        raise DiagnosticError(f"boundaries={starts.tolist()}: expected timesteps from 0 to {steps - 1}.")
    return np.broadcast_to(np.isin(np.arange(steps), starts), (leaf.sizes["sample"], steps))


def _find_leaks(leaf: xr.Dataset, boundaries: Any) -> Iterator[Leak]:
    """Yield where a loss on one side of a boundary has gradient for a state on the other side."""
    matrix = leaf["lag_matrix"]
    starts = _starts(boundaries, leaf)
    if starts.shape != (leaf.sizes["sample"], leaf.sizes["time"]) or starts.dtype.kind not in "biuf":
        raise DiagnosticError(
            f"boundaries has shape {starts.shape}; expected one truth value a step, (sample, time) = "
            f"({leaf.sizes['sample']}, {leaf.sizes['time']}), or timesteps."
        )
    ways = matrix["direction"].values if "direction" in matrix.dims else (None,)
    losses = np.asarray(matrix["loss_time"] if "loss_time" in matrix.coords else np.arange(starts.shape[1]))
    for way in ways:
        part = matrix if way is None else matrix.sel(direction=way)
        values = part.transpose("sample", "loss_time", "time").values
        for sample, start in np.argwhere(starts[:, 1:]) + np.array([0, 1]):  # nothing comes before step 0
            behind = losses >= start
            is_backward = way == "backward"  # its states carry what comes later
            norms = values[sample, ~behind, start] if is_backward else values[sample, behind, start - 1]
            if (norms > 0).any():
                state = f"{way} state" if way else "state"
                yield Leak(int(sample), int(start), state, float(norms.max()))
