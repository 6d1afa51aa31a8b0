"""A sales forecast with covariates: past sales, and a calendar that is known for past and future days.

Ask it how many weeks of history the forecast uses, and whether the weekly rhythm shows in the gradients.
"""

import keras
import numpy as np
from keras import layers

RECURRENT = ("history", "outlook")
PAST, FUTURE = 21, 7


def build() -> keras.Model:
    """Make the model with two inputs: one GRU reads the past, another continues from its state."""
    sales = keras.Input((PAST, 1), name="sales")
    calendar = keras.Input((PAST + FUTURE, 8), name="calendar")
    past = layers.Concatenate()([sales, calendar[:, :PAST]])
    state = layers.GRU(8, name="history")(past)
    days = layers.GRU(8, return_sequences=True, name="outlook")(calendar[:, PAST:], initial_state=state)
    model = keras.Model([sales, calendar], layers.Dense(1, name="forecast")(days))
    model.compile("adam", keras.losses.Huber())
    return model


def batch(seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Draw shops with a trend, quiet Sundays and campaigns; the calendar knows weekdays and campaigns."""
    rng = np.random.default_rng(seed)
    days = np.arange(PAST + FUTURE)
    weekday = (days + rng.integers(0, 7, (12, 1))) % 7
    campaign = rng.random(weekday.shape) < 0.15
    sales = 1 + 0.02 * rng.normal(size=(12, 1)) * days - 0.8 * (weekday == 6) + campaign
    sales = (sales + 0.1 * rng.normal(size=sales.shape)).astype("float32")[..., None]
    calendar = np.concatenate([np.eye(7)[weekday], campaign[..., None]], axis=-1).astype("float32")
    return [sales[:, :PAST], calendar], sales[:, PAST:]


if __name__ == "__main__":
    from _look import look

    look(build, batch, __file__)
