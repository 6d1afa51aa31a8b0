"""Closed forms for `testing`: states and gradients of recurrences with known answers.

Functions return plain arrays of one direction; `captured_tree` makes a captured leaf of them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._vocabulary import DIRECTIONS, GATES, VARIABLES, WEIGHTS

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def direction_of_loss(units: int) -> Floats:
    """Return the vector v of L = ⟨v, h_T⟩; its norm is 1."""
    return np.full(units, units**-0.5)


def unit_vectors(samples: int, steps: int, units: int) -> Floats:
    """Return vectors of norm 1 that rotate with time and differ between samples."""
    sample, time, unit = np.ogrid[:samples, :steps, :units]
    vectors = np.cos(0.7 * time * (1 + unit / units) + sample + 2.0 * unit)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def linear_rnn(rates: Floats, valid: Flags, units: int, inputs: Floats | None = None) -> dict[str, Any]:
    """Solve h_t = x_t + rate·h_{t−1} in processing order; without `inputs`, such that ‖h_t‖ = 1."""
    samples, steps = valid.shape
    wanted = unit_vectors(samples, steps, units)
    hidden, read = np.zeros((samples, steps, units)), np.zeros((samples, steps, units))
    state = np.zeros((samples, units))
    for t in range(steps):
        kept = rates[:, None] * state
        new = wanted[:, t] - kept if inputs is None else inputs[:, t]
        read[:, t] = np.where(valid[:, t, None], new, 0.0)
        hidden[:, t] = state = np.where(valid[:, t, None], new + kept, state)
    # A masked step copies the state: its gradient is that of the later steps, and its dz is 0.
    lag = valid.sum(axis=1, keepdims=True) - np.cumsum(valid, axis=1)
    decay = np.where(valid | (lag > 0), rates[:, None] ** lag, 0.0)
    gradient = decay[..., None] * direction_of_loss(units)
    return {
        "input": read,
        "hidden": hidden,
        "output": hidden[:, -1],
        "output_gradient": np.broadcast_to(direction_of_loss(units), (samples, units)),
        "valid": valid,
        "kernel": np.eye(units),
        "recurrent_kernel": rates[0] * np.eye(units),
        "bias": np.zeros(units),
        **linear_gradients(read, hidden, gradient, valid),
    }


def linear_gradients(inputs: Floats, hidden: Floats, gradient: Floats, valid: Flags) -> dict[str, Any]:
    """Return all gradients that follow from dL/dh_t if dz_t = dL/dh_t and W = I."""
    back = np.where(valid[..., None], gradient, 0.0)
    passed_on = {"hidden_gradient": gradient, "gate_gradient": back, "input_gradient": back}
    return {**passed_on, **sums(inputs, hidden, back, back)}


def sums(inputs: Floats, hidden: Floats, back: Floats, asked: Floats) -> dict[str, Any]:
    """Return weight gradients and step contributions from dz on the input and the recurrent side."""
    previous = np.concatenate([np.zeros_like(hidden[:, :1]), hidden[:, :-1]], axis=1)
    flat, recurrent = (each.reshape(*each.shape[:2], -1) for each in (back, asked))
    share = 1 / len(hidden)  # the loss is the mean over the samples
    shape = back.shape[2:]
    return {
        "kernel_gradient": share * np.einsum("btm,btn->mn", inputs, flat).reshape(-1, *shape),
        "recurrent_kernel_gradient": share
        * np.einsum("btm,btn->mn", previous, recurrent).reshape(-1, *shape),
        "bias_gradient": share * back.sum(axis=(0, 1)),
        "step_contribution": np.linalg.norm(previous, axis=-1) * np.linalg.norm(recurrent, axis=-1),
    }


def mirror(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Convert arrays from processing order to input time: the last processed step becomes the first."""
    mirrored = {}
    for name, values in arrays.items():
        dims = _dims(name, np.ndim(values))
        axes = tuple(dims.index(dim) for dim in ("time", "loss_time") if dim in dims)
        mirrored[name] = np.flip(values, axes)
    return mirrored


def join_directions(name: str, forward: npt.NDArray[Any], backward: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Join two directions: variables that other layers share are merged, others get a dim `direction`."""
    if name.startswith("output"):
        return np.concatenate([forward, backward], axis=-1)
    if name == "input_gradient":
        return np.asarray(forward + backward)
    dims = _dims(name, forward.ndim + 1, directed=True)
    return np.stack([forward, backward], axis=dims.index("direction"))


def _dims(name: str, axes: int, *, directed: bool = False) -> tuple[str, ...]:
    if name.startswith("output"):
        return ("sample", *("time",)[: axes - 2], "output_unit")
    weight = name.removesuffix("_gradient")
    known = VARIABLES[weight if weight in WEIGHTS else name].dims
    dims = tuple(dim for dim in known if directed or dim != "direction")
    return dims if axes == len(dims) else tuple(dim for dim in dims if dim != "gate")


def captured_tree(
    kind: str, arrays: Mapping[str, Any], *, dtype: str = "float64", directed: bool = False, **flags: Any
) -> xr.DataTree:
    """Return a tree with one leaf and the certificate of an exact capture."""
    samples = len(arrays["valid"])
    scalars = {"certificate_weights": 0.0, "certificate_time": 0.0, "reduction_factor": 1 / samples}
    loss = np.sum(arrays["output_gradient"] * arrays["output"]) / samples  # the loss is linear in h
    variables: dict[str, Any] = {
        name: (_dims(name, np.ndim(values), directed=directed), _copy(values, dtype))
        for name, values in arrays.items()
    }
    variables |= {name: ((), number) for name, number in {**scalars, "loss": loss}.items()}
    dims = {dim for names, _ in variables.values() for dim in names}
    labels = {"gate": GATES.get(kind, ()), "direction": DIRECTIONS}
    coords = {dim: np.array(names, dtype=object) for dim, names in labels.items() if dim in dims}
    attributes = {"kind": kind, "layer": "rnn", "activation": "linear", "go_backwards": 0, **flags}
    leaf = xr.Dataset(variables, coords=coords, attrs={**attributes, "dtype": dtype})
    return xr.DataTree.from_dict({"/rnn": leaf})


def _copy(values: Any, dtype: str) -> npt.NDArray[Any]:
    """Copy: arrays that share memory would change together."""
    values = np.asarray(values)
    return np.array(values, dtype=dtype if values.dtype.kind == "f" else values.dtype)
