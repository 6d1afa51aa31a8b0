"""A document is read in two levels: one LSTM turns each sentence into a vector, another reads the vectors.

Ask it which sentence the verdict comes from, and which word within that sentence.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("words", "sentences")
SENTENCES, LENGTH, WORDS = 5, 8, 40
CLAIM, BECAUSE = 1, 2


def build() -> keras.Model:
    """Make the classifier."""
    document = keras.Input((SENTENCES, LENGTH), dtype="int32")
    embedded = layers.Embedding(WORDS, 8)(document)
    vectors = layers.TimeDistributed(layers.LSTM(8), name="words")(embedded)
    summary = layers.LSTM(8, name="sentences")(vectors)
    model = keras.Model(document, layers.Dense(1, activation="sigmoid")(summary))
    model.compile("adam", "binary_crossentropy")
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw documents with one claim; in half of them a later sentence gives the reason."""
    rng = np.random.default_rng(seed)
    words = rng.integers(3, WORDS, (12, SENTENCES, LENGTH))
    rows, founded = np.arange(12), rng.random(12) < 0.5
    words[rows, rng.integers(0, 2, 12), rng.integers(0, LENGTH, 12)] = CLAIM
    where = rng.integers(2, SENTENCES, 12), rng.integers(0, LENGTH, 12)
    words[rows, where[0], where[1]] = np.where(founded, BECAUSE, words[rows, where[0], where[1]])
    return words.astype("int32"), founded[:, None].astype("float32")


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
