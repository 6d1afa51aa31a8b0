"""Loggers that a monitor hands its records to: one file each, one method, `write(record)`.

A `Record` has `step`, plain `numbers` by keys grouped as `throughtime/<layer>/<direction>/<quantity>`,
`histograms` and `images` that are made when a sink asks for them, and the whole `capture`. A logger of your
own is any object with that method, and `close()` if it has something to close.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from throughtime._errors import did_you_mean

if TYPE_CHECKING:
    from throughtime._monitor.record import Record as Record
    from throughtime.sinks.csv import CSV as CSV
    from throughtime.sinks.mlflow import MLflow as MLflow
    from throughtime.sinks.parquet import Parquet as Parquet
    from throughtime.sinks.tensorboard import TensorBoard as TensorBoard
    from throughtime.sinks.trackio import Trackio as Trackio
    from throughtime.sinks.wandb import WandB as WandB

_HOMES = {
    "CSV": "sinks.csv",
    "MLflow": "sinks.mlflow",
    "Parquet": "sinks.parquet",
    "Record": "_monitor.record",
    "TensorBoard": "sinks.tensorboard",
    "Trackio": "sinks.trackio",
    "WandB": "sinks.wandb",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - the one list above is the truth


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        hint = did_you_mean(name, __all__) or f" It has {', '.join(__all__)}."
        raise AttributeError(f"module 'throughtime.sinks' has no attribute {name!r}.{hint}", name=name)
    return getattr(import_module(f"throughtime.{_HOMES[name]}"), name)
