"""An LSTM autoencoder for anomalies: a heartbeat is squeezed into one vector and drawn again from it.

Ask it whether the decoder's error gets through the bottleneck to the first steps of the encoder.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("lstm", "lstm_1")
STEPS, LEADS = 24, 2


def build() -> keras.Model:
    """Make encoder, bottleneck and decoder."""
    model = keras.Sequential(
        [
            keras.Input((STEPS, LEADS)),
            layers.LSTM(8),
            layers.RepeatVector(STEPS),
            layers.LSTM(8, return_sequences=True),
            layers.TimeDistributed(layers.Dense(LEADS)),
        ]
    )
    model.compile("adam", "mae")
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw beats, a peak and a wave after it, on two leads; labels are the beats themselves."""
    rng = np.random.default_rng(seed)
    peak = rng.uniform(5, 9, (12, 1, 1))
    height = rng.uniform(0.7, 1.3, (12, 1, LEADS))
    time = np.arange(STEPS)[:, None]
    beats = height * (np.exp(-((time - peak) ** 2)) + 0.3 * np.exp(-(((time - peak - 8) / 3) ** 2)))
    beats = (beats + 0.02 * rng.normal(size=beats.shape)).astype("float32")
    return beats, beats


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
