"""What an extra is for, tried with an installed wheel: `python tests/extras.py torch`, or `nox -s extras`."""

import os
import subprocess
import sys
import tempfile
from importlib import import_module
from importlib.metadata import packages_distributions

import numpy as np

import throughtime as tt

X, Y = np.ones((4, 5, 2), np.float32), np.zeros((4, 1), np.float32)
BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "keras2": "tensorflow"}
OFFLINE = {"WANDB_MODE": "offline", "TRACKIO_DIR": "trackio", "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
LOGGERS = {each.lower(): each for each in dir(tt.loggers)}


def last_loss(output, y):
    return ((output[0][:, -1, :1] - y) ** 2).mean()


def keras(extra):
    library = import_module("tf_keras" if extra == "tf_keras" else "keras")
    recurrent = library.layers.GRU(3, name="rnn")
    model = library.Sequential([library.layers.Input((5, 2)), recurrent, library.layers.Dense(1)])
    model.compile(loss="mse")
    assert tt.capture(model, X, Y)["rnn"]["hidden_gradient"].shape == (4, 5, 3)


def torch(extra):
    assert "keras" not in packages_distributions()
    library = import_module("torch")
    model, data = library.nn.GRU(2, 3, batch_first=True), (library.from_numpy(X), library.from_numpy(Y))
    assert tt.capture(model, *data, loss=last_loss)["gru"]["hidden_gradient"].shape == (4, 5, 3)
    if extra in ("lightning", "transformers"):
        getattr(tt.Monitor("trained.zarr", batch=data, loss=last_loss), extra)()
    if extra == "sweep":
        with import_module("distributed").Client(processes=False, dashboard_address=None) as client:
            tt.sweep(model, data, loss=last_loss, to="sweep", executor=client.get_executor())
    if extra == "demo":
        assert len(import_module("throughtime._cli.demo.training").read_digits()[0][0])


def jax(extra):
    library = import_module("jax")

    def program(x):
        def step(state, now):
            return library.numpy.tanh(0.5 * state + now), None

        return library.lax.scan(step, library.numpy.zeros((len(x), 2)), x.swapaxes(0, 1))[0]

    (leaf,) = tt.capture(program, X, Y, loss=lambda output, y: (output - y) ** 2).leaves
    assert leaf["hidden_gradient"].shape == (4, 5, 2)
    keras(extra)


def logger(extra):
    log = getattr(tt.loggers, LOGGERS[extra])(*["logs"] * (extra in ("tensorboard", "parquet")))
    log.write(tt.loggers.Record(1, {"detail/rnn/loss": 0.5}, tt.testing.decaying(samples=4)))
    getattr(log, "close", list)()


def no_framework(extra):
    tt.report(tt.testing.decaying(samples=4), "report.html")
    import_module("throughtime._pages.live.page")
    with import_module("throughtime._store").Run("run.zarr") as run:
        run.append(tt.testing.decaying(samples=4), 0)
    export = ["export", "run.zarr", "-o", "run.nc" if extra == "netcdf" else "run.npz"]
    for arguments in (["info", "run.zarr"], ["doctor"], export):
        subprocess.run([sys.executable, "-m", "throughtime._cli", *arguments], check=True)


if __name__ == "__main__":
    extra = sys.argv[1]
    sys.path.pop(0)  # this folder has others with the names of frameworks
    os.environ.update({"KERAS_BACKEND": BACKENDS.get(extra, "torch"), **OFFLINE})
    os.chdir(tempfile.mkdtemp())
    kinds = {"jax": jax} | dict.fromkeys(LOGGERS, logger) | dict.fromkeys(["none", "netcdf"], no_framework)
    kinds |= dict.fromkeys(["tensorflow", "keras-torch", "tf_keras", "keras2"], keras)
    kinds |= dict.fromkeys(["torch", "lightning", "transformers", "sweep", "demo"], torch)
    kinds[extra](extra)
