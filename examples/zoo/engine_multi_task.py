"""Two tasks on one trunk: how long an engine will last, and which fault is beginning.

Ask it which task the shared layer serves: capture once with each loss, and compare the gradients.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("shared", "wear")
STEPS, SENSORS, FAULTS = 25, 3, 3


def build() -> keras.Model:
    """Make the model with two named outputs, two losses and their weights."""
    sensors = keras.Input((STEPS, SENSORS), name="sensors")
    shared = layers.GRU(8, return_sequences=True, name="shared")(sensors)
    life = layers.Dense(1, name="life")(layers.LSTM(8, name="wear")(shared))
    fault = layers.Dense(FAULTS, activation="softmax", name="fault")(layers.GlobalMaxPooling1D()(shared))
    model = keras.Model(sensors, {"life": life, "fault": fault})
    model.compile(
        "adam",
        loss={"life": "mse", "fault": "sparse_categorical_crossentropy"},
        loss_weights={"life": 1.0, "fault": 0.3},
    )
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw sensors of which the faulty one drifts faster and faster; the labels are fault and life left."""
    rng = np.random.default_rng(seed)
    fault, life = rng.integers(0, FAULTS, 12), rng.uniform(0, 1, (12, 1))
    time = np.arange(STEPS) / STEPS
    drift = np.exp(3 * (time - life)) - np.exp(-3 * life)
    sensors = 0.1 * rng.normal(size=(12, STEPS, SENSORS))
    sensors[np.arange(12), :, fault] += 0.2 * drift
    return sensors.astype("float32"), {"life": life.astype("float32"), "fault": fault.astype("int32")}


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
