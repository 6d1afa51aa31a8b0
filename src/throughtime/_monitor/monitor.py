"""`Monitor`: captures a fixed batch at chosen training steps and commits each capture to a run."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from warnings import warn

from throughtime._errors import MonitorError
from throughtime._inputs import takes
from throughtime.diagnostics.alarm import Alarm

from . import schedules, settings
from .callbacks import Callbacks
from .gradient_norms import StepNorms
from .guards import LoggerGroup, OnAlarm, WarningQueue
from .levels import level_of
from .overview import show_monitor
from .place import Place, ServedPage
from .recorder import Recorder


@takes(MonitorError, **settings.RULES)
class Monitor(Callbacks):
    """Records what flows through time during training, and leaves training unchanged, bit for bit.

    The monitor records the state before the first training step as step 0, then the steps of the schedule,
    and the last step. If a step cannot be recorded, it warns and never raises an error into training.

    Parameters
    ----------
    store : path-like
        Folder of the run; `path` is its full path.
    mode : "auto", "new", "continue" or "overwrite"
        Applies if the folder holds a run. "auto" continues the run only if it ends with exactly the weights
        that the model has, and raises `StoreError` otherwise; "continue" continues it in any case;
        "overwrite" replaces it; "new" always records into a dated folder beside it, such as
        run-20261128-0715.zarr. In each mode a monitor continues its own run if training continues.
    batch : tuple (x, y) or (x, y, sample_weight)
        Captured at each recorded step. Held-out data are more informative than training data.
    every : int or callable (int) -> bool
        Training steps between records, or a schedule: `tt.every`, `tt.logarithmic`, or a custom function.
    quantities : "summary", "timestep", "full", or names of quantities
        "summary" stores quantiles over samples of norms at each timestep, norms and changes of weights,
        saturation, the gradient ratio at each lag, loss and certificates. "timestep" stores norms of each
        sample at each timestep, and "full" the whole capture.
    layers, loss : see `capture`
    budget : float, in bytes, or str such as "2 GB", optional
        Limit for the stored arrays, before compression. When the limit is reached, every second record is
        dropped, and from then on half as many are made. Early and late steps remain; recording never stops.
    vanishing_lag : int, "half", None or False
        Lag that 1 % of the gradient has to reach; otherwise the "vanishing" alarm is raised. The default is
        half of the window, which the live page uses as well. None or False turns the alarm off.
    on_alarm : callable (Alarm), optional
        `rich.print` prints one line for each alarm. By default an alarm is a warning.
    stop_on : names of alarms
        Alarms that stop training: `fit` stops at once; in a custom loop `should_stop` becomes True.
    loggers : sequence of loggers
        `tt.loggers.CSV`, `Parquet`, `TensorBoard`, `WandB`, `MLflow`, `Trackio`, or any object with
        `write(record)`.
    background : bool
        If True, training waits only for a pass of the model; a second thread does the rest, including storing
        and loggers. This pays off for large records and for slow disks or loggers, not for training steps of
        milliseconds. Warnings, `on_alarm` and `stop_on` take effect at the next record at the latest. If the
        process is killed, up to two pending records are lost; with False, every record whose `step()` has
        returned is on disk.
    sinks : deprecated name of `loggers`

    Raises
    ------
    LayerNotFoundError
        The model has no layer of that name.
    LossError
        Gradients are requested, and the loss or the targets are missing, or the targets do not fit.
    MissingDependencyError
        A required library is not installed.

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

    def __init__(  # noqa: PLR0913 - all but two have useful defaults
        self,
        store: str | os.PathLike[str],
        batch: Sequence[Any],
        *,
        mode: str = "auto",
        every: int | schedules.Schedule = 50,
        quantities: str | Iterable[str] = "summary",
        layers: Any = "recurrent",
        loss: Any = None,
        budget: float | str | None = None,
        vanishing_lag: int | str | None = settings.HALF,
        on_alarm: OnAlarm | None = None,
        stop_on: str | Collection[str] = (),
        loggers: Sequence[Any] = (),
        background: bool = False,
        sinks: Any = None,
    ) -> None:
        if sinks is not None:
            warn("Monitor(sinks=…) is now called loggers=….", DeprecationWarning, stacklevel=3)
            loggers = sinks
        self._warnings = WarningQueue(on_alarm, frozenset(stop_on))
        self._settings = settings.Settings(
            place=Place(store, mode),
            batch=settings.check_batch(batch),
            level=level_of(quantities),
            layers=layers,
            budget=settings.BUDGET("budget", budget, MonitorError),
            vanishing_lag=settings.LAG("vanishing_lag", vanishing_lag, MonitorError),
            loggers=LoggerGroup(loggers, self._warnings.leave),
            background=background,
            schedule=settings.schedule_in_words(every),
        )
        self._is_due = every if callable(every) else schedules.every(every)
        self._loss = loss
        self._recorder: Recorder | None = None
        self._step = self._passed = 0
        self._page = ServedPage(self._settings.place)

    @property
    def path(self) -> Path:
        """Folder of the run."""
        return self._settings.place.path

    @property
    def alarms(self) -> list[Alarm]:
        """Alarms so far; each name occurs once for each layer."""
        return self._warnings.alarms

    @property
    def should_stop(self) -> bool:
        """Whether an alarm listed in `stop_on` was raised."""
        return self._warnings.should_stop

    @property
    def url(self) -> str:
        """Address of a page on this machine that follows the run, until `close` or the end of the process."""
        return self._page.url

    def _repr_html_(self) -> str:
        return show_monitor(self.path, self._step, is_recording=self._recorder is not None)

    def close(self) -> None:
        """Stop serving the page; recording continues."""
        self._page.close()

    @contextmanager
    def watch(self, model: Any, *, loss: Any = None, optimizer: Any = None) -> Iterator[Monitor]:
        """Record a custom training loop: call `step` after each training step.

        Parameters
        ----------
        model : any model that `capture` takes
        loss : see `capture`; the default is the monitor's loss, else that of the compiled model
        optimizer : see `diagnose`
        """
        self.begin(model, loss=loss, optimizer=optimizer)
        try:
            yield self
        except BaseException:
            if self._recorder is not None:
                self._recorder.leave()  # other processes are somewhere else
            raise
        finally:
            self.end()

    def begin(self, model: Any, *, loss: Any = None, optimizer: Any = None, of_all: bool = False) -> None:
        """Open the run and record the state before the first training step; see `watch`.

        With `of_all` all processes train replicas of this model, which is passed without its parallel module.

        Raises
        ------
        ThroughTimeError
            The batch does not fit, there is no loss, or the run belongs to another training.
        """
        if self._recorder is not None and self._recorder.has_trained(model, self._step):
            self._recorder.interrupt(self._step)  # callbacks are not notified of it
            self.end()
        if self._recorder is not None:
            raise MonitorError("This monitor is recording already. Call end() first, or create another one.")
        settings.try_schedule(self._is_due)
        given = replace(self._settings, of_all=of_all)
        self._recorder = Recorder(model, loss or self._loss, given, self._warnings, optimizer)
        self._step = self._recorder.last_step
        self._warnings.deliver()

    def step(
        self, count: Any = 1, *, gradient_norm: Any = None, clip_norm: Any = None, loss_scale: Any = None
    ) -> None:
        """Count one or several training steps, and record if the schedule asks for it.

        Norms become variables of the run's root: `gradient_norm` and `clip_ratio`, the share of it that
        clipping left, describe the recorded step; `gradient_norm_largest` and `clipped_share` describe all
        steps since the last record. They are evidence for alarms; a norm that is not finite is an alarm.

        Parameters
        ----------
        count : int, or a JAX model
            Number of steps, 0 or more. In JAX, the new model that the training step returned: one step.
        gradient_norm : float or scalar tensor, optional
            Norm of all gradients before clipping, as `torch.nn.utils.clip_grad_norm_` returns it.
        clip_norm : float, optional
            Largest norm after clipping, without the loss scale.
        loss_scale : float, optional
            In mixed precision, the factor that these gradients still contain: `scaler.get_scale()`, or 1
            after `scaler.unscale_(optimizer)`. The scaler skips a step whose norm is not finite.

        Raises
        ------
        MonitorError
            `count` is not a whole number, or it is negative.

        Examples
        --------
        >>> import tempfile, torch
        >>> from torch import nn
        >>> import throughtime as tt
        >>> model, loss = nn.RNN(2, 3, batch_first=True), lambda output, y: (output[0] - y).square().mean()
        >>> x, y = torch.ones(4, 5, 2), torch.zeros(4, 5, 3)
        >>> optimizer = torch.optim.SGD(model.parameters(), 0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     monitor = tt.Monitor(f"{folder}/run.zarr", batch=(x, y), every=2)
        ...     with monitor.watch(model, loss=loss):
        ...         for _ in range(4):
        ...             optimizer.zero_grad()
        ...             loss(model(x), y).backward()
        ...             norm = nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        ...             optimizer.step()
        ...             monitor.step(gradient_norm=norm, clip_norm=0.01)
        ...     tt.open_run(f"{folder}/run.zarr")["clipped_share"].values
        array([nan,  1.,  1.])
        """
        if callable(count):
            if self._recorder is not None:
                self._warnings.guard(self._recorder.follow, count)
            count = 1
        count = settings.COUNT("count", count, MonitorError)
        if gradient_norm is not None:
            self.report_gradient_norm(gradient_norm, clip_norm=clip_norm, loss_scale=loss_scale)
        passed = range(self._step + 1, self._step + count + 1)
        self._step += count
        if any(self._warnings.guard(self._is_due, step) for step in passed):
            self._passed += 1
            if self._recorder is None or self._passed % self._recorder.stride == 0:
                self.record()
        self._warnings.deliver()

    def report_gradient_norm(
        self, norm: Any, *, clip_norm: Any = None, clipped_norm: Any = None, loss_scale: Any = None
    ) -> None:
        """Report the norm of the next training step before `step` is called for it, as callbacks do.

        Parameters
        ----------
        norm, clip_norm, loss_scale : see `step`
        clipped_norm : float or scalar tensor, optional
            Norm after clipping, if gradients were not clipped by their norm.
        """
        if self._recorder is not None:
            norms = StepNorms(self._step + 1, norm, clip_norm, clipped_norm, loss_scale)
            self._warnings.guard(self._recorder.gradient_norms.add, norms)

    def record(self) -> None:
        """Record the present state, regardless of the schedule."""
        self._warnings.guard(self._record)
        self._warnings.deliver()

    def end(self) -> None:
        """Record the last step, wait until all records are stored, and close the run."""
        if self._recorder is None:
            return
        try:
            self._recorder.drain()
            self.record()
            self._recorder.drain()
        finally:
            self._recorder.close()
            self._recorder = None
            self._warnings.deliver()

    def _record(self) -> None:
        if self._recorder is None:
            raise MonitorError("This monitor watches no model: use monitor.keras() or monitor.watch(model).")
        self._recorder.record(self._step)
