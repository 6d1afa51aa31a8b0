"""A character language model: two LSTMs guess the next character at every step.

Ask it how long a context it uses; with a loss at every step that needs the lag matrix.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("lower", "upper")
TEXT = (
    "the river runs to the sea and the sea does not run back. rain falls on the hills, the hills send it "
    "down, and what was rain in the morning is the river at night. nothing is lost on the way, it is late. "
)
ALPHABET = sorted(set(TEXT))
LENGTH = 20


def build() -> keras.Model:
    """Make the model; its outputs are logits."""
    characters = keras.Input((LENGTH,), dtype="int32")
    sequence = layers.Embedding(len(ALPHABET), 8)(characters)
    sequence = layers.LSTM(8, return_sequences=True, name="lower")(sequence)
    sequence = layers.LSTM(8, return_sequences=True, name="upper")(sequence)
    model = keras.Model(characters, layers.Dense(len(ALPHABET), name="logits")(sequence))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cut pieces out of the text, and the same pieces one character later."""
    ids = np.array([ALPHABET.index(character) for character in TEXT], "int32")
    start = np.random.default_rng(seed).integers(0, len(ids) - LENGTH - 1, (12, 1))
    piece = ids[start + np.arange(LENGTH + 1)]
    return piece[:, :-1], piece[:, 1:]


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
