"""Converts the weights of a captured layer from the schema's layout to that of a framework."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._errors import SchemaError, UnsupportedModelError
from throughtime._inputs import takes
from throughtime._inputs.rules import whole
from throughtime._tree import Layer, require
from throughtime._tree import layer as layer_of
from throughtime.adapters.axes import GATE_ORDER

Array = npt.NDArray[np.floating]


@takes(SchemaError)
def keras_weights(layer: Layer) -> list[Array]:
    """Return a captured layer's weights for `layer.set_weights` of Keras 3, tf_keras and Keras 2.

    Parameters
    ----------
    layer : xarray.DataTree, Dataset
        A captured LSTM, GRU or SimpleRNN with its weights.

    Returns
    -------
    list of ndarray
        Kernel (feature, gate · unit), recurrent kernel (unit, gate · unit) and bias, if present; the forward
        direction is first. The second bias of a torch LSTM or RNN is added to the first, which is equivalent.

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
    """Return a captured layer's weights for the `state_dict` of torch's nn.RNN, nn.LSTM or nn.GRU.

    Parameters
    ----------
    layer : xarray.DataTree, Dataset
        See `keras_weights`.
    number : int
        Index of the layer in the module: the k of `weight_ih_lk`.

    Returns
    -------
    dict of str to ndarray
        Pass them to `load_state_dict` after `torch.as_tensor`. If the layer has one bias, the second is 0.

    Raises
    ------
    SchemaError
        The capture has no weights, or the layer is of another kind.
    UnsupportedModelError
        The layer is a GRU with `reset_after=False`, which torch lacks.

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
            "torch's GRU applies the reset gate after the matrix product. A GRU with reset_after=False "
            "cannot be converted to torch."
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
    """Yield the kind and the weights of each direction in the schema's layout, forward first."""
    kind = layer.attrs.get("kind")
    if kind not in GATE_ORDER:
        raise SchemaError(f"Weights are converted for {', '.join(GATE_ORDER)}, not for {kind!r}.")
    for name in ("kernel", "recurrent_kernel"):
        require(layer, name)
    names = [n for n in ("kernel", "recurrent_kernel", "bias", "recurrent_bias") if n in layer]
    for part in range(layer.sizes.get("direction", 1)):
        chosen = layer[names].isel(direction=part) if "direction" in layer["kernel"].dims else layer[names]
        yield kind, {name: np.asarray(chosen[name].values) for name in names}


def _two_biases(weights: dict[str, Array]) -> Array:
    """Stack both biases, (2, gate · unit); a missing second bias is 0."""
    bias = weights["bias"]
    return np.stack([bias, weights.get("recurrent_bias", np.zeros_like(bias))]).reshape(2, -1)


def _reset_after(layer: xr.Dataset) -> bool:
    return bool(layer.attrs.get("reset_after", 1))


def _torch_order(kind: str, array: Array) -> Array:
    """Reorder the gates, the second-to-last axis, for torch; a SimpleRNN has no such axis."""
    return array if kind == "simple_rnn" else array[..., list(GATE_ORDER[kind]), :]


def _flat(kernel: Array) -> Array:
    return kernel.reshape(len(kernel), -1)
