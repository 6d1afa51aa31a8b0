"""Are two questions the same? One encoder reads both, their distance decides.

Ask it whether both calls of the shared LSTM get the same gradient, with opposite signs.
"""

import keras
import numpy as np
from keras import layers, ops

RECURRENT = ("encoder/lstm", "encoder/lstm@2")
WORDS, LENGTH = 40, 10


def build() -> keras.Model:
    """Make the comparison: exp(−Manhattan distance) of the two encodings."""
    reader = [keras.Input((LENGTH,), dtype="int32"), layers.Embedding(WORDS, 8), layers.LSTM(8)]
    encoder = keras.Sequential(reader, name="encoder")
    one, other = keras.Input((LENGTH,), dtype="int32"), keras.Input((LENGTH,), dtype="int32")
    distance = ops.sum(ops.abs(encoder(one) - encoder(other)), axis=-1, keepdims=True)
    model = keras.Model([one, other], ops.exp(-distance))
    model.compile("adam", "mse")
    return model


def batch(seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Draw pairs: half of them the same words with a filler (ids from 20 on) exchanged, half unrelated."""
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, WORDS, (2, 12, LENGTH))
    same = rng.random((12, 1)) < 0.5
    rephrased = np.where(one >= 20, rng.integers(20, WORDS, one.shape), one)
    other = np.where(same, rephrased, other)
    return [one.astype("int32"), other.astype("int32")], same.astype("float32")


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
