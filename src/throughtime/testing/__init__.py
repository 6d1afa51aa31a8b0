"""Captured layers with known answers, made from closed forms: no framework, no random numbers.

Each function returns a tree like a capture, with one leaf, `/rnn`. The diagnostics and the plots are tested
on these trees, and you can test your code on them as well. All take the number of samples, steps and units;
`rate` is the factor of the gradient for each step back. `keras_weights` and `torch_weights` convert the
weights of a captured layer for another framework.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from throughtime._inputs import takes
from throughtime._inputs.rules import choice, several, whole
from throughtime._vocabulary import DIRECTIONS
from throughtime.testing._closed_forms import (
    captured_tree,
    direction_of_loss,
    join_directions,
    linear_gradients,
    linear_rnn,
    mirror,
    unit_vectors,
)
from throughtime.testing._gated import constant_gates, nonfinite, saturated_gates
from throughtime.testing._weight_layouts import keras_weights, torch_weights

__all__ = [
    "bidirectional", "constant_gates", "decaying", "exploding", "keras_weights",
    "lag_matrix_of", "nonfinite", "perfect_memory", "saturated_gates", "torch_weights", "with_masks",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__


@takes(direction=choice(*DIRECTIONS), dtype=choice("float64", "float32", "float16"))
def decaying(
    rate: float | Sequence[float] = 0.5,
    *,
    samples: int = 1,
    steps: int = 50,
    units: int = 4,
    direction: str | None = None,
    dtype: str = "float64",
) -> xr.DataTree:
    """Linear RNN, h_t = x_t + rate·h_{t−1}, whose loss reads the last step: ‖dL/dh_t‖ = rate^lag.

    Its states have norm 1, so the step contribution is rate^lag as well, and 0 at the first step.

    Parameters
    ----------
    rate : float, or one per sample
        Factor of the gradient for each step back. The recurrent kernel holds the first one.
    samples, steps, units : int
        Sizes; several rates give one sample each.
    direction : None, "forward" or "backward"
        "backward" stands for `go_backwards=True`: the layer processes the last step of the input first.
    dtype : str
        Format of all arrays.

    Examples
    --------
    >>> leaf = decaying(rate=0.5)["rnn"].to_dataset()
    >>> leaf["hidden_gradient"].isel(sample=0, unit=0).values[-3:] * 2
    array([0.25, 0.5 , 1.  ])
    """
    rates = np.broadcast_to(np.atleast_1d(np.asarray(rate, dtype=float)), max(samples, np.size(rate)))
    arrays = linear_rnn(rates, np.ones((len(rates), steps), dtype=bool), units)
    backward = direction == "backward"
    if backward:
        arrays = mirror(arrays)
    return captured_tree("simple_rnn", arrays, dtype=dtype, go_backwards=int(backward))


@takes()
def perfect_memory(*, samples: int = 1, steps: int = 50, units: int = 4) -> xr.DataTree:
    """Linear RNN with U = I: the gradient is the same at every lag.

    Examples
    --------
    >>> leaf = perfect_memory()["rnn"].to_dataset()
    >>> bool((leaf["hidden_gradient"] == 0.5).all())
    True
    """
    return decaying(1.0, samples=samples, steps=steps, units=units)


@takes()
def exploding(rate: float = 1.5, *, samples: int = 1, steps: int = 50, units: int = 4) -> xr.DataTree:
    """Linear RNN with U = rate·I: the gradient grows by `rate` at every step back.

    Examples
    --------
    >>> leaf = exploding()["rnn"].to_dataset()
    >>> leaf["hidden_gradient"].isel(sample=0, unit=0).values[-3:] * 2
    array([2.25, 1.5 , 1.  ])
    """
    return decaying(rate, samples=samples, steps=steps, units=units)


@takes(lengths=several(whole(0), least=1), padding=choice("after", "before"))
def with_masks(
    lengths: Sequence[int] = (50, 20, 1, 0),
    *,
    rate: float = 0.5,
    steps: int = 50,
    units: int = 4,
    padding: str = "after",
) -> xr.DataTree:
    """`decaying` on padded sequences, with a number of valid steps for each sample.

    Parameters
    ----------
    lengths : sequence of int
        Number of valid steps of each sample; 0 for a sample that is all padding.
    rate, steps, units
        See `decaying`.
    padding : "after" or "before"
        Position of the masked steps relative to the valid ones.

    Examples
    --------
    >>> with_masks(lengths=[3, 1], steps=4)["rnn"]["valid"].values.astype(int)
    array([[1, 1, 1, 0],
           [1, 0, 0, 0]])
    """
    valid = np.arange(steps) < np.asarray(lengths)[:, None]
    if padding == "before":
        valid = valid[:, ::-1]
    return captured_tree("simple_rnn", linear_rnn(np.full(len(lengths), rate), valid, units))


@takes()
def bidirectional(
    rates: tuple[float, float] = (0.5, 0.9), *, samples: int = 1, steps: int = 50, units: int = 4
) -> xr.DataTree:
    """Two linear RNNs on one input, forward and backward, each with its own rate.

    The backward half ends at the first step of the input, so its lags count from there.

    Examples
    --------
    >>> leaf = bidirectional()["rnn"].to_dataset()
    >>> leaf["hidden_gradient"].sel(direction="backward").isel(sample=0, unit=0).values[:2] * 2
    array([1. , 0.9])
    """
    valid = np.ones((samples, steps), dtype=bool)
    inputs = unit_vectors(samples, steps, units)
    forward = linear_rnn(np.full(samples, rates[0]), valid, units, inputs=inputs)
    backward = mirror(linear_rnn(np.full(samples, rates[1]), valid, units, inputs=inputs[:, ::-1]))
    arrays = {
        name: join_directions(name, values, backward[name])
        for name, values in forward.items()
        if name not in ("input", "valid")
    }
    both = {"input": inputs, "valid": valid, **arrays}
    return captured_tree("simple_rnn", both, directed=True, merge_mode="concat")


@takes(direction=choice(*DIRECTIONS))
def lag_matrix_of(
    rate: float = 0.8, *, samples: int = 1, steps: int = 50, units: int = 4, direction: str | None = None
) -> xr.DataTree:
    """Linear RNN with a loss at every step: Λ[s, t] = rate^(s − t), and 0 for s < t.

    Its total gradient is nearly flat although its memory is short.

    Examples
    --------
    >>> lag_matrix_of(0.5, steps=3)["rnn"]["lag_matrix"].values[0]
    array([[1.  , 0.  , 0.  ],
           [0.5 , 1.  , 0.  ],
           [0.25, 0.5 , 1.  ]])
    """
    arrays = linear_rnn(np.full(samples, rate), np.ones((samples, steps), dtype=bool), units)
    lag = np.arange(steps)[:, None] - np.arange(steps)
    matrix = np.where(lag >= 0, float(rate) ** np.maximum(lag, 0), 0.0)
    # Σ_s of the columns, all along one vector v: dL/dh_t = v·Σ_s Λ[s, t].
    gradient = np.broadcast_to(
        matrix.sum(axis=0)[:, None] * direction_of_loss(units), (samples, steps, units)
    )
    arrays |= linear_gradients(arrays["input"], arrays["hidden"], gradient, arrays["valid"])
    arrays["lag_matrix"] = np.broadcast_to(matrix, (samples, steps, steps))
    arrays["output"] = arrays["hidden"]
    arrays["output_gradient"] = np.broadcast_to(direction_of_loss(units), gradient.shape)
    if direction == "backward":
        arrays = mirror(arrays)
    return captured_tree("simple_rnn", arrays, go_backwards=int(direction == "backward"))
