"""The weights of a captured layer as another framework keeps them: the schema's layout is the hub."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._arguments import takes
from throughtime._arguments.rules import whole
from throughtime._errors import SchemaError, UnsupportedModelError
from throughtime._tree import Layer, require
from throughtime._tree import layer as layer_of

Array = npt.NDArray[np.floating]

# Where torch keeps the gates that the schema orders as i, f, c, o and z, r, h: i, f, g, o and r, z, n.
_TORCH_GATES = {"lstm": [0, 1, 2, 3], "gru": [1, 0, 2], "simple_rnn": [0]}


@takes(SchemaError)
def keras_weights(layer: Layer) -> list[Array]:
    """Give a captured layer's weights as `layer.set_weights` of Keras 3, tf_keras and Keras 2 takes them.

    Parameters
    ----------
    layer : xarray.DataTree, Dataset
        One leaf of a capture, of an LSTM, a GRU or a SimpleRNN, with its weights.

    Returns
    -------
    list of ndarray
        Kernel (feature, gate · unit), recurrent kernel (unit, gate · unit) and, where there is one, bias;
        those of the forward direction first. A second bias of an LSTM or RNN, as torch has it, is added to
        the first, where it does the same.

    Raises
    ------
    SchemaError
        The capture has no weights, or the layer is of another kind.

    Examples
    --------
    >>> from throughtime.testing import constant_gates, keras_weights
    >>> [weight.shape for weight in keras_weights(constant_gates(units=4)["rnn"])]
    [(4, 16), (4, 16), (16,)]
    """
    arrays: list[Array] = []
    layer = layer_of(layer)
    for kind, weights in _directions(layer):
        arrays += [_flat(weights["kernel"]), _flat(weights["recurrent_kernel"])]
        if "bias" in weights:
            biases = _two_biases(weights)
            arrays.append(biases if kind == "gru" and _reset_after(layer) else biases.sum(0))
    return arrays


@takes(SchemaError, number=whole(0))
def torch_weights(layer: Layer, number: int = 0) -> dict[str, Array]:
    """Give a captured layer's weights as the `state_dict` of torch's nn.RNN, nn.LSTM or nn.GRU has them.

    Parameters
    ----------
    layer : xarray.DataTree, Dataset
        As for `keras_weights`.
    number : int
        Which of the module's layers they are for: the k of `weight_ih_lk`.

    Returns
    -------
    dict of str to ndarray
        For `load_state_dict` after `torch.as_tensor`. Where the layer has one bias, the second is 0.

    Raises
    ------
    SchemaError
        The capture has no weights, or the layer is of another kind.
    UnsupportedModelError
        A GRU with `reset_after=False`, which torch does not have.

    Examples
    --------
    >>> from throughtime.testing import constant_gates, torch_weights
    >>> weights = torch_weights(constant_gates(units=4)["rnn"])
    >>> {name: weight.shape for name, weight in weights.items()}
    {'weight_ih_l0': (16, 4), 'weight_hh_l0': (16, 4), 'bias_ih_l0': (16,), 'bias_hh_l0': (16,)}
    """
    layer = layer_of(layer)
    if layer.attrs.get("kind") == "gru" and not _reset_after(layer):
        raise UnsupportedModelError(
            "torch's GRU applies the reset gate after the matrix product: this one, with reset_after=False, "
            "has no twin there."
        )
    found: dict[str, Array] = {}
    for (kind, weights), suffix in zip(_directions(layer), ("", "_reverse"), strict=False):
        ordered = {name: _torch_order(kind, array) for name, array in weights.items()}
        found[f"weight_ih_l{number}{suffix}"] = _flat(ordered["kernel"]).T
        found[f"weight_hh_l{number}{suffix}"] = _flat(ordered["recurrent_kernel"]).T
        if "bias" in ordered:
            biases = _two_biases(ordered)
            found[f"bias_ih_l{number}{suffix}"], found[f"bias_hh_l{number}{suffix}"] = biases
    return found


def _directions(layer: xr.Dataset) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield the kind and the weights of each direction, forward first, as the schema has them."""
    kind = layer.attrs.get("kind")
    if kind not in _TORCH_GATES:
        raise SchemaError(f"Weights are converted for {', '.join(_TORCH_GATES)}, not for {kind!r}.")
    for name in ("kernel", "recurrent_kernel"):
        require(layer, name)
    names = [n for n in ("kernel", "recurrent_kernel", "bias", "recurrent_bias") if n in layer]
    for part in range(layer.sizes.get("direction", 1)):
        chosen = layer[names].isel(direction=part) if "direction" in layer["kernel"].dims else layer[names]
        yield kind, {name: np.asarray(chosen[name].values) for name in names}


def _two_biases(weights: dict[str, Array]) -> Array:
    """Stack both biases, (2, gate · unit); a second one that the layer does not have is 0."""
    bias = weights["bias"]
    return np.stack([bias, weights.get("recurrent_bias", np.zeros_like(bias))]).reshape(2, -1)


def _reset_after(layer: xr.Dataset) -> bool:
    return bool(layer.attrs.get("reset_after", 1))


def _torch_order(kind: str, array: Array) -> Array:
    """Put gates, the last axis but one, into torch's order; a SimpleRNN has no such axis."""
    return array if kind == "simple_rnn" else array[..., _TORCH_GATES[kind], :]


def _flat(kernel: Array) -> Array:
    return kernel.reshape(len(kernel), -1)
