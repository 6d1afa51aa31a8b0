"""Action in a short video: the same small CNN reads every frame, an LSTM combines the frames.

Ask it which frames decide: a single frame does not show where the dot is going.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("lstm",)
FRAMES, SIZE = 6, 8
DIRECTIONS = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)])  # rows and columns a frame


def build() -> keras.Model:
    """Make the classifier of four directions."""
    model = keras.Sequential(
        [
            keras.Input((FRAMES, SIZE, SIZE, 1)),
            layers.TimeDistributed(layers.Conv2D(4, 3, activation="relu")),
            layers.TimeDistributed(layers.MaxPooling2D()),
            layers.TimeDistributed(layers.Flatten()),
            layers.LSTM(8),
            layers.Dense(4, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw a bright dot that moves one pixel a frame, around the edges, and its direction."""
    rng = np.random.default_rng(seed)
    direction = rng.integers(0, 4, 8)
    start = rng.integers(0, SIZE, (8, 1, 2))
    moved = np.arange(FRAMES)[:, None] * DIRECTIONS[direction][:, None]
    row, column = np.moveaxis((start + moved) % SIZE, -1, 0)
    video = np.zeros((8, FRAMES, SIZE, SIZE, 1), "float32")
    video[(*np.indices(row.shape), row, column)] = 1
    return video, direction.astype("int32")


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
