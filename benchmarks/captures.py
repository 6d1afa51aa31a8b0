"""Captures against a training step, half the length and the arrays captured, on the backend Keras has."""

import tracemalloc
from collections.abc import Iterator

from blocks import Row, emit, ratios
from monitors import rows as monitor_rows
from networks import batch, network, told

import throughtime as tt

KINDS = ("LSTM", "GRU")
SIZES = ((6, 16, 100), (64, 32, 1000), (256, 16, 100))  # units, samples, timesteps
# What is paid when only this is asked for.
QUANTITIES = (
    "output_gradient",
    "weight_gradients",
    "hidden",
    "hidden_gradient",
    "cell_gradient",
    "gate_gradient",
    "step_contribution",
    "certificate",
    "all",
)


def capture_rows() -> Iterator[Row]:
    for kind in KINDS:
        for units, samples, steps in SIZES:
            yield from step_rows(kind, units, samples, steps)
    yield from quantity_rows("LSTM", 64, 32, 400)
    yield from lag_rows("LSTM", 64, 32, 100)
    yield from monitor_rows()
    for kind in KINDS:
        yield from length_rows(kind)
        yield memory_row(kind)


def step_rows(kind: str, units: int, samples: int, steps: int) -> Iterator[Row]:
    model, (x, y) = network(kind, units, steps), batch(samples, steps)
    probes = {
        "output gradients ÷ training step": tt.Probe(model, quantities="output_gradient"),
        "everything ÷ training step": tt.Probe(model, quantities="all"),
    }
    calls = {what: lambda probe=probe: probe(x, y) for what, probe in probes.items()}
    for what, ratio in ratios(calls, lambda: model.train_on_batch(x, y)):
        yield {"what": what, "case": told(kind, units, samples, steps), "ratio": ratio}


def quantity_rows(kind: str, units: int, samples: int, steps: int) -> Iterator[Row]:
    model, (x, y) = network(kind, units, steps), batch(samples, steps)
    probes = {name: tt.Probe(model, quantities=name) for name in QUANTITIES}
    calls = {name: lambda probe=probe: probe(x, y) for name, probe in probes.items()}
    for name, ratio in ratios(calls, lambda: model.train_on_batch(x, y)):
        case = f"{name}, {told(kind, units, samples, steps)}"
        yield {"what": "one quantity ÷ training step", "case": case, "ratio": ratio}


def lag_rows(kind: str, units: int, samples: int, steps: int) -> Iterator[Row]:
    model = network(kind, units, steps, loss_every_step=True)
    x, y = batch(samples, steps, loss_every_step=True)
    calls = {
        "all loss steps": lambda: tt.lag_matrix(model, x, y),
        "32 loss steps": lambda: tt.lag_matrix(model, x, y, loss_steps=32),
    }
    for name, ratio in ratios(calls, lambda: model.train_on_batch(x, y)):
        case = f"{name}, {told(kind, units, samples, steps)}"
        yield {"what": "lag matrix ÷ training step", "case": case, "ratio": ratio}


def length_rows(kind: str) -> Iterator[Row]:
    model, short, long = network(kind, 64, None), batch(32, 200), batch(32, 400)
    probe = tt.Probe(model, quantities="all")
    for what, ratio in ratios({"everything, 2 T ÷ T": lambda: probe(*long)}, lambda: probe(*short)):
        yield {"what": what, "case": told(kind, 64, 32, 200), "ratio": ratio}


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
        "case": told(kind, 64, 32, 400),
        "ratio": peak / captured,
    }


if __name__ == "__main__":
    emit(capture_rows())
