"""Numbers, histograms and images for Trackio, Hugging Face's tracker on this machine or in a Space."""

from typing import Any

from throughtime.loggers.record import Record
from throughtime.loggers.wandb import Tracker


class Trackio(Tracker):
    """Log to the run passed, else to the active run, else to a new one. The x-axis is the training step.

    Parameters
    ----------
    run : trackio Run, optional
        The default is the active run of the training thread when the monitor begins.
    histograms, images : see `TensorBoard`
    **options
        Arguments for `trackio.init` if no run is active, such as `project="memory"`. The logger finishes a
        run that it created when training ends.

    Raises
    ------
    MissingDependencyError
        trackio is not installed.

    Examples
    --------
    >>> import throughtime as tt
    >>> logger = tt.loggers.Trackio(project="memory")  # doctest: +SKIP
    """

    _key = "name"

    def __init__(
        self, run: Any = None, *, histograms: bool = True, images: bool = False, **options: Any
    ) -> None:
        options = {"project": "throughtime", **options}
        super().__init__("Trackio", run, options, histograms=histograms, images=images)

    def begin(self) -> None:
        """Find the active run of this thread; Trackio has one for each thread."""
        self._run = self._given or self._library.context_vars.current_run.get()

    def write(self, record: Record) -> None:
        """Log a whole record in one call."""
        if self._run is None:
            self._run, self._is_own = self._library.init(**self._options), True
        self._run.log(self._logged(record), step=record.step)
