"""Versions, and the models, loggers and files that this environment supports."""

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from throughtime._common.text.tables import Paragraph, Part, Table
from throughtime._monitor.provenance import version_of

LIBRARIES = ("numpy", "xarray", "scipy", "matplotlib", "bokeh", "zarr", "dask")
FRAMEWORKS = ("keras", "tensorflow", "jax", "torch", "tf_keras")
_INSIDE = (
    "LSTM, GRU and SimpleRNN (nn.RNN) show states, gates and all gradients inside. Custom cells of Keras, "
    "custom torch modules and scans of JAX show their states and what tt.mark names in them."
)


@dataclass(frozen=True)
class Support:
    """One row of the support table.

    `needs` has distributions with the beginning of their version, "" for any. `training` is the method of a
    monitor that follows training, `extra` that of `pip install`.
    """

    what: str
    needs: dict[str, str]
    training: str
    extra: str

    @property
    def is_here(self) -> bool:
        found = {name: version_of(name) for name in self.needs}
        return all(number and number.startswith(self.needs[name]) for name, number in found.items())


MODELS = (
    Support("Keras 3 on TensorFlow", {"keras": "3", "tensorflow": ""}, "keras()", "tensorflow"),
    Support("Keras 3 on JAX", {"keras": "3", "jax": ""}, "keras()", "jax"),
    Support("Keras 3 on torch", {"keras": "3", "torch": ""}, "keras()", "keras-torch"),
    Support("tf_keras, eager and graph", {"tf_keras": "2", "tensorflow": ""}, "tf_keras()", "tf_keras"),
    Support("Keras 2 of TensorFlow 2.15", {"keras": "2", "tensorflow": "2.1"}, "keras()", "keras2"),
    Support("PyTorch modules", {"torch": ""}, "watch()", "torch"),
    Support("Lightning's Trainer", {"torch": "", "lightning": ""}, "lightning()", "lightning"),
    Support("transformers' Trainer", {"torch": "", "transformers": ""}, "transformers()", "transformers"),
)
LOGGERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow-skinny": "mlflow", "trackio": "trackio"}
FILES = {"pyarrow": "parquet", "h5netcdf": "netcdf", "h5py": "netcdf"}


def as_json() -> dict[str, Any]:
    """Return versions by name, and the supported models."""
    names = ("throughtime", *LIBRARIES, *FRAMEWORKS, *LOGGERS, *FILES)
    return {
        "python": platform.python_version(),
        **{name: version_of(name) for name in names},
        "supports": {row.what: row.is_here for row in MODELS},
    }


def tables() -> Iterator[Part]:
    """Yield the same as tables, versions first."""
    numbers = {name: number for name, number in as_json().items() if name != "supports"}
    yield Table(tuple((name, number or _install(name)) for name, number in numbers.items()))
    heres = ("yes" if row.is_here else f"pip install 'throughtime[{row.extra}]'" for row in MODELS)
    rows = ((row.what, here, f"monitor.{row.training}") for row, here in zip(MODELS, heres, strict=True))
    yield Table(tuple(rows), ("models", "here", "while training"))
    yield Paragraph(_INSIDE)


def _install(name: str) -> str:
    extra = {**LOGGERS, **FILES, **{each: each for each in FRAMEWORKS if each != "keras"}}.get(name)
    return "not installed" if extra is None else f"not installed: pip install 'throughtime[{extra}]'"
