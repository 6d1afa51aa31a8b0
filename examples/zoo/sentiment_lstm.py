"""Sentiment of a review: padded word ids, an embedding that masks the padding, one LSTM, one probability.

Ask it how far back the verdict still reaches, and whether the padding is really left out.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("lstm",)
WORDS, LENGTH = 40, 12
NOT, POSITIVE = 1, 20  # words from POSITIVE on are kind, and NOT turns the next word around


def build() -> keras.Model:
    """Make the classifier with its loss."""
    model = keras.Sequential(
        [
            keras.Input((LENGTH,), dtype="int32"),
            layers.Embedding(WORDS, 8, mask_zero=True),
            layers.LSTM(8),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw reviews of 4 to 12 words, padded with 0, and whether their kind words outweigh the others."""
    rng = np.random.default_rng(seed)
    words = rng.integers(1, WORDS, (16, LENGTH))
    words[rng.random(words.shape) < 0.15] = NOT
    words[np.arange(LENGTH) >= rng.integers(4, LENGTH + 1, (16, 1))] = 0
    mood = np.where(words >= POSITIVE, 1, -1) * (words > NOT)
    mood[:, 1:] *= np.where(words[:, :-1] == NOT, -1, 1)
    return words.astype("int32"), (mood.sum(axis=1, keepdims=True) > 0).astype("float32")


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
