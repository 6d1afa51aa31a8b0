"""Sequence to sequence with teacher forcing: the decoder starts from the encoder's last states.

Ask it which letters of the source the error still reaches after the decoder and the whole encoder.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("encoder", "decoder")
LETTERS, LENGTH = 9, 7


def build() -> keras.Model:
    """Make encoder and decoder, with named inputs and a softmax over the next letter."""
    source = keras.Input((None, LETTERS), name="source")
    _, h, c = layers.LSTM(8, return_state=True, name="encoder")(source)
    target = keras.Input((None, LETTERS), name="target")
    decoder = layers.LSTM(8, return_sequences=True, return_state=True, name="decoder")
    sequence, _, _ = decoder(target, initial_state=[h, c])
    letters = layers.Dense(LETTERS, activation="softmax", name="letters")(sequence)
    model = keras.Model({"source": source, "target": target}, letters)
    model.compile("rmsprop", "categorical_crossentropy", metrics=["accuracy"])
    return model


def batch(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw words to be spelled backwards, one-hot; the target input starts with letter 0, a step behind."""
    rng = np.random.default_rng(seed)
    words = rng.integers(1, LETTERS, (16, LENGTH))
    answer = words[:, ::-1]
    shifted = np.pad(answer[:, :-1], ((0, 0), (1, 0)))
    one_hot = np.eye(LETTERS, dtype="float32")
    return {"source": one_hot[words], "target": one_hot[shifted]}, one_hot[answer]


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
