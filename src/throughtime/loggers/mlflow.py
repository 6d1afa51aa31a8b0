"""Metrics and images for MLflow, on a server or in a SQLite file."""

import re
import time
from importlib import import_module
from io import BytesIO
from typing import Any

from PIL import Image

from throughtime.loggers.library import library
from throughtime.loggers.record import Record

METRICS_A_CALL = 1000  # MLflow's limit


class MLflow:
    """Log to the active run, or to a new one if none is active; MLflow's global state does not change.

    Parameters
    ----------
    tracking_uri : str, optional
        Such as `"sqlite:///mlflow.db"`; the default is MLflow's current tracking URI. The logger uses the run
        that is active there when the monitor begins, and otherwise creates one.
    experiment, run_name : str
        Names for a run that the logger creates.
    images : see `TensorBoard`

    Raises
    ------
    MissingDependencyError
        mlflow is not installed.

    Notes
    -----
    Characters of layer names that MLflow does not accept, such as the `@` of `lstm@2`, become `-`.

    Examples
    --------
    >>> import throughtime as tt
    >>> logger = tt.loggers.MLflow("sqlite:///mlflow.db")  # the first record creates the file
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        experiment: str = "throughtime",
        run_name: str | None = None,
        images: bool = False,
    ) -> None:
        self._mlflow = library("loggers.MLflow", "mlflow", "'throughtime[mlflow]'")
        self._entities: Any = import_module("mlflow.entities")
        self._uri, self._experiment, self._name, self._images = tracking_uri, experiment, run_name, images
        self._client: Any = None
        self._run = ""
        self._is_own = self._is_ended = False

    def begin(self) -> None:
        """Find the active run of this thread; MLflow has one for each thread."""
        if not self._run:
            self._begin()
        elif self._is_ended:
            self._client.update_run(self._run, status="RUNNING")
        self._is_ended = False

    def write(self, record: Record) -> None:
        """Log the numbers of a record and, on request, its images."""
        self.begin()
        now = int(1000 * time.time())
        metrics = [
            self._entities.Metric(_key(key), value, now, record.step) for key, value in record.numbers.items()
        ]
        for start in range(0, len(metrics), METRICS_A_CALL):
            self._client.log_batch(self._run, metrics=metrics[start : start + METRICS_A_CALL])
        for key, png in record.images.items() if self._images else ():
            self._client.log_image(self._run, Image.open(BytesIO(png)), key=_key(key), step=record.step)

    def close(self) -> None:
        """End the run if the logger created it; training that continues resumes it."""
        if self._is_own and self._run:
            self._client.set_terminated(self._run)
            self._is_ended = True
        else:
            self._run = ""

    def _begin(self) -> None:
        self._client = self._mlflow.MlflowClient(self._uri)
        is_here = self._uri in (None, self._mlflow.get_tracking_uri())
        active = self._mlflow.active_run() if is_here else None
        self._is_own = active is None
        self._run = (active or self._new_run()).info.run_id

    def _new_run(self) -> Any:
        known = self._client.get_experiment_by_name(self._experiment)
        experiment = known.experiment_id if known else self._client.create_experiment(self._experiment)
        return self._client.create_run(experiment, run_name=self._name)


def _key(key: str) -> str:
    return re.sub(r"[^\w\-./ ]", "-", key, flags=re.ASCII)
