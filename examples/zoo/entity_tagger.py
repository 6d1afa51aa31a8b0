"""Named entities: a bidirectional LSTM tags every word of a padded sentence.

Ask it how far around a word the evidence for its tag lies, before it and after it.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("reader",)
WORDS, LENGTH, TAGS = 40, 10, 3
MISTER, IN, NAME = 1, 2, 20  # a name after "Mr" is a person, after "in" a place


def build() -> keras.Model:
    """Make the tagger; padding is masked on its way through to the loss."""
    words = keras.Input((None,), dtype="int32")
    sequence = layers.Embedding(WORDS, 8, mask_zero=True)(words)
    sequence = layers.Bidirectional(layers.LSTM(8, return_sequences=True), name="reader")(sequence)
    sequence = layers.Dropout(0.3)(sequence)
    model = keras.Model(words, layers.Dense(TAGS, activation="softmax")(sequence))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw sentences of 5 to 10 words and the tag of each word: 0 none, 1 person, 2 place."""
    rng = np.random.default_rng(seed)
    words = rng.integers(3, NAME, (16, LENGTH))
    at = np.arange(1, LENGTH, 3)
    words[:, at] = rng.integers(NAME, WORDS, (16, len(at)))
    words[:, at - 1] = rng.choice([MISTER, IN, 3], (16, len(at)))
    words[np.arange(LENGTH) >= rng.integers(5, LENGTH + 1, (16, 1))] = 0
    tags = np.zeros_like(words)
    tags[:, 1:] = (words[:, 1:] >= NAME) * np.select([words[:, :-1] == MISTER, words[:, :-1] == IN], [1, 2])
    return words.astype("int32"), tags.astype("int32")


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
