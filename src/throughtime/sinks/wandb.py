"""Numbers, histograms and images for Weights & Biases, online or offline."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from throughtime.sinks.library import library

if TYPE_CHECKING:
    from throughtime._monitor.record import Record

STEP = "throughtime/step"


class WandB:
    """Log to the run given, else to the one that is active, else to one of its own.

    Charts have the training step as their axis, in a metric of their own: W&B's counter of calls, which is
    shared with what else is logged, does not matter.

    Parameters
    ----------
    run : wandb run, optional
        By default `wandb.run` as it is at the first record.
    histograms : bool
        Of weights, their gradients and gate activations, each gate apart.
    images : bool
        Norm of the gradient against time, at each record: drawing takes about 0.1 s a layer and direction.
    **options
        For `wandb.init` where no run is active, such as `project="memory"`, `mode="offline"`. A run of its
        own is finished with the training.

    Raises
    ------
    MissingDependencyError
        wandb is not installed.

    Examples
    --------
    >>> import throughtime as tt
    >>> sink = tt.sinks.WandB(project="memory", mode="offline")  # a run begins with the first record
    """

    def __init__(
        self, run: Any = None, *, histograms: bool = True, images: bool = False, **options: Any
    ) -> None:
        self._wandb = library("wandb", "WandB", "wandb")
        self._given, self._options = run, options
        self._histograms, self._images = histograms, images
        self._run: Any = None
        self._is_own = False

    def write(self, record: Record) -> None:
        """Log all that a record has at once."""
        if self._run is None:
            self._begin()
        found = logged(self._wandb, record, histograms=self._histograms, images=self._images)
        self._run.log({STEP: record.step, **found})

    def close(self) -> None:
        """Finish the run if it is this sink's own; a training that goes on resumes it."""
        if self._is_own and self._run is not None:
            self._options |= {"id": self._run.id, "resume": "allow"}
            self._run.finish()
        self._run = None

    def _begin(self) -> None:
        active = self._given or self._wandb.run
        self._is_own = active is None
        self._run = active or self._wandb.init(**self._options)
        self._run.define_metric(STEP, hidden=True)
        self._run.define_metric("throughtime/*", step_metric=STEP)


def logged(tracker: Any, record: Record, *, histograms: bool, images: bool) -> dict[str, Any]:
    """Return a record as W&B logs it, and trackers with the same interface."""
    found: dict[str, Any] = dict(record.numbers)
    for key, histogram in record.histograms.items() if histograms else ():
        found[key] = tracker.Histogram(np_histogram=tuple(histogram))
    for key, png in record.images.items() if images else ():
        found[key] = tracker.Image(library("PIL.Image", "WandB", "wandb").open(BytesIO(png)))
    return found
