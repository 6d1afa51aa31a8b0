"""Numbers, histograms and images for Trackio, Hugging Face's tracker on this machine or in a Space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from throughtime.loggers.library import library
from throughtime.loggers.wandb import as_logged

if TYPE_CHECKING:
    from throughtime.loggers.record import Record


class Trackio:
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

    def __init__(
        self, run: Any = None, *, histograms: bool = True, images: bool = False, **options: Any
    ) -> None:
        self._trackio = library("trackio", "Trackio", "trackio")
        self._given, self._options = run, {"project": "throughtime", **options}
        self._parts = {"histograms": histograms, "images": images}
        self._run: Any = None
        self._is_own = False

    def begin(self) -> None:
        """Find the active run of this thread; Trackio has one for each thread."""
        self._run = self._given or self._trackio.context_vars.current_run.get()

    def write(self, record: Record) -> None:
        """Log a whole record in one call."""
        if self._run is None:
            self._run, self._is_own = self._trackio.init(**self._options), True
        self._run.log(as_logged(self._trackio, record, **self._parts), step=record.step)

    def close(self) -> None:
        """Finish the run if the logger created it; training that continues resumes it."""
        if self._is_own and self._run is not None:
            self._options |= {"name": self._run.name, "resume": "allow"}
            self._run.finish()
        self._run, self._is_own = None, False
