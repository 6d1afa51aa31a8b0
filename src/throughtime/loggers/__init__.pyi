"""The loggers: type checkers read them here, and `__init__.py` loads each when it is first used."""

from .csv import CSV as CSV
from .mlflow import MLflow as MLflow
from .parquet import Parquet as Parquet
from .record import Record as Record
from .tensorboard import TensorBoard as TensorBoard
from .trackio import Trackio as Trackio
from .wandb import WandB as WandB
