"""A layer that clips what comes back through it: gradients are those of training, the loss not multiplied."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from tests.keras.plain_gradients import gradients

import throughtime as tt

BAR = 1e-3
GATES = ["input", "forget", "candidate", "output"]


@keras.ops.custom_gradient
def clipped(x: Any) -> Any:
    def back(*given: Any, upstream: Any = None) -> Any:
        return keras.ops.clip(given[0] if upstream is None else upstream, -BAR, BAR)

    return x * 1.0, back


class Clip(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return clipped(x)


def test_gradients_of_weights_are_those_of_training() -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.LSTM(4, return_sequences=True), Clip(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((6, 2)), *layers])
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(4, 6, count)).astype("float32") for count in (2, 1))
    leaf = tt.capture(model, x, y, loss=keras.losses.MeanSquaredError())["lstm"]
    others = [variable.value for variable in model.trainable_variables[1:]]
    fixed = [variable.value for variable in model.non_trainable_variables]

    def loss(kernel: Any) -> tuple[Any, Any]:
        output, _ = model.stateless_call([kernel, *others], fixed, x)
        return keras.ops.mean(keras.ops.square(keras.ops.subtract(output, y))), ()

    wanted, _ = gradients(loss, np.asarray(keras.ops.convert_to_numpy(layers[0].cell.kernel)))
    found = leaf["kernel_gradient"].sel(gate=GATES).transpose("feature", "gate", "unit").values
    np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-8)
