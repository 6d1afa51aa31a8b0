"""Weights of a whole module: copied, and read from files of torch and safetensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from throughtime._errors import MissingDependencyError, SchemaError

_NESTED = ("state_dict", "model_state_dict", "model")  # where training loops and Lightning keep it


def weights_of(model: torch.nn.Module) -> dict[str, Any]:
    """Copy parameters and buffers."""
    return {
        name: value.clone() if isinstance(value, torch.Tensor) else value
        for name, value in model.state_dict().items()
    }


def load_weights(model: torch.nn.Module, source: Any) -> torch.nn.Module:
    """Put weights into a module: a state dict, or a file `.pt`, `.pth`, `.ckpt` or `.safetensors`.

    Raises
    ------
    SchemaError
        The file has no state dict.
    MissingDependencyError
        safetensors is not installed.
    """
    state = _read(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else source
    nested = next((state[name] for name in _NESTED if isinstance(state.get(name), Mapping)), state)
    if not all(isinstance(name, str) for name in nested):
        raise SchemaError(f"{source} has no state dict: save it as torch.save(model.state_dict(), path).")
    model.load_state_dict(dict(nested))
    return model


def _read(path: str) -> Mapping[str, Any]:
    if path.endswith(".safetensors"):
        try:
            from safetensors.torch import load_file  # noqa: PLC0415 - optional
        except ImportError as error:
            raise MissingDependencyError("Run pip install safetensors to read .safetensors.") from error
        return dict(load_file(path))
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping):
        raise SchemaError(f"{path} has no state dict: save it as torch.save(model.state_dict(), path).")
    return state
