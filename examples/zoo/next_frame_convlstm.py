"""The next frame of a video: two ConvLSTMs keep a map as their state, a convolution over time draws it.

Ask it how many frames back a pixel's error travels, and whether it follows the moving square.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("conv_lstm2d", "conv_lstm2d_1")
FRAMES, SIZE = 6, 8


def build() -> keras.Model:
    """Make the predictor: frames in, the same frames one step later out."""
    frames = keras.Input((None, SIZE, SIZE, 1))
    maps = layers.ConvLSTM2D(3, 3, padding="same", return_sequences=True)(frames)
    maps = layers.BatchNormalization()(maps)
    maps = layers.ConvLSTM2D(3, 3, padding="same", return_sequences=True)(maps)
    following = layers.Conv3D(1, 3, padding="same", activation="sigmoid")(maps)
    model = keras.Model(frames, following)
    model.compile("adam", "binary_crossentropy")
    return model


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw squares of 3 × 3 pixels that drift over the edges, and the same videos one frame later."""
    rng = np.random.default_rng(seed)
    corner, drift = rng.integers(0, SIZE, (4, 1, 2)), rng.integers(-1, 2, (4, 1, 2))
    corner = corner + np.arange(FRAMES + 1)[:, None] * drift
    offset = (np.arange(SIZE)[:, None] - corner[:, :, None]) % SIZE  # (sample, frame, pixel, axis)
    inside = offset < 3
    video = inside[:, :, :, None, 0] & inside[:, :, None, :, 1]
    video = video[..., None].astype("float32")
    return video[:, :-1], video[:, 1:]


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
