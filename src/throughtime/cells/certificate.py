"""The certificate of a capture: what the closed forms give must be what the framework's autodiff gives.

Two parts, because a sum over time cannot see a wrong order of time: one compares the weights' gradients,
one the input's gradient step by step. `nan` stands for "not defined", `inf` for values that are not finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from .layer import Floats
from .scan import blocks
from .steps import squared_norm

# Largest admissible error, and the spacing of numbers at 1. Half-precision frameworks' own gradients are
# off by as much as these bars.
_PRECISIONS = {
    "float64": (1e-12, 2.0**-52),
    "float32": (1e-5, 2.0**-23),
    "float16": (1e-2, 2.0**-10),
    "bfloat16": (5e-2, 2.0**-7),
}


def bar(dtype: object) -> float:
    """Error up to which a certificate passes, for a layer that computes in this precision.

    Parameters
    ----------
    dtype : dtype or str
        `float64`, `float32`, `float16` or `bfloat16`.

    Returns
    -------
    float

    Examples
    --------
    >>> bar("float32")
    1e-05
    """
    return _precision(dtype)[0]


def certificate_weights(
    computed: Mapping[str, Floats],
    autodiff: Mapping[str, Floats],
    *,
    terms: Mapping[str, float] | None = None,
    dtype: object = None,
) -> float:
    """Largest relative error of a weight's gradient.

    Parameters
    ----------
    computed, autodiff : mapping of str to ndarray
        Gradients by name; the names that both have are compared.
    terms : mapping of str to float, optional
        Σ_t‖dW_(t)‖ by name, see `summed_terms`: terms much larger than their sum leave rounding behind,
        which is no error.
    dtype : dtype or str, optional
        Precision of the layer; by default that of the autodiff gradients.

    Returns
    -------
    float
        max over weights of ‖Σ_t dW_(t) − dL/dW‖ / max(‖dL/dW‖, (eps/bar)·Σ_t‖dW_(t)‖); `nan` where
        every gradient is 0 on both sides. The floor lets the rounding of terms that cancel, as they do
        near an optimum, reach the bar and not more.
    """
    errors = []
    for name in computed.keys() & autodiff.keys():
        ours, theirs = np.asarray(computed[name]), np.asarray(autodiff[name])
        if not _comparable(ours, theirs):
            errors.append(np.inf)
        elif ours.any() or theirs.any():
            largest, epsilon = _precision(autodiff[name].dtype if dtype is None else dtype)
            floor = epsilon / largest * (terms or {}).get(name, 0.0)
            error, size = _norms_by_rows(ours, theirs)
            errors.append(_ratio(error, max(size, floor)))
    return max(errors, default=np.nan)


def summed_terms(contribution: Floats, hidden_before: Floats, inputs: Floats) -> dict[str, float]:
    """Σ over samples and steps of the size of each term of a weight's gradient.

    Parameters
    ----------
    contribution : ndarray (sample, time)
        ‖dU_(t)‖ = ‖h_{t-1}‖·‖dz_t‖.
    hidden_before : ndarray (sample, time, unit)
    inputs : ndarray (sample, time, feature)

    Returns
    -------
    dict of str to float
        By gradient. Kernel and biases have the terms ‖x_t‖·‖dz_t‖ and ‖dz_t‖; steps from h = 0, which
        tell nothing of dz here, are left out: a floor that is a little too strict.

    Examples
    --------
    >>> import numpy as np
    >>> summed_terms(np.full((1, 2), 6.0), np.full((1, 2, 1), 0.5), np.ones((1, 2, 1)))["bias_gradient"]
    24.0
    """
    before, entering = (np.sqrt(squared_norm(values)) for values in (hidden_before, inputs))
    sizes = np.divide(contribution, before, out=np.zeros_like(before), where=before > 0)
    bias = float(sizes.sum())
    return {
        "recurrent_kernel_gradient": float(np.sum(contribution, dtype=np.float64)),
        "kernel_gradient": float((sizes * entering).sum()),
        "bias_gradient": bias,
        "recurrent_bias_gradient": bias,
    }


def certificate_time(computed: Floats, autodiff: Floats, *, dtype: object = None) -> float:
    """Largest relative error of the input's gradient at one step: sees a shifted or flipped time.

    Parameters
    ----------
    computed, autodiff : ndarray (sample, time, …)
    dtype : dtype or str, optional
        Precision of the layer; by default that of the autodiff gradient.

    Returns
    -------
    float
        max over t of ‖computed_t − autodiff_t‖ / max(‖autodiff_t‖, eps·max_t‖autodiff_t‖), norms over
        samples and features. Each step is judged by its own size, so vanishing steps count as well; one
        below the rounding of the largest is judged by that. `nan` where both are 0 at every step.
    """
    ours, theirs = np.asarray(computed), np.asarray(autodiff)
    if not _comparable(ours, theirs):
        return np.inf
    largest = float(max(theirs.max(initial=0), -theirs.min(initial=0)))
    if largest == 0.0 and not ours.any():
        return np.nan
    runs = list(blocks(theirs.shape[1], theirs[:, :1].nbytes))
    sizes = np.concatenate([_norms(theirs[:, run], largest) for run in runs])
    errors = np.concatenate([_norms(ours[:, run] - theirs[:, run], largest) for run in runs])
    floor = _precision(autodiff.dtype if dtype is None else dtype)[1] * sizes.max()
    return max(map(_ratio, errors.tolist(), np.maximum(sizes, floor).tolist()))


def _comparable(ours: Floats, theirs: Floats) -> bool:
    return ours.shape == theirs.shape and bool(np.isfinite(ours).all() and np.isfinite(theirs).all())


def _norms(values: Floats, scale: float) -> Floats:
    """Norm at each step, in units of `scale`: the squares of small numbers would underflow."""
    scaled = (values / values.dtype.type(scale or 1.0)).reshape(*values.shape[:2], -1)
    norms: Floats = np.sqrt(np.einsum("stf,stf->t", scaled, scaled))
    return norms


def _norms_by_rows(ours: Floats, theirs: Floats) -> tuple[float, float]:
    """‖ours − theirs‖ and ‖theirs‖ in float64, a few rows at a time: large weights are never copied whole."""
    error = size = 0.0
    for run in blocks(len(theirs), theirs[:1].nbytes):
        wide = np.asarray(theirs[run], np.float64)
        # Not numpy.linalg.norm: its threaded product leaves BLAS' pool spinning beside the next scan.
        error += float(np.square(ours[run] - wide).sum())
        size += float(np.square(wide).sum())
    return math.sqrt(error), math.sqrt(size)


def _ratio(error: float, size: float) -> float:
    """Return error ÷ size, infinite for an error where there should be nothing."""
    if size == 0.0:
        return np.inf if error else 0.0
    return error / size


def _precision(dtype: object) -> tuple[float, float]:
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name  # type: ignore[call-overload]
    return _PRECISIONS[name]
