"""The demo's networks in Keras 3 or tf_keras: the same calls, the library is an argument."""

from __future__ import annotations

from typing import Any

import throughtime as tt
from throughtime._demo.networks import BOTH_WAYS, CLASSES, CLIP, HALF, LEARNING_RATE, STEPS, UNITS, Network


def build(library: Any, name: str) -> Network:
    library.utils.set_random_seed(0)
    head = library.layers.Dense(CLASSES, name="digit")
    model = library.Sequential([library.Input((STEPS, 1)), *recurrent_layers(library.layers, name), head])
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(library.optimizers.Adam(LEARNING_RATE, clipnorm=CLIP), loss, metrics=["accuracy"])

    def accuracy(x: Any, y: Any) -> float:
        return float(model.evaluate(x, y, batch_size=len(y), verbose=0, return_dict=True)["accuracy"])

    def diagnose(x: Any, y: Any) -> Any:
        return tt.diagnose(model, x, y, dependency_length=HALF)

    return Network(model, None, tt.Probe(model), model.train_on_batch, accuracy, diagnose)


def recurrent_layers(layers: Any, name: str) -> list[Any]:
    kind = getattr(layers, name.removeprefix(BOTH_WAYS))
    if not name.startswith(BOTH_WAYS):
        return [kind(UNITS, return_sequences=True, name="lower"), kind(UNITS, name="upper")]
    return [
        layers.Bidirectional(kind(UNITS // 2, return_sequences=True), name="lower"),
        layers.Bidirectional(kind(UNITS // 2), name="upper"),
    ]
