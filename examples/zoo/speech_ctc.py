"""Speech to letters without alignment: a strided convolution, a bidirectional GRU and the CTC loss.

Ask it at which frames CTC puts a letter: its gradient is large where the model could emit one.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("listener",)
FRAMES, BANDS, LETTERS, SPOKEN = 40, 8, 6, 4


def build() -> keras.Model:
    """Make the recogniser; class 0 is CTC's blank, and two frames become one step."""
    spectrogram = keras.Input((FRAMES, BANDS))
    steps = layers.Conv1D(8, 5, strides=2, padding="same", activation="relu")(spectrogram)
    steps = layers.Bidirectional(layers.GRU(8, return_sequences=True), name="listener")(steps)
    model = keras.Model(spectrogram, layers.Dense(1 + LETTERS, name="logits")(steps))
    model.compile("adam", keras.losses.CTC())
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw four letters, each a band that sounds for some frames; labels are the letters, from 1 on."""
    rng = np.random.default_rng(seed)
    letters = rng.integers(1, 1 + LETTERS, (8, SPOKEN))
    starts = np.arange(SPOKEN) * 10 + rng.integers(0, 4, (8, SPOKEN))
    since = np.arange(FRAMES) - starts[..., None]
    sounds = (since >= 0) & (since < 5)  # (sample, letter, frame)
    bands = np.eye(BANDS)[letters]
    spectrogram = np.einsum("slf,slb->sfb", sounds, bands) + 0.1 * rng.random((8, FRAMES, BANDS))
    return spectrogram.astype("float32"), letters.astype("int32")


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
