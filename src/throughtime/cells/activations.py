"""Activation functions by Keras' names, each with its derivative in terms of its value.

The replay therefore overwrites pre-activations. Functions whose value does not determine the derivative
(SiLU, GELU, Mish) or which mix units (softmax) are absent; their layers use autodiff.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from throughtime._errors import UnsupportedModelError

from .layer import Floats


@dataclass(frozen=True)
class Activation:
    """`value` takes the pre-activation, `slope` the value; both keep shape and dtype."""

    value: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]


# Klambauer et al. 2017, Self-normalizing neural networks (1706.02515), §2.
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def _sigmoid(z: Floats, out: Floats | None = None) -> Floats:
    # Not ½ + ½ tanh(z/2), whose error is relative to 1: products of nearly closed gates need all digits.
    # Times -1, because NumPy 2.4 negates strided float32 wrongly in place.
    with np.errstate(over="ignore"):  # exp(-z) is infinite where σ(z) is 0
        value: Floats = np.exp(np.multiply(z, -1, out=out), out=out)
    return np.divide(1, np.add(value, 1, out=out), out=out)


def _between(low: float, high: float, slope: float = 1.0) -> Callable[[Floats], Floats]:
    return lambda y: ((y > low) & (y < high)).astype(y.dtype) * slope


def _elu(z: Floats) -> Floats:
    value: Floats = np.where(z > 0, z, np.expm1(np.minimum(z, 0)))
    return value


def _softplus(z: Floats) -> Floats:
    value: Floats = np.logaddexp(0, z)
    return value


def _selu_slope(y: Floats) -> Floats:
    slope: Floats = np.where(y > 0, _SELU_SCALE, y + _SELU_SCALE * _SELU_ALPHA)
    return slope


def _shrink_slope(y: Floats) -> Floats:
    slope: Floats = (y != 0).astype(y.dtype)
    return slope


_TABLE = {
    "linear": Activation(lambda z: z, np.ones_like),
    "tanh": Activation(np.tanh, lambda y: 1 - y * y),
    "sigmoid": Activation(_sigmoid, lambda y: y * (1 - y)),
    "relu": Activation(lambda z: np.maximum(z, 0), _between(0, np.inf)),
    "relu6": Activation(lambda z: np.clip(z, 0, 6), _between(0, 6)),
    "leaky_relu": Activation(lambda z: np.maximum(z, 0.2 * z), lambda y: np.where(y > 0, 1, 0 * y + 0.2)),
    "elu": Activation(_elu, lambda y: np.where(y > 0, 1, y + 1)),
    "celu": Activation(_elu, lambda y: np.where(y > 0, 1, y + 1)),
    "selu": Activation(
        lambda z: _SELU_SCALE * np.where(z > 0, z, _SELU_ALPHA * np.expm1(np.minimum(z, 0))), _selu_slope
    ),
    "softplus": Activation(_softplus, lambda y: -np.expm1(-y)),
    "softsign": Activation(lambda z: z / (1 + np.abs(z)), lambda y: np.square(1 - np.abs(y))),
    "squareplus": Activation(lambda z: 0.5 * (z + np.sqrt(z * z + 4)), lambda y: y * y / (y * y + 1)),
    "sparse_plus": Activation(
        lambda z: np.where(z < 1, 0.25 * np.square(np.maximum(z, -1) + 1), z),
        lambda y: np.minimum(np.sqrt(y), 1),
    ),
    "exponential": Activation(np.exp, lambda y: y),
    "hard_sigmoid": Activation(lambda z: np.clip(z + 3, 0, 6) / 6, _between(0, 1, 1 / 6)),
    "hard_tanh": Activation(lambda z: np.clip(z, -1, 1), _between(-1, 1)),
    "sparse_sigmoid": Activation(lambda z: np.clip(0.5 * (z + 1), 0, 1), _between(0, 1, 0.5)),
    "log_sigmoid": Activation(lambda z: -_softplus(-z), lambda y: -np.expm1(y)),
    "soft_shrink": Activation(lambda z: z - np.clip(z, -0.5, 0.5), _shrink_slope),
    "hard_shrink": Activation(lambda z: np.where(np.abs(z) > 0.5, z, 0), _shrink_slope),
}
ACTIVATIONS = tuple(_TABLE)


def activation(name: str) -> Activation | None:
    """Return an activation by Keras' name; None without a closed form."""
    return _TABLE.get(name)


def required_activation(name: str) -> Activation:
    """Return an activation; UnsupportedModelError lists those that have a closed form."""
    found = activation(name)
    if found is None:
        raise UnsupportedModelError(
            f"No closed-form adjoint for the activation {name!r}. There is one for: {', '.join(ACTIVATIONS)}."
        )
    return found


def activate(columns: Floats, names: Sequence[str]) -> None:
    """Apply one activation per gate to columns (…, gate, unit), in place."""
    for name, gates in _runs(names):
        run = columns[..., gates, :]
        if name == "sigmoid":
            _sigmoid(run, out=run)
        elif name == "tanh":
            np.tanh(run, out=run)
        else:
            run[...] = required_activation(name).value(run)


def slopes(columns: Floats, names: Sequence[str], out: Floats) -> None:
    """Write the derivative of one activation per gate, from activated values (…, gate, unit)."""
    for name, gates in _runs(names):
        value, slope = columns[..., gates, :], out[..., gates, :]
        if name == "sigmoid":
            np.subtract(1, value, out=slope)
            slope *= value
        elif name == "tanh":
            np.multiply(value, value, out=slope)
            np.subtract(1, slope, out=slope)
        else:
            slope[...] = required_activation(name).slope(value)


def _runs(names: Sequence[str]) -> list[tuple[str, slice]]:
    runs = [(name, list(run)) for name, run in groupby(range(len(names)), names.__getitem__)]
    return [(name, slice(run[0], run[-1] + 1)) for name, run in runs]
