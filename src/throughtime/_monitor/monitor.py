"""`Monitor`: at chosen training steps a fixed batch is captured and one step of a run is committed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from throughtime._alarm import Alarm
from throughtime._arguments import takes
from throughtime._errors import MonitorError
from throughtime.callbacks.keras import NotACallback, keras_callback
from throughtime.callbacks.lightning import lightning_callback
from throughtime.callbacks.transformers import transformers_callback

from . import schedules, settings
from .gradient_norms import Told
from .levels import level_of
from .notices import Notices, OnAlarm
from .outlets import Outlets
from .page import Page
from .place import Place
from .recorder import Recorder
from .settings import Settings


@takes(MonitorError, **settings.RULES)
class Monitor(NotACallback):
    """Records what flows through time as training goes on. Training itself is left as it is, bit for bit.

    The state before the first training step is recorded as step 0, then what the schedule says, and the last
    step. A step that cannot be recorded gives a warning and never raises into training.

    Parameters
    ----------
    store : path-like
        A folder for the run; `path` has it in full.
    mode : "auto", "new", "continue" or "overwrite"
        For where there is a run already. "auto" goes on with it only if it ends with exactly the weights that
        the model has, and raises `StoreError` otherwise; "continue" goes on with it in any case; "overwrite"
        replaces it; "new" always records into a dated folder beside it, run-20261128-0715.zarr. In each mode
        a monitor goes on with its own run if training goes on.
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
    budget : float, in bytes, or str such as "2 GB", optional
        Of the arrays stored, before compression. When it is reached every second record is dropped, and from
        then on half as many are made: early and late steps stay, recording never stops.
    vanishing_lag : int, "half", None or False
        Lag that 1 % of the gradient has to reach, or there is a "vanishing" alarm: by default half of the
        window, as the live page shows it. None or False turns the alarm off.
    on_alarm : callable (Alarm), optional
        `rich.print` writes a line each. By default an alarm is a warning.
    stop_on : names of alarms
        Training is stopped by them: in `fit` at once, in a loop of your own `should_stop` turns True.
    sinks : sequence of loggers
        `tt.sinks.CSV`, `Parquet`, `TensorBoard`, `WandB`, `MLflow`, `Trackio`, or any object with
        `write(record)`.
    background : bool
        With True training waits for a pass of the model only; a second thread does the rest, storing and
        sinks included. It pays off for large records and slow disks or sinks, not beside training steps of
        milliseconds. Warnings, `on_alarm` and `stop_on` come with the next record at the latest. A killed
        process loses up to two pending records; with False none whose `step` has returned.

    Raises
    ------
    LayerNotFoundError
        No layer of the model is named so.
    LossError
        Gradients are asked for, and there is no loss, there are no labels, or they do not fit.
    MissingDependencyError
        A library that is needed is not installed.
    MonitorError
        An argument is not as described above.

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
        mode: str = "auto",
        every: int | schedules.Schedule = 50,
        quantities: str | Iterable[str] = "summary",
        layers: Any = "recurrent",
        loss: Any = None,
        budget: float | str | None = None,
        vanishing_lag: int | str | None = settings.HALF,
        on_alarm: OnAlarm | None = None,
        stop_on: str | Collection[str] = (),
        sinks: Sequence[Any] = (),
        background: bool = False,
    ) -> None:
        self._notices = Notices(on_alarm, frozenset(stop_on))
        self._settings = Settings(
            place=Place(store, mode),
            batch=settings.checked_batch(batch),
            level=level_of(quantities),
            layers=layers,
            budget=settings.checked_budget(budget),
            vanishing_lag=settings.checked_lag(vanishing_lag),
            sinks=Outlets(sinks, self._notices.leave),
            background=background,
            schedule=settings.schedule_in_words(every),
        )
        self._is_due = every if callable(every) else schedules.every(every)
        self._loss = loss
        self._recorder: Recorder | None = None
        self._step = self._passed = 0
        self._page = Page(self._settings.place)

    @property
    def path(self) -> Path:
        """Folder of the run."""
        return self._settings.place.path

    @property
    def alarms(self) -> list[Alarm]:
        """What was seen, each once for each layer."""
        return self._notices.alarms

    @property
    def should_stop(self) -> bool:
        """Whether an alarm of `stop_on` was seen."""
        return self._notices.should_stop

    @property
    def url(self) -> str:
        """Address of a page that follows the run, on this machine only.

        A thread serves it until `close`, or the end of the process. `throughtime watch RUN` serves it, too.
        """
        return self._page.url

    def close(self) -> None:
        """Stop serving the page; recording is not touched."""
        self._page.close()

    def keras(self) -> Any:
        """Make a `keras.callbacks.Callback` for `fit`."""
        return keras_callback(self, "keras")

    def tf_keras(self) -> Any:
        """Make a `tf_keras.callbacks.Callback` for `fit`."""
        return keras_callback(self, "tf_keras")

    def lightning(self) -> Any:
        """Make a `lightning.pytorch.Callback`, which gives norms before clipping as well, see `step`.

        `loss` of the monitor is `(output, y)`, as in `capture`.
        """
        return lightning_callback(self, self._notices.guarded)

    def transformers(self) -> Any:
        """Make a `transformers.TrainerCallback`. `loss` of the monitor is `(output, y)`, as in `capture`.

        Raises
        ------
        MissingDependencyError
            transformers is not installed.
        """
        return transformers_callback(self)

    @contextmanager
    def watch(self, model: Any, *, loss: Any = None, optimizer: Any = None) -> Iterator[Monitor]:
        """Record a loop of your own: call `step` after each training step.

        Parameters
        ----------
        model : any model that `capture` takes
        loss : see `capture`; by default the monitor's own, or what the model was compiled with
        optimizer : see `diagnose`
        """
        self.begin(model, loss=loss, optimizer=optimizer)
        try:
            yield self
        finally:
            self.end()

    def begin(self, model: Any, *, loss: Any = None, optimizer: Any = None) -> None:
        """Open the run and record the state before the first training step; see `watch`.

        Raises
        ------
        ThroughTimeError
            The batch does not fit, there is no loss, the run is another training's: before training starts.
        """
        if self._recorder is not None:
            raise MonitorError("This monitor records already. End it first, or make one for each training.")
        loss = self._loss if loss is None else loss
        settings.tried(self._is_due, 1)
        self._recorder = Recorder(model, loss, self._settings, self._notices, optimizer)
        self._step = self._recorder.last_step
        self._notices.deliver()

    def step(
        self,
        count: int = 1,
        *,
        gradient_norm: Any = None,
        clip_norm: Any = None,
        loss_scale: Any = None,
    ) -> None:
        """Tell that a training step has been made, or several; record if it is time.

        Norms come back as variables of the run's root: `gradient_norm` and `clip_ratio`, the share of it that
        clipping left, of the step that is recorded; `gradient_norm_largest` and `clipped_share` of all steps
        since the last record. They are evidence of alarms, and one that is not finite is an alarm.

        Parameters
        ----------
        count : int
            0 or more.
        gradient_norm : float or scalar tensor, optional
            Norm of all gradients before clipping: what `torch.nn.utils.clip_grad_norm_` returns.
        clip_norm : float, optional
            What the norm is clipped to, without the loss scale.
        loss_scale : float, optional
            In mixed precision, what these gradients are still multiplied by: `scaler.get_scale()`, or 1 after
            `scaler.unscale_(optimizer)`. A norm that is not finite is then a step which the scaler skips.

        Raises
        ------
        MonitorError
            `count` is no whole number, or a negative one.

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
        count = settings.checked_count(count)
        if gradient_norm is not None:
            self.tell_gradient_norm(gradient_norm, clip_norm=clip_norm, loss_scale=loss_scale)
        passed = range(self._step + 1, self._step + count + 1)
        self._step += count
        if any(self._notices.guarded(self._is_due, step) for step in passed):
            self._passed += 1
            if self._recorder is None or self._passed % self._recorder.stride == 0:
                self.record()
        self._notices.deliver()

    def tell_gradient_norm(
        self,
        norm: Any,
        *,
        clip_norm: Any = None,
        clipped_norm: Any = None,
        loss_scale: Any = None,
    ) -> None:
        """Tell the norm of the next training step before `step` is called for it, as callbacks do.

        Parameters
        ----------
        norm, clip_norm, loss_scale
            See `step`.
        clipped_norm : float or scalar tensor, optional
            Norm after clipping, where it was not clipped to a norm.
        """
        if self._recorder is not None:
            told = Told(self._step + 1, norm, clip_norm, clipped_norm, loss_scale)
            self._notices.guarded(self._recorder.gradient_norms.tell, told)

    def record(self) -> None:
        """Record the present state, whatever the schedule says."""
        self._notices.guarded(self._record)
        self._notices.deliver()

    def end(self) -> None:
        """Record the last step, wait until all is stored, and close the run."""
        if self._recorder is None:
            return
        try:
            self._recorder.drain()
            self.record()
            self._recorder.drain()
        finally:
            self._recorder.close()
            self._recorder = None
            self._settings.sinks.close()
            self._notices.deliver()

    def _record(self) -> None:
        if self._recorder is None:
            raise MonitorError("Nothing is watched: use monitor.keras(), or `with monitor.watch(model):`.")
        self._recorder.record(self._step)
