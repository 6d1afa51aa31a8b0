"""Addition as translation: "17+5 " goes in letter by letter, "22 " comes out.

Ask it whether the error of the last digit reaches the first character of the question.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("encoder", "decoder")
CHARACTERS = "0123456789+ "
QUESTION, ANSWER = 5, 3


def build() -> keras.Model:
    """Make encoder and decoder; the question's vector is repeated for each letter of the answer."""
    model = keras.Sequential(
        [
            keras.Input((QUESTION, len(CHARACTERS))),
            layers.LSTM(8, name="encoder"),
            layers.RepeatVector(ANSWER),
            layers.LSTM(8, return_sequences=True, name="decoder"),
            layers.Dense(len(CHARACTERS), activation="softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


def one_hot(texts: list[str]) -> np.ndarray:
    """Turn texts of one length into (sample, time, character)."""
    ids = [[CHARACTERS.index(character) for character in text] for text in texts]
    return np.eye(len(CHARACTERS), dtype="float32")[ids]


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw sums of two numbers below 100, questions and answers padded with blanks."""
    pairs = np.random.default_rng(seed).integers(0, 100, (16, 2)).tolist()
    questions = [f"{a}+{b}".ljust(QUESTION) for a, b in pairs]
    return one_hot(questions), one_hot([str(a + b).ljust(ANSWER) for a, b in pairs])


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
