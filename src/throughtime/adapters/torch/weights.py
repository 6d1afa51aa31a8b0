"""Weights by name in one orientation, input rows, gates apart, units last; weights of a whole module.

torch keeps weights as (gate · unit, feature), the gates of an LSTM as i, f, g, o and those of a GRU as
r, z, n, where z keeps; the schema has input, forget, candidate, output and update, reset, candidate.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from throughtime._errors import MissingDependencyError, SchemaError
from throughtime._vocabulary import RESERVED, WEIGHTS
from throughtime.adapters.axes import GATE_ORDER, with_gates
from throughtime.adapters.records import Array

PROJECTION = "projection"
# Words of the schema that a module's own parameter would take the place of.
_TAKEN = RESERVED - set(WEIGHTS)


def names(count: int) -> tuple[str, ...]:
    """Name so many weights of one direction in torch's order: three have a projection, four biases."""
    biases = ("bias", "recurrent_bias") if count >= 4 else ()
    projection = (PROJECTION,) if count % 2 else ()
    return ("kernel", "recurrent_kernel", *biases, *projection)


def projected_dims(is_bidirectional: bool) -> dict[str, tuple[str, ...]]:
    """Axes of a layer whose cell is wider than its hidden state."""
    direction = ("direction",) if is_bidirectional else ()
    found = {
        "cell": ("sample", "time", *direction, "cell_unit"),
        "gate_activation": ("sample", "time", *direction, "gate", "cell_unit"),
        "initial_cell": ("sample", *direction, "cell_unit"),
        "kernel": (*direction, "feature", "gate", "cell_unit"),
        "recurrent_kernel": (*direction, "unit_from", "gate", "cell_unit"),
        "bias": (*direction, "gate", "cell_unit"),
        "recurrent_bias": (*direction, "gate", "cell_unit"),
        PROJECTION: (*direction, "cell_unit", "unit"),
    }
    found |= {f"{name}_gradient": axes for name, axes in found.items()}
    return {**found, "gate_gradient": found["gate_activation"]}


def oriented(kind: str, arrays: Sequence[Array]) -> dict[str, Array]:
    """Orient one direction's weights, in torch's order."""
    pairs = zip(names(len(arrays)), arrays, strict=True)
    return {name: turned(kind, name, array) for name, array in pairs}


def turned(kind: str, name: str, array: Array) -> Array:
    """(gate · unit, feature) to (feature, gate, unit); a projection, (unit, cell_unit), is turned alone."""
    if kind not in GATE_ORDER:
        return array
    return array.T if name == PROJECTION else with_gates(kind, array.T)


def kind_of(module: nn.Module) -> str:
    """Name the kind of one of torch's recurrent layers or cells."""
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return "lstm"
    return "gru" if isinstance(module, (nn.GRU, nn.GRUCell)) else "simple_rnn"


def by_name(module: nn.Module) -> dict[str, torch.Tensor]:
    """Name the parameters of any layer, those of its parametrizations too."""
    return {_name(name): parameter for name, parameter in module.named_parameters()}


def _name(name: str) -> str:
    name = re.sub(r"\W", "_", name)
    return f"{name}_parameter" if name in _TAKEN else name


_NESTED = ("state_dict", "model_state_dict", "model")  # where training loops and Lightning keep it


def weights_of(model: nn.Module) -> dict[str, object]:
    """Copy parameters and buffers."""
    return {
        name: value.clone() if isinstance(value, torch.Tensor) else value
        for name, value in model.state_dict().items()
    }


def load_weights(model: nn.Module, source: str | os.PathLike[str] | Mapping[str, Any]) -> nn.Module:
    """Put weights into a module: a state dict, or a file `.pt`, `.pth`, `.ckpt` or `.safetensors`."""
    state = _read(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else source
    if isinstance(state, Mapping):
        state = next((state[name] for name in _NESTED if isinstance(state.get(name), Mapping)), state)
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise SchemaError(f"{source} has no state dict: save it as torch.save(model.state_dict(), path).")
    model.load_state_dict(dict(state))
    return model


def _read(path: str) -> object:
    if path.endswith(".safetensors"):
        try:
            from safetensors.torch import load_file  # noqa: PLC0415 - optional
        except ImportError as error:
            raise MissingDependencyError("Run pip install safetensors to read .safetensors.") from error
        return dict(load_file(path))
    return torch.load(path, map_location="cpu", weights_only=True)
