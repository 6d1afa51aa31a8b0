"""Writes what a capture was said to need and the memory that it took: a process of its own for each capture.

All in bytes; with a budget what its parts need.

python -m tests.keras.peak_memory KIND LAYERS UNITS SAMPLES STEPS QUANTITIES [BUDGET]
"""

from __future__ import annotations

import keras
import numpy as np
from tests.measured_memory import arguments, write_figures

import throughtime as tt

KINDS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "simple_rnn": keras.layers.SimpleRNN}
FEATURES = 8


def main(
    kind: str, count: int, units: int, samples: int, steps: int, quantities: str, budget: float | None
) -> None:
    keras.utils.set_random_seed(0)
    recurrent = [KINDS[kind](units, return_sequences=True) for _ in range(count)]
    model = keras.Sequential([keras.Input((None, FEATURES)), *recurrent, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.ones((samples, steps, FEATURES), "float32"), np.ones((samples, steps, 1), "float32")
    probe = tt.Probe(model, quantities=quantities, budget=budget)
    probe(x[:, :4], y[:, :4])  # compiling takes memory of its own
    write_figures(probe, x, y)


if __name__ == "__main__":
    main(*arguments())
