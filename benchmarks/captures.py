"""Captures against a training step, half the length and the arrays captured, on the backend Keras has."""

import tracemalloc
from collections.abc import Iterator

import keras
import numpy as np
from blocks import Row, emit, ratios

import throughtime as tt

SIZES = ((6, 16, 100), (64, 32, 400), (256, 16, 100))  # units, samples, timesteps


def network(kind: str, units: int, steps: int):
    layer = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU}[kind]
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((steps, 8)),
            layer(units, return_sequences=True),
            layer(units),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    return model


def batch(samples: int, steps: int):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(samples, steps, 8)), rng.normal(size=(samples, 1))
    return x.astype("float32"), y.astype("float32")


def capture_rows() -> Iterator[Row]:
    for kind in ("LSTM", "GRU"):
        for units, samples, steps in SIZES:
            case = f"{kind} n={units} B={samples} T={steps}"
            for what, ratio in step_ratios(kind, units, samples, steps).items():
                yield {"what": what, "case": case, "ratio": ratio}
    for kind in ("LSTM", "GRU"):
        yield length_row(kind)
        yield memory_row(kind)


def step_ratios(kind: str, units: int, samples: int, steps: int) -> dict[str, float]:
    model, (x, y) = network(kind, units, steps), batch(samples, steps)
    gradients = tt.Probe(model, quantities=["output_gradient"])
    everything = tt.Probe(model, quantities="all")
    return ratios(
        {
            "output gradients ÷ training step": lambda: gradients(x, y),
            "everything ÷ training step": lambda: everything(x, y),
        },
        lambda: model.train_on_batch(x, y),
    )


def length_row(kind: str) -> Row:
    model, short, long = network(kind, 64, None), batch(32, 200), batch(32, 400)
    probe = tt.Probe(model, quantities="all")
    what = "everything, 2 T ÷ T"
    return {
        "what": what,
        "case": f"{kind} n=64 B=32 T=200",
        "ratio": ratios({what: lambda: probe(*long)}, lambda: probe(*short))[what],
    }


def memory_row(kind: str) -> Row:
    """Memory that Python and NumPy ask for; what the framework keeps inside is its own."""
    model, data = network(kind, 64, 400), batch(32, 400)
    probe = tt.Probe(model, quantities="all")
    probe(*data)
    tracemalloc.start()
    tree = probe(*data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    captured = sum(node.nbytes for node in tree.leaves)
    return {
        "what": "peak extra memory ÷ arrays captured",
        "case": f"{kind} n=64 B=32 T=400",
        "ratio": peak / captured,
    }


if __name__ == "__main__":
    emit(capture_rows())
