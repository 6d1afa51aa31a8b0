"""The certificate of a capture: the error of the closed forms relative to the framework's autodiff.

It has two parts, because a sum over time cannot detect a wrong order of time: one compares the gradients of
the weights, the other the gradient of the input step by step. `nan` stands for "not defined", `inf` for
values that are not finite.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .layer import Floats
from .scan import blocks
from .steps import squared_norm

_ROUNDINGS = 4  # roundings of a term: of the gradient, the slope, their product, the sum


class Precision(NamedTuple):
    """Both levels of the certificate, the spacing of numbers at 1, and the smallest with all digits."""

    bar: float
    limit: float
    epsilon: float
    smallest_normal: float


# Above the bar rounding is unusually large, as in chaotic networks, which amplify it. The limit is the error
# that could change an answer: thresholds are 1e-2, and in half precision, where the framework's own gradients
# are off by as much as the bar, sizes are read in decades.
PRECISIONS = {
    "float64": Precision(1e-12, 1e-6, 2.0**-52, 2.0**-1022),
    "float32": Precision(1e-5, 1e-3, 2.0**-23, 2.0**-126),
    "float16": Precision(1e-2, 1e-1, 2.0**-10, 2.0**-14),
    "bfloat16": Precision(5e-2, 2e-1, 2.0**-7, 2.0**-126),
}


def bar(dtype: object) -> float:
    """Return the error up to which a certificate passes without a note, by dtype: 1e-05 in float32."""
    return _precision(dtype).bar


def limit(dtype: object) -> float:
    """Return the error above which diagnostics refuse a layer; between `bar` and this they add a note."""
    return _precision(dtype).limit


def certificate_weights(
    computed: Mapping[str, Floats],
    autodiff: Mapping[str, Floats],
    *,
    terms: Mapping[str, float] | None = None,
    dtype: object = None,
) -> float:
    """Return the largest relative error of the gradient of a weight; names that both have are compared.

    max over weights of ‖Σ_t dW_(t) − dL/dW‖ / max(‖dL/dW‖, (4·eps/bar)·terms); `nan` if every gradient is 0
    on both sides. `terms` are `summed_terms`: with this floor, the rounding of terms that cancel, as near an
    optimum, reaches at most the bar. `dtype` is that of the layer, by default of the autodiff gradients.
    """
    errors = []
    for name in computed.keys() & autodiff.keys():
        ours, theirs = np.asarray(computed[name]), np.asarray(autodiff[name])
        if not _comparable(ours, theirs):
            errors.append(np.inf)
        elif ours.any() or theirs.any():
            precision = _precision(autodiff[name].dtype if dtype is None else dtype)
            floor = _ROUNDINGS * precision.epsilon / precision.bar * (terms or {}).get(name, 0.0)
            error, size = _error_and_size(ours, theirs)
            errors.append(_ratio(error, max(size, floor)))
    return max(errors, default=np.nan)


def step_sizes(gate_gradient: Floats, *state_gradients: Floats | None) -> Floats:
    """Return the size (sample, time) that determines rounding at each step: of dz_t, or of state gradients.

    dz_t is a state's gradient times a slope such as σ(1 − σ). Near the ends of a gate's range the difference
    cancels, and its rounding is that of the state gradient, however small dz_t is. Gradients are (sample,
    time, …).
    """
    sizes = [_sizes(gradient) for gradient in state_gradients if gradient is not None]
    states: Floats = np.sqrt(sum(map(np.square, sizes), start=np.zeros(gate_gradient.shape[:2])))
    return np.maximum(_sizes(gate_gradient), states)


@np.errstate(invalid="ignore", over="ignore")  # values that are not finite remain
def summed_terms(
    sizes: Floats, contribution: Floats, hidden_before: Floats, inputs: Floats
) -> dict[str, float]:
    """Return Σ over samples and steps of the size of each term of a weight gradient, by its name.

    `sizes` (sample, time) are those of `step_sizes`, `contribution` (sample, time) is ‖dU_(t)‖ =
    ‖h_{t-1}‖·‖dz_t‖, `hidden_before` (sample, time, [gate,] unit) is h_{t-1}, and inputs are (sample, time,
    feature).
    """
    bias = float(sizes.sum())
    return {
        "recurrent_kernel_gradient": float(np.maximum(contribution, sizes * _sizes(hidden_before)).sum()),
        "kernel_gradient": float((sizes * _sizes(inputs)).sum()),
        "bias_gradient": bias,
        "recurrent_bias_gradient": bias,
    }


def states_before(hidden: Floats, *, runs_backward: bool) -> Floats:
    """Shift each state to the step that reads it; 0 at the first one."""
    before = np.zeros_like(hidden)
    made, read = (slice(1, None), slice(-1)) if runs_backward else (slice(-1), slice(1, None))
    before[:, read] = hidden[:, made]
    return before


def input_terms(sizes: Floats, kernel: Floats) -> float:
    """Return the largest size of the terms in dL/dx_t = dz_t·Wᵀ at any step, with sizes of `step_sizes`.

    The step with the largest terms rounds most, and hands its rounding to the steps before it: in a saturated
    cell, 1 − tanh²(c) has no correct digits, and a forget gate of 1 passes this error on.
    """
    return float(np.sqrt(np.square(sizes).sum(0).max(initial=0) * np.square(kernel).sum()))


def _sizes(values: Floats) -> Floats:
    squares = squared_norm(values)
    sizes: Floats = np.sqrt(squares.reshape(*squares.shape[:2], -1).sum(-1, dtype=np.float64))
    return sizes


def certificate_time(
    computed: Floats, autodiff: Floats, *, terms: float = 0.0, dtype: object = None
) -> float:
    """Return the largest relative error of the input gradient at one step; it detects a wrong order of time.

    max over t of ‖computed_t − autodiff_t‖ / max(‖autodiff_t‖, eps·max_t‖autodiff_t‖, (4·eps/bar)·terms),
    norms over samples and features; `nan` if both are 0 at every step. Each step is compared with its size,
    so that vanishing steps count as well; a step below the rounding of the largest is compared with that.
    The last floor, of `input_terms`, limits to the bar the rounding of terms that cancel, and what is handed
    back of it along directions in which the gradient itself decays faster; with it, errors below 4·eps·terms
    pass at any step.
    """
    ours, theirs = np.asarray(computed), np.asarray(autodiff)
    if not _comparable(ours, theirs):
        return np.inf
    largest = _largest(theirs) or _largest(ours)
    if largest == 0.0:
        return np.nan
    runs = list(blocks(theirs.shape[1], theirs[:, :1].nbytes))
    sizes = np.concatenate([_norms(theirs[:, run], largest) for run in runs])
    errors = np.concatenate([_norms(ours[:, run] - theirs[:, run], largest) for run in runs])
    precision = _precision(autodiff.dtype if dtype is None else dtype)
    rounding = _ROUNDINGS * precision.epsilon
    least = max(precision.epsilon * sizes.max(), rounding / precision.bar * terms / largest)
    floor = np.maximum(sizes, least)
    unlike = np.where(errors > 0, np.inf, 0.0)
    return float(np.divide(errors, floor, out=unlike, where=floor > 0).max())


def _comparable(ours: Floats, theirs: Floats) -> bool:
    return ours.shape == theirs.shape and bool(np.isfinite(ours).all() and np.isfinite(theirs).all())


def _largest(values: Floats) -> float:
    return float(max(values.max(initial=0), -values.min(initial=0)))


def _norms(values: Floats, scale: float) -> Floats:
    """Return the norm at each step in units of `scale`: squares of small numbers would underflow."""
    scaled = (values / values.dtype.type(scale)).reshape(*values.shape[:2], -1)
    norms: Floats = np.sqrt(np.einsum("stf,stf->t", scaled, scaled))
    return norms


def _error_and_size(ours: Floats, theirs: Floats) -> tuple[float, float]:
    wide = np.asarray(theirs, np.float64)
    # Not numpy.linalg.norm: its threaded product leaves BLAS' pool spinning beside the next scan.
    return math.sqrt(np.square(ours - wide).sum()), math.sqrt(np.square(wide).sum())


def _ratio(error: float, size: float) -> float:
    if size == 0.0:
        return np.inf if error else 0.0
    return error / size


def _precision(dtype: object) -> Precision:
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name  # type: ignore[call-overload]
    return PRECISIONS[name]
