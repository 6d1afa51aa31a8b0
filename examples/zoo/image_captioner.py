"""A caption for an image: a CNN sets the state a GRU starts from, the GRU writes word after word.

The gradient of the initial state shows how much the last word still depends on the image.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("speaker",)
SIZE, WORDS, LENGTH = 8, 8, 5
START, NO, LINE, AND, UPRIGHT, FLAT, END = range(1, 8)  # 0 is padding


def build() -> keras.Model:
    """Make the captioner, taught with the right words so far."""
    image = keras.Input((SIZE, SIZE, 1), name="image")
    seen = layers.Conv2D(4, 3, activation="relu")(image)
    seen = layers.Dense(8, activation="tanh", name="seen")(layers.Flatten()(seen))
    so_far = keras.Input((LENGTH,), dtype="int32", name="so_far")
    words = layers.Embedding(WORDS, 8, mask_zero=True)(so_far)
    words = layers.GRU(8, return_sequences=True, name="speaker")(words, initial_state=seen)
    model = keras.Model({"image": image, "so_far": so_far}, layers.Dense(WORDS, activation="softmax")(words))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def batch(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw images with an upright line, a flat one, both or none, and captions such as "flat line"."""
    rng = np.random.default_rng(seed)
    upright, flat = rng.random((2, 12)) < 0.5
    images = 0.1 * rng.random((12, SIZE, SIZE, 1))
    images[upright, :, rng.integers(0, SIZE, upright.sum())] = 1
    images[flat, rng.integers(0, SIZE, flat.sum())] = 1
    captions = {
        (False, False): [START, NO, LINE, END, 0, 0],
        (True, False): [START, UPRIGHT, LINE, END, 0, 0],
        (False, True): [START, FLAT, LINE, END, 0, 0],
        (True, True): [START, UPRIGHT, AND, FLAT, LINE, END],
    }
    said = np.array([captions[pair] for pair in zip(upright.tolist(), flat.tolist(), strict=True)], "int32")
    return {"image": images.astype("float32"), "so_far": said[:, :-1]}, said[:, 1:]


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
