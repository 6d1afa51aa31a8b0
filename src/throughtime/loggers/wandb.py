"""Numbers, histograms and images for Weights & Biases, online or offline."""

from io import BytesIO
from typing import Any

from PIL import Image

from throughtime.loggers.library import library
from throughtime.loggers.record import Record

STEP = "throughtime/step"


class Tracker:
    """A tracker with the interface of W&B: a run has an attribute, `_key`, by which it is resumed."""

    _key: str

    def __init__(self, name: str, run: Any, options: dict[str, Any], **parts: bool) -> None:
        module = name.lower()
        self._library = library(f"loggers.{name}", module, f"'throughtime[{module}]'")
        self._given, self._options, self._parts = run, options, parts
        self._run: Any = None
        self._is_own = False

    def close(self) -> None:
        """Finish the run if the logger created it; training that continues resumes it."""
        if self._is_own and self._run is not None:
            self._options |= {self._key: getattr(self._run, self._key), "resume": "allow"}
            self._run.finish()
        self._run, self._is_own = None, False

    def _logged(self, record: Record) -> dict[str, Any]:
        """Return a record with the tracker's histograms and images."""
        found: dict[str, Any] = dict(record.numbers)
        for key, histogram in record.histograms.items() if self._parts["histograms"] else ():
            found[key] = self._library.Histogram(np_histogram=tuple(histogram))
        for key, png in record.images.items() if self._parts["images"] else ():
            found[key] = self._library.Image(Image.open(BytesIO(png)))
        return found


class WandB(Tracker):
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

    _key = "id"

    def __init__(
        self, run: Any = None, *, histograms: bool = True, images: bool = False, **options: Any
    ) -> None:
        super().__init__("WandB", run, options, histograms=histograms, images=images)

    def write(self, record: Record) -> None:
        """Log a whole record in one call."""
        if self._run is None:
            self._begin()
        self._run.log({STEP: record.step, **self._logged(record)})

    def _begin(self) -> None:
        active = self._given or self._library.run
        self._is_own = active is None
        self._run = active or self._library.init(**self._options)
        self._run.define_metric(STEP, hidden=True)
        for name in ("throughtime/*", "detail/*"):
            self._run.define_metric(name, step_metric=STEP)
