"""The networks of the demo in Keras 3 and tf_keras, and the choice of framework by its name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

import throughtime as tt
from throughtime.diagnosis import Diagnosis

Digits = npt.NDArray[np.float32]  # (sample, time, 1)
Classes = npt.NDArray[np.int64]

UNITS, CLASSES, STEPS = 32, 10, 64
HALF = 32  # lag of the upper half of a digit when its last pixel is read
LEARNING_RATE, CLIP = 5e-3, 1.0
BOTH_WAYS = "Bidirectional "  # before the kind in a network's name: half the units read backward


@dataclass(frozen=True)
class Network:
    """Two recurrent layers of one kind, "lower" and "upper", and ten classes read from the last step."""

    model: Any
    loss: Any  # of a model without a loss
    train: Callable[[Digits, Classes], None]
    accuracy: Callable[[Digits, Classes], float]

    def diagnose(self, x: Digits, y: Classes) -> Diagnosis:
        return tt.diagnose(self.model, x, y, loss=self.loss, dependency_length=HALF)


def framework(name: str) -> tuple[str, Callable[[str], Network]]:
    """Import only one of "keras", "tf_keras" and "torch"; return its title and the builder of networks."""
    library: Any = import_module(name)
    if name == "torch":
        build = import_module("throughtime._cli.demo.torch_networks").build
        return f"PyTorch {library.__version__}", build
    backend = f", {library.backend.backend()} backend" if name == "keras" else ""
    return f"{name.capitalize()} {library.__version__}{backend}", partial(keras_network, library)


def keras_network(library: Any, name: str) -> Network:
    library.utils.set_random_seed(0)
    head = library.layers.Dense(CLASSES, name="digit")
    model = library.Sequential([library.Input((STEPS, 1)), *recurrent_layers(library.layers, name), head])
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(library.optimizers.Adam(LEARNING_RATE, clipnorm=CLIP), loss, metrics=["accuracy"])

    def accuracy(x: Any, y: Any) -> float:
        return float(model.evaluate(x, y, batch_size=len(y), verbose=0, return_dict=True)["accuracy"])

    return Network(model, None, model.train_on_batch, accuracy)


def recurrent_layers(layers: Any, name: str) -> list[Any]:
    kind = getattr(layers, name.removeprefix(BOTH_WAYS))
    if not name.startswith(BOTH_WAYS):
        return [kind(UNITS, return_sequences=True, name="lower"), kind(UNITS, name="upper")]
    return [
        layers.Bidirectional(kind(UNITS // 2, return_sequences=True), name="lower"),
        layers.Bidirectional(kind(UNITS // 2), name="upper"),
    ]
