"""The gates of one step of each cell, for any leading axes: the equations as papers have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from throughtime.cells.activations import required_activation
from throughtime.cells.layer import Floats, Layer


@dataclass(frozen=True)
class Step:
    """One step: leading axes (…, sample), `hidden_before` is h_{t-1}, `cell` is c_t."""

    inputs: Floats
    hidden_before: Floats
    cell_before: Floats | None = None
    cell: Floats | None = None


def kind_of(layer: Layer) -> str:
    return "gru_reset_before" if layer.kind == "gru" and not layer.reset_after else layer.kind


def gates_of(layer: Layer, step: Step) -> Floats:
    """Activated gates, (…, gate, unit)."""
    return _GATES[kind_of(layer)](layer, step)


def _pre_activation(layer: Layer, step: Step) -> Floats:
    """Compute z = x W + h U + b, (…, gate, unit)."""
    z: Floats = np.tensordot(step.inputs, layer.kernel, 1)
    z = z + np.tensordot(step.hidden_before, layer.recurrent_kernel, 1)
    for added in (layer.bias, layer.recurrent_bias):
        z = z if added is None else z + added
    return z


def _simple_rnn(layer: Layer, step: Step) -> Floats:
    return required_activation(layer.activation).value(_pre_activation(layer, step))


def _lstm(layer: Layer, step: Step) -> Floats:
    """i, f, g, o."""
    sigma, phi = required_activation(layer.recurrent_activation), required_activation(layer.activation)
    i, f, g, o = np.moveaxis(_pre_activation(layer, step), -2, 0)
    return np.stack([sigma.value(i), sigma.value(f), phi.value(g), sigma.value(o)], axis=-2)


def gru_products(layer: Layer, step: Step) -> tuple[Floats, Floats]:
    """z, r, ĥ (…, 3, unit) and q (…, unit)."""
    input_side: Floats = np.tensordot(step.inputs, layer.kernel, 1)
    recurrent_side: Floats = np.tensordot(step.hidden_before, layer.recurrent_kernel, 1)
    if layer.bias is not None:
        input_side = input_side + layer.bias
    if layer.recurrent_bias is not None:
        recurrent_side = recurrent_side + layer.recurrent_bias
    sigma, phi = required_activation(layer.recurrent_activation), required_activation(layer.activation)
    z_and_r = sigma.value(input_side[..., :2, :] + recurrent_side[..., :2, :])
    q = recurrent_side[..., 2, :]
    candidate = phi.value(input_side[..., 2, :] + z_and_r[..., 1, :] * q)
    return np.concatenate([z_and_r, candidate[..., None, :]], axis=-2), q


def _gru_reset_before(layer: Layer, step: Step) -> Floats:
    """z, r, ĥ."""
    sigma, phi = required_activation(layer.recurrent_activation), required_activation(layer.activation)
    z: Floats = np.tensordot(step.inputs, layer.kernel, 1)
    if layer.bias is not None:
        z = z + layer.bias
    before = step.hidden_before
    z_and_r = sigma.value(z[..., :2, :] + np.tensordot(before, layer.recurrent_kernel[:, :2], 1))
    reset_hidden = z_and_r[..., 1, :] * before
    candidate = phi.value(z[..., 2, :] + reset_hidden @ layer.recurrent_kernel[:, 2])
    return np.concatenate([z_and_r, candidate[..., None, :]], axis=-2)


_GATES: dict[str, Callable[[Layer, Step], Floats]] = {
    "simple_rnn": _simple_rnn,
    "lstm": _lstm,
    "gru": lambda layer, step: gru_products(layer, step)[0],
    "gru_reset_before": _gru_reset_before,
}
