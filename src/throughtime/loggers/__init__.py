"""Loggers to which a monitor writes its records. Each is one file with one method, `write(record)`.

A `Record` has `step`, `numbers` whose keys are grouped as `throughtime/<layer>/<direction>/<quantity>`,
`histograms` and `images`, which are computed when a logger reads them, and the whole `capture`. A custom
logger is any object with that method; it may also have `begin()` and `close()`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from throughtime._errors import did_you_mean

if TYPE_CHECKING:
    from throughtime._monitor.record import Record as Record
    from throughtime.loggers.csv import CSV as CSV
    from throughtime.loggers.mlflow import MLflow as MLflow
    from throughtime.loggers.parquet import Parquet as Parquet
    from throughtime.loggers.tensorboard import TensorBoard as TensorBoard
    from throughtime.loggers.trackio import Trackio as Trackio
    from throughtime.loggers.wandb import WandB as WandB

_HOMES = {
    "CSV": "loggers.csv",
    "MLflow": "loggers.mlflow",
    "Parquet": "loggers.parquet",
    "Record": "_monitor.record",
    "TensorBoard": "loggers.tensorboard",
    "Trackio": "loggers.trackio",
    "WandB": "loggers.wandb",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - the one list above is the truth


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        hint = did_you_mean(name, __all__) or f" It has {', '.join(__all__)}."
        raise AttributeError(f"module 'throughtime.loggers' has no attribute {name!r}.{hint}", name=name)
    return getattr(import_module(f"throughtime.{_HOMES[name]}"), name)
