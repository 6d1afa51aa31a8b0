"""`Monitor`: at chosen training steps a fixed batch is captured and one step of a run is committed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import xarray as xr

from throughtime._errors import MonitorError, ThroughTimeWarning
from throughtime._probe import Probe
from throughtime._store import Run
from throughtime.callbacks.keras import keras_callback
from throughtime.callbacks.lightning import lightning_callback

from .alarms import NAMES, Alarm, alarms_of
from .levels import LEVELS, level_of, stored
from .numbers import numbers
from .outlets import Outlets
from .record import Record
from .schedules import Schedule
from .schedules import every as every_steps

OnAlarm = Callable[[Alarm], None]


class Monitor:
    """Records what flows through time as training goes on. Training itself is left as it is, bit for bit.

    The state before the first training step is recorded as step 0, then what the schedule says, and the last
    step. A step that cannot be recorded gives a warning and never raises into training.

    Parameters
    ----------
    store : path-like
        A folder for the run. An existing run of the same layout is continued.
    batch : tuple (x, y) or (x, y, sample_weight)
        Captured each time; held-out data tell more than training data.
    every : int or callable (int) -> bool
        Training steps between records, or a schedule: `tt.every`, `tt.logarithmic`, or your own.
    quantities : "summary", "timestep", "full", or names of quantities
        "summary" keeps quantiles over samples of norms at each timestep, norms and changes of weights,
        saturation, the signal at each lag, loss and certificates; "timestep" norms of each sample at each
        timestep; "full" the whole capture.
    layers, loss
        See `capture`.
    budget : float, in bytes, optional
        Of the arrays stored, before compression. When it is reached every second record is dropped, and from
        then on half as many are made: early and late steps stay, recording never stops.
    vanishing_lag : int, optional
        An alarm is given where less than 1 % of the error signal reaches so far back.
    on_alarm : callable (Alarm), optional
    stop_on : names of alarms
        Training is stopped by them: in `fit` at once, in a loop of your own `should_stop` turns True.
    sinks : sequence of loggers
        `tt.sinks.CSV`, `Parquet`, `TensorBoard`, `WandB`, `MLflow`, or any object with `write(record)`.

    Attributes
    ----------
    alarms : list of Alarm
        What was seen, each once for each layer.
    should_stop : bool

    Examples
    --------
    >>> import keras, numpy as np, tempfile
    >>> import throughtime as tt
    >>> model = keras.Sequential([keras.Input((5, 2)), keras.layers.GRU(3), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((8, 5, 2), "float32"), np.ones((8, 1), "float32")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     monitor = tt.Monitor(f"{folder}/run.zarr", batch=(x[:4], y[:4]), every=2)
    ...     history = model.fit(x, y, batch_size=2, epochs=1, verbose=0, callbacks=[monitor.keras()])
    ...     tt.open_run(f"{folder}/run.zarr")["gru"]["step"].values.tolist()
    [0, 2, 4]
    """

    def __init__(  # noqa: PLR0913 - all but two have a default that serves
        self,
        store: str | os.PathLike[str],
        batch: Sequence[Any],
        *,
        every: int | Schedule = 50,
        quantities: str | Iterable[str] = "summary",
        layers: Any = "recurrent",
        loss: Any = None,
        budget: float | None = None,
        vanishing_lag: int | None = None,
        on_alarm: OnAlarm | None = None,
        stop_on: str | Collection[str] = (),
        sinks: Sequence[Any] = (),
    ) -> None:
        self.alarms: list[Alarm] = []
        self.should_stop = False
        self._path, self._batch = store, _checked_batch(batch)
        self._is_due = every if callable(every) else every_steps(every)
        self._level = level_of(quantities)
        self._layers, self._loss, self._lag, self._on_alarm = layers, loss, vanishing_lag, on_alarm
        self._budget, self._stride, self._passed = budget, 1, 0
        self._stops = _checked_alarms(stop_on)
        self._sinks = Outlets(sinks, self._warn)
        self._probe: Probe | None = None
        self._run: Run | None = None
        self._before: xr.DataTree | None = None
        self._step = 0
        self._warned: set[str] = set()

    def keras(self) -> Any:
        """Make a callback for `fit` of Keras 3.

        Returns
        -------
        keras.callbacks.Callback
        """
        return keras_callback(self, "keras")

    def tf_keras(self) -> Any:
        """Make a callback for `fit` of tf_keras.

        Returns
        -------
        tf_keras.callbacks.Callback
        """
        return keras_callback(self, "tf_keras")

    def lightning(self) -> Any:
        """Make a callback for Lightning's Trainer; `loss` of the monitor is `(output, y)`, as in `capture`.

        Returns
        -------
        lightning.pytorch.Callback
        """
        return lightning_callback(self)

    @contextmanager
    def watch(self, model: Any, *, loss: Any = None) -> Iterator[Monitor]:
        """Record a loop of your own: call `step` after each training step.

        Parameters
        ----------
        model : any model that `capture` takes
        loss : see `capture`
            By default the monitor's own, or what the model was compiled with.
        """
        self.begin(model, loss=loss)
        try:
            yield self
        finally:
            self.end()

    def begin(self, model: Any, *, loss: Any = None) -> None:
        """Open the run and record the state before the first training step.

        Raises
        ------
        ThroughTimeError
            The batch does not fit, there is no loss, the run is another's: before training starts.
        """
        if self._run is not None:
            raise MonitorError("This monitor records already. End it first, or make one for each training.")
        loss = self._loss if loss is None else loss
        quantities = "all" if self._level in LEVELS else self._level
        probe = Probe(model, loss=loss, layers=self._layers, quantities=quantities)
        tree = probe(*self._batch[:2], sample_weight=self._batch[2])
        self._run, self._probe = Run(self._path), probe
        try:
            self._begin_with(tree, self._run)
        except BaseException:
            self._close()
            raise

    def _begin_with(self, tree: xr.DataTree, run: Run) -> None:
        """Record the beginning, or see that an existing run can be continued."""
        self._step = run.steps[-1] if run.steps else 0
        kept = stored(tree, self._level, None)
        if self._budget is not None and 2 * kept.nbytes > self._budget:
            raise MonitorError(
                f"budget={self._budget:,.0f} bytes do not hold two records of {kept.nbytes:,} bytes each. "
                "Give more, or store less: quantities='summary', fewer layers."
            )
        if run.steps:
            run.check(kept, self._step + 1)
        else:
            run.append(kept, self._step)
        self._look(tree, kept, is_new=len(run.steps) == 1)

    def step(self, count: int = 1) -> None:
        """Tell that a training step has been made, or several; record if it is time.

        Parameters
        ----------
        count : int
        """
        passed = range(self._step + 1, self._step + count + 1)
        self._step += count
        if any(self._guarded(self._is_due, step) for step in passed):
            self._passed += 1
            if self._passed % self._stride == 0:
                self.record()

    def record(self) -> None:
        """Record the present state, whatever the schedule says."""
        self._guarded(self._record)

    def end(self) -> None:
        """Record the last step and close the run."""
        if self._run is not None:
            self.record()
            self._close()
            self._sinks.close()

    def _close(self) -> None:
        if self._run is not None:
            self._run.close()
        self._run = self._probe = self._before = None

    def _record(self) -> None:
        if self._run is None or self._probe is None:
            raise MonitorError("Nothing is watched: use monitor.keras(), or `with monitor.watch(model):`.")
        if self._run.steps and self._run.steps[-1] >= self._step:
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tree = self._probe(*self._batch[:2], sample_weight=self._batch[2])
        kept = stored(tree, self._level, self._before)
        if self._budget is not None and self._run.nbytes + kept.nbytes > self._budget:
            self._run, self._stride = self._run.thinned(), 2 * self._stride
            self._warn(
                f"{self._path} has reached its budget of {self._budget:,.0f} bytes: every second record was "
                f"dropped, and from now on one in {self._stride} is made."
            )
        self._run.append(kept, self._step)
        self._look(tree, kept)
        is_broken = any(alarm.name == "nonfinite" for alarm in self.alarms)
        for each in caught:
            # A framework's own is for the user's filters to judge.
            if not issubclass(each.category, ThroughTimeWarning):
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
            elif not is_broken:  # else the certificate only says so again
                self._warn(str(each.message))

    def _look(self, tree: xr.DataTree, kept: xr.DataTree, *, is_new: bool = True) -> None:
        """Look for what is wrong in a capture, and tell sinks of one they have not had."""
        summary = kept if self._level == "summary" else stored(tree, "summary", self._before)
        self._before = tree
        if self._sinks and is_new:
            self._sinks.write(Record(self._step, numbers(summary), tree))
        for alarm in alarms_of(tree, summary, self._step, self._lag):
            self._give(alarm)

    def _give(self, alarm: Alarm) -> None:
        if any((alarm.name, alarm.layer) == (given.name, given.layer) for given in self.alarms):
            return
        self.alarms.append(alarm)
        if alarm.name in self._stops:
            self.should_stop = True
        if self._on_alarm is not None:
            self._guarded(self._on_alarm, alarm)
        else:
            self._warn(str(alarm))

    def _guarded(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Run what must not stop a training that took hours: an error becomes a warning, each once."""
        try:
            return action(*arguments)
        except Exception as error:  # whatever it is, training goes on
            self._warn(f"The monitor could not record: {type(error).__name__}: {error}")
            return None

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(text, ThroughTimeWarning, stacklevel=4)


def _checked_batch(batch: Any) -> tuple[Any, Any, Any]:
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise MonitorError(
            f"batch= is a pair (x, y), or (x, y, sample_weight), not {type(batch).__name__}: gradients need "
            "labels."
        )
    x, y, *weight = batch
    return x, y, weight[0] if weight else None


def _checked_alarms(names: str | Collection[str]) -> frozenset[str]:
    asked = frozenset({names} if isinstance(names, str) else names)
    if unknown := asked - set(NAMES):
        raise MonitorError(f"stop_on={sorted(unknown)}: alarms are called {', '.join(NAMES)}.")
    return asked
