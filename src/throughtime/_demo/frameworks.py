"""Chooses the framework that the demo's networks are made in, by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from throughtime._demo.networks import Network


@dataclass(frozen=True)
class Framework:
    """Where networks come from, and its name for people."""

    title: str
    build: Callable[[str], Network]


def framework(name: str) -> Framework:
    """Import one of "keras", "tf_keras" and "torch", and nothing of the others."""
    if name == "torch":
        torch = import_module("torch")
        build = import_module("throughtime._demo.torch_networks").build
        return Framework(f"PyTorch {torch.__version__}", build)
    library: Any = import_module(name)
    build = import_module("throughtime._demo.keras_networks").build
    title = f"{name} {library.__version__}"
    if name == "keras":
        title = f"Keras {library.__version__}, {library.backend.backend()} backend"
    return Framework(title, lambda kind: build(library, kind))
