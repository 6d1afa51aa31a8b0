"""Numbers, histograms and images for Weights & Biases, online or offline."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from throughtime.loggers.library import library

if TYPE_CHECKING:
    from throughtime.loggers.record import Record

STEP = "throughtime/step"


class WandB:
    """Log to the run passed, else to the active run, else to a new one.

    The x-axis of the charts is the training step, which is logged as a separate metric. It does not depend on
    W&B's step counter, which other calls to `wandb.log` advance as well.

    Parameters
    ----------
    run : wandb run, optional
        The default is `wandb.run` at the time of the first record.
    histograms, images : see `TensorBoard`
    **options
        Arguments for `wandb.init` if no run is active, such as `project="memory"` or `mode="offline"`. The
        logger finishes a run that it created when training ends.

    Raises
    ------
    MissingDependencyError
        wandb is not installed.

    Examples
    --------
    >>> import throughtime as tt
    >>> logger = tt.loggers.WandB(project="memory", mode="offline")  # the first record starts a run
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
        """Log a whole record in one call."""
        if self._run is None:
            self._begin()
        found = as_logged(self._wandb, record, histograms=self._histograms, images=self._images)
        self._run.log({STEP: record.step, **found})

    def close(self) -> None:
        """Finish the run if the logger created it; training that continues resumes it."""
        if self._is_own and self._run is not None:
            self._options |= {"id": self._run.id, "resume": "allow"}
            self._run.finish()
        self._run = None

    def _begin(self) -> None:
        active = self._given or self._wandb.run
        self._is_own = active is None
        self._run = active or self._wandb.init(**self._options)
        self._run.define_metric(STEP, hidden=True)
        for name in ("throughtime/*", "detail/*"):
            self._run.define_metric(name, step_metric=STEP)


def as_logged(tracker: Any, record: Record, *, histograms: bool, images: bool) -> dict[str, Any]:
    """Return a record as W&B logs it, and trackers with the same interface."""
    found: dict[str, Any] = dict(record.numbers)
    for key, histogram in record.histograms.items() if histograms else ():
        found[key] = tracker.Histogram(np_histogram=tuple(histogram))
    for key, png in record.images.items() if images else ():
        found[key] = tracker.Image(library("PIL.Image", "WandB", "wandb").open(BytesIO(png)))
    return found
