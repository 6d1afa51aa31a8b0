"""Sentiment of a review with two bidirectional LSTMs on sequences of any length.

Ask it what the backward half sees that the forward half does not, and which half the verdict listens to.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("bidirectional", "bidirectional_1")
WORDS, LENGTH = 40, 14
BUT, POSITIVE = 0, 20  # words from POSITIVE on are kind; what follows BUT counts most


def build() -> keras.Model:
    """Make the classifier with its loss."""
    words = keras.Input((None,), dtype="int32")
    sequence = layers.Embedding(WORDS, 8)(words)
    sequence = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(sequence)
    summary = layers.Bidirectional(layers.LSTM(8))(sequence)
    model = keras.Model(words, layers.Dense(1, activation="sigmoid")(summary))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw reviews with one "but" each, and whether what follows it is kind."""
    rng = np.random.default_rng(seed)
    words = rng.integers(1, WORDS, (16, LENGTH))
    turn = rng.integers(2, LENGTH - 2, (16, 1))
    np.put_along_axis(words, turn, BUT, axis=1)
    mood = np.where(words >= POSITIVE, 1, -1) * (np.arange(LENGTH) > turn)
    return words.astype("int32"), (mood.sum(axis=1, keepdims=True) > 0).astype("float32")


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
