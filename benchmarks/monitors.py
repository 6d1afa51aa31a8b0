"""What a monitor costs: training with a record every 50 steps against training alone, and a step's writing.

`python benchmarks/monitors.py` for Keras on the backend that it has; `THROUGHTIME_BENCH_LIBRARY` makes it
tf_keras or torch. Trained are the demo's two layers. The beginning, which compiles the capture and records
step 0, is not in the ratio; its seconds are a row of their own. Training alone stands before and after each
training that is watched. On a busy machine processor time tells more than the clock, with one thread
(`OMP_NUM_THREADS=1`): threads that wait for each other spin.
"""

import os
import tempfile
import time
from importlib import import_module
from pathlib import Path
from statistics import median

import numpy as np
import xarray as xr
from blocks import Row, emit

import throughtime as tt
from throughtime._monitor.levels import reduce_tree
from throughtime._store import Run

SAMPLES, STEPS, UNITS, CLASSES, PROBED = 64, 64, 32, 10, 16
TRAINED, EVERY, ROUNDS = 400, 50, 5
EARLY, LATE, AROUND = 10, 5000, 60  # steps of a run whose writing is compared, and how many of each


def data():
    rng = np.random.default_rng(0)
    x = rng.random((SAMPLES * TRAINED, STEPS, 1)).astype("float32")
    return x, rng.integers(0, CLASSES, SAMPLES * TRAINED)


class Timed(tt.Monitor):
    """Remembers how long its beginning took, of the clock and of all cores."""

    def begin(self, model, **options):
        start = seconds()
        super().begin(model, **options)
        self.begun = seconds() - start


def seconds() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def keras_training(library):
    keras = import_module(library)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.LSTM(UNITS, return_sequences=True), keras.layers.LSTM(UNITS)]
    model = keras.Sequential([keras.Input((STEPS, 1)), *layers, keras.layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3, clipnorm=1.0), loss, metrics=["accuracy"])
    x, y = data()

    def train(monitor=None):
        watching = [] if monitor is None else [monitor.keras() if library == "keras" else monitor.tf_keras()]
        model.fit(x, y, batch_size=SAMPLES, verbose=0, shuffle=False, callbacks=watching)

    return train, (x[:PROBED], y[:PROBED]), {}


def torch_training():
    torch = import_module("torch")
    nn = torch.nn

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(1, UNITS, num_layers=2, batch_first=True)
            self.head = nn.Linear(UNITS, CLASSES)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    torch.manual_seed(0)
    model, loss = Reader(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    x, y = map(torch.from_numpy, data())

    def steps(monitor=None):
        for start in range(0, len(x), SAMPLES):
            optimizer.zero_grad()
            loss(model(x[start : start + SAMPLES]), y[start : start + SAMPLES]).backward()
            optimizer.step()
            if monitor is not None:
                monitor.step()

    def train(monitor=None):
        if monitor is None:
            steps()
        else:
            with monitor.watch(model):
                steps(monitor)

    return train, (x[:PROBED], y[:PROBED]), {"loss": loss}


def cost_rows(name, training):
    train, batch, options = training
    train()
    for background in (False, True):
        shares, begun = [], []
        for _ in range(ROUNDS):
            before = timed(train)
            with tempfile.TemporaryDirectory() as folder:
                monitor = Timed(f"{folder}/r.zarr", batch, every=EVERY, background=background, **options)
                watched = timed(lambda monitor=monitor: train(monitor)) - monitor.begun
            shares.append(watched / ((before + timed(train)) / 2))
            begun.append(monitor.begun[0])
        way = f"{name}, {'in a second thread' if background else 'at once'}, {TRAINED} steps"
        clock, cores = np.median(shares, axis=0)
        yield {"what": f"training, a monitor every {EVERY} steps ÷ alone", "case": way, "ratio": clock}
        yield {"what": "the same, processor time", "case": way, "ratio": cores}
        yield {"what": "seconds: beginning of a monitor", "case": way, "ratio": median(begun)}


def timed(call) -> np.ndarray:
    start = seconds()
    call()
    return seconds() - start


def write_row() -> Row:
    """Processor time of writing one summary late in a run ÷ early in it."""
    leaf = tt.testing.constant_gates(samples=PROBED, steps=STEPS)["rnn"].to_dataset()
    tree = reduce_tree(xr.DataTree.from_dict({"lower": leaf, "upper": leaf}), "summary")
    spent = []
    with tempfile.TemporaryDirectory() as folder, Run(Path(folder) / "r.zarr") as run:
        for step in range(LATE + AROUND):
            start = time.process_time()
            run.append(tree, step)
            spent.append(time.process_time() - start)
    early, late = median(spent[EARLY : EARLY + AROUND]), median(spent[LATE : LATE + AROUND])
    return {
        "what": f"writing step {LATE} ÷ step {EARLY}",
        "case": f"{1e3 * early:.1f} ms",
        "ratio": late / early,
    }


def rows():
    library = os.environ.get("THROUGHTIME_BENCH_LIBRARY", "keras")
    if library == "torch":
        yield from cost_rows("a loop in torch", torch_training())
        yield write_row()
    else:
        yield from cost_rows("fit", keras_training(library))


if __name__ == "__main__":
    emit(rows())
