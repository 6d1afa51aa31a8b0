"""Attention over a recurrent layer: the last state asks, all steps answer, a class is read from both.

Ask it whether attention shortens the way: does the gradient reach early steps without the recurrence?
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("gru",)
WORDS, LENGTH, TOPICS = 40, 16, 3


def build() -> keras.Model:
    """Make the classifier with additive attention; padding gets no attention."""
    words = keras.Input((LENGTH,), dtype="int32")
    sequence, last = layers.GRU(8, return_sequences=True, return_state=True)(
        layers.Embedding(WORDS, 8, mask_zero=True)(words)
    )
    query = layers.Reshape((1, 8))(last)
    context = layers.AdditiveAttention()([query, sequence])
    both = layers.Concatenate()([layers.Flatten()(context), last])
    model = keras.Model(words, layers.Dense(TOPICS)(both))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw texts of 8 to 16 words whose topic is one word, ids 1 to 3, near the start."""
    rng = np.random.default_rng(seed)
    words = rng.integers(1 + TOPICS, WORDS, (16, LENGTH))
    topic = rng.integers(0, TOPICS, 16)
    words[np.arange(16), rng.integers(0, 6, 16)] = 1 + topic
    words[np.arange(LENGTH) >= rng.integers(8, LENGTH + 1, (16, 1))] = 0
    return words.astype("int32"), topic.astype("int32")


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
