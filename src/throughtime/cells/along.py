"""The certificate's sums of outer products, along random directions and from what each step contributes.

dW = Σ_t x_tᵀ dz_t, so Rᵀ dW = Σ_t (x_t R)ᵀ dz_t for the directions R, and dx_t R = dz_t (Wᵀ R): thin products.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .contribution import on_recurrent_side
from .directions import directions
from .layer import Floats


def sums_along(
    inputs: Floats,
    hidden_before: Floats,
    gate_gradient: Floats,
    gates: Floats | None,
    *,
    kind: str,
    reset_after: bool,
) -> dict[str, Floats]:
    """Return what `weights_along` returns, from inputs (sample, time, feature) and as `step_contribution`."""
    before, recurrent = on_recurrent_side(
        hidden_before, gate_gradient, gates, kind=kind, reset_after=reset_after
    )
    own = gate_gradient[..., None, :] if kind == "simple_rnn" else gate_gradient
    found = {
        "kernel_gradient": _sum(inputs[..., None, :], own),
        "recurrent_kernel_gradient": _sum(before, recurrent),
        "bias_gradient": own.sum((0, 1)),
        "recurrent_bias_gradient": recurrent.sum((0, 1)),
    }
    return {name: sums[..., 0, :] for name, sums in found.items()} if kind == "simple_rnn" else found


def weights_along(gradients: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return kernels' gradients along the directions, (direction, [gate,] unit); biases' as they are."""
    return {
        name: np.tensordot(directions(len(gradient)), gradient, (0, 0)) if "kernel" in name else gradient
        for name, gradient in gradients.items()
    }


def inputs_along(gate_gradient: Floats, kernel: Floats, input_gradient: Floats) -> tuple[Floats, Floats]:
    """Return dL/dx (sample, time, direction): as gate gradients and the kernel give it, and the one given."""
    along = directions(len(kernel))
    dtype = _dtype(gate_gradient)
    entering = np.tensordot(kernel, along, (0, 0)).reshape(-1, along.shape[1]).astype(dtype)
    return (
        (_by_time(gate_gradient).astype(dtype, copy=False) @ entering).swapaxes(0, 1),
        (_by_time(input_gradient).astype(dtype, copy=False) @ along.astype(dtype)).swapaxes(0, 1),
    )


def _sum(left: Floats, right: Floats) -> Floats:
    """Σ over samples and steps of (left R)ᵀ right, (direction, gate, unit); `left` has all gates, or one."""
    if left.shape[2] > 1:
        each = range(left.shape[2])
        return np.concatenate([_sum(left[:, :, [k]], right[:, :, [k]]) for k in each], axis=1)
    dtype, along = _dtype(right), directions(left.shape[-1])
    thin = _by_time(left).astype(dtype, copy=False) @ along.astype(dtype)
    by_step = thin.swapaxes(1, 2) @ _by_time(right).astype(dtype, copy=False)
    found: Floats = by_step.sum(0, dtype=np.float64).reshape(-1, *right.shape[2:])
    return found


def _by_time(array: Floats) -> Floats:
    """(sample, time, …) to (time, sample, all others); no copy where an array has its steps outermost."""
    return array.swapaxes(0, 1).reshape(array.shape[1], array.shape[0], -1)


def _dtype(array: Floats) -> np.dtype[np.floating]:
    return np.promote_types(array.dtype, np.float32)  # type: ignore[return-value]
