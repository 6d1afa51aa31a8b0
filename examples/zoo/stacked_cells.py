"""What a phone's owner is doing: three cells stacked into one recurrent layer read the acceleration.

Ask it what each cell of the stack keeps, although only the last one's output can be seen from outside.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("stack",)
STEPS, ACTIVITIES = 30, 3


def build() -> keras.Model:
    """Make the classifier: one layer that steps through all its cells before the next time step."""
    cells = [layers.LSTMCell(8), layers.GRUCell(8), layers.LSTMCell(8)]
    model = keras.Sequential(
        [
            keras.Input((STEPS, 3)),
            layers.RNN(layers.StackedRNNCells(cells), name="stack"),
            layers.Dense(ACTIVITIES, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw three axes of acceleration: at rest, walking, or running, faster and stronger."""
    rng = np.random.default_rng(seed)
    activity = rng.integers(0, ACTIVITIES, 12)
    pace, strength = np.array([0, 1.5, 3])[activity], np.array([0, 0.5, 1.2])[activity]
    time = np.arange(STEPS) * 0.1
    swing = strength[:, None] * np.sin(2 * np.pi * pace[:, None] * time + rng.uniform(0, 6, (12, 1)))
    axes = swing[..., None] * rng.normal(size=(12, 1, 3)) + 0.1 * rng.normal(size=(12, STEPS, 3))
    return axes.astype("float32"), activity.astype("int32")


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
