"""Records one model into one open run: reduces each capture, commits it, logs it, looks for alarms."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from throughtime._capture.label import Captured
from throughtime._capture.probe import Probe
from throughtime._capture.solve import Warn
from throughtime._errors import MonitorError, ThroughTimeWarning
from throughtime.adapters.optimizer import optimizer_step
from throughtime.diagnostics.alarm import ATTRIBUTE, Alarm, alarms_of_run, as_attribute
from throughtime.loggers.record import Record

from .alarms import Training, alarms_of
from .arrays import Array, Reduced, apart_from_root, as_tree, by_key, nbytes
from .background import BackgroundWorker
from .fingerprints import weights_fingerprint
from .gradient_norms import GradientNorms, Norms
from .levels import LEVELS, QUANTILES, Weights, stored, weights_of
from .numbers import numbers, of_loop
from .place import WEIGHTS
from .provenance import attributes_of
from .settings import Settings
from .warning_queue import WarningQueue


class Recorder:
    """Records one model into one run.

    Parameters
    ----------
    model, loss : see `capture`
    settings : Settings
    warning_queue : WarningQueue
    optimizer : optimizer, optional
        The training loop's optimizer, if the model does not have it.

    Attributes
    ----------
    last_step : int
        Last training step that was recorded.
    stride : int
        One of `stride` due records is made; it doubles each time the budget is reached.
    optimizer : optimizer or None
        Its settings are evidence for alarms.
    gradient_norms : GradientNorms
        Norms that the training loop reports between records.

    Raises
    ------
    ThroughTimeError
        The batch does not fit, there is no loss, or the run belongs to another model. No run is open then.
    """

    def __init__(
        self, model: Any, loss: Any, settings: Settings, warning_queue: WarningQueue, optimizer: Any = None
    ) -> None:
        self._settings, self._warnings = settings, warning_queue
        self._before: Weights | None = None
        self._is_broken = False
        self.optimizer = optimizer or getattr(model, "optimizer", None)
        self._training = Training(settings.vanishing_lag, optimizer_step(self.optimizer))
        self.stride = 1
        self.gradient_norms = GradientNorms()
        quantities = "all" if settings.level in LEVELS else settings.level
        self._model = model
        self._probe = Probe(model, loss=loss, layers=settings.layers, quantities=quantities)
        x, y, weight = settings.batch
        captured = apart_from_root(self._probe.begin(x, y, sample_weight=weight)(_warn))
        kept = stored(captured, settings.level, None)
        self._check_budget(nbytes(kept))
        root = self._fingerprint()
        attributes = attributes_of(model, loss, settings, captured)
        self._run = settings.place.open(attributes, {**by_key(kept), **root})
        try:
            self._begin_with(captured, kept, root)
        except BaseException:
            self._run.close()
            raise
        self._worker = BackgroundWorker(in_background=settings.background)
        self.last_step = self._run.steps[-1]

    def record(self, step: int) -> None:
        """Capture the model's present state and commit it, unless the step is recorded already."""
        if self.last_step >= step:
            return
        x, y, weight = self._settings.batch
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            finish = self._probe.begin(x, y, sample_weight=weight)
        self._warnings.pass_on(caught)
        self.last_step = step
        self._training.optimizer = optimizer_step(self.optimizer)  # the learning rate may change
        norms = self._warnings.guarded(self.gradient_norms.take) or Norms()
        self._worker.put(self._warnings.guarded, self._keep, finish, step, norms, self._fingerprint())

    def follow(self, model: Any) -> None:
        """Record this model from now on: the same one after a training step that returned a new object."""
        self._probe.follow(model)
        self._model = model

    def drain(self) -> None:
        """Wait until each captured step is committed, or has failed with a warning."""
        self._worker.drain()
        self.last_step = self._run.steps[-1]

    def close(self) -> None:
        try:
            self._worker.close()
        finally:
            self._run.close()

    def _fingerprint(self) -> dict[str, Array]:
        """Return a hash of the weights, as a variable of the run's root."""
        return {WEIGHTS: Array((), np.asarray(weights_fingerprint(self._model), np.int64))}

    def _check_budget(self, needed: int) -> None:
        budget = self._settings.budget
        if budget is not None and 2 * needed > budget:
            raise MonitorError(
                f"budget={budget:,.0f} bytes do not hold two records of {needed:,} bytes each. "
                "Raise the budget, or store less: quantities='summary', fewer layers."
            )

    def _begin_with(self, captured: Captured, kept: Reduced, root: Mapping[str, Array]) -> None:
        """Record the first step of a new run, or check that an existing run can be continued."""
        step = self._run.steps[-1] if self._run.steps else 0
        is_new = not self._run.steps
        if is_new:
            tree = as_tree(kept, captured, QUANTILES)
            self._run.append(tree.assign({name: xr.Variable(*each) for name, each in root.items()}), step)
        else:
            self._run.check(by_key(kept), step + 1)
        self._settings.loggers.begin()
        self._look(captured, kept, step, Norms(), is_new=is_new)

    def _keep(
        self, finish: Callable[[Warn], Captured], step: int, norms: Norms, root: Mapping[str, Array]
    ) -> None:
        """Finish, store and log a capture; this needs no model and runs in any thread."""
        messages: list[str] = []
        captured = apart_from_root(finish(messages.append))
        kept = stored(captured, self._settings.level, self._before)
        self._keep_to_budget(nbytes(kept))
        self._run.append_arrays({**by_key(kept), **norms.arrays(), **root}, step)
        self._look(captured, kept, step, norms)
        if not self._is_broken:  # otherwise the certificate would report the same NaN again
            for text in messages:
                self._warnings.leave(text)

    def _keep_to_budget(self, more: int) -> None:
        budget = self._settings.budget
        if budget is None or self._run.nbytes + more <= budget:
            return
        self._run.thin()
        self.stride *= 2
        self._warnings.leave(
            f"{self._run.path} has reached its budget of {budget:,.0f} bytes: every second record was "
            f"dropped, and from now on one in {self.stride} due records is made."
        )

    def _look(
        self, captured: Captured, kept: Reduced, step: int, norms: Norms, *, is_new: bool = True
    ) -> None:
        """Write a new record to the loggers, and look for alarms in the capture."""
        settings = self._settings
        summary = kept if settings.level == "summary" else stored(captured, "summary", self._before)
        self._before = weights_of(captured)
        if settings.loggers and is_new:
            lag = settings.vanishing_lag if isinstance(settings.vanishing_lag, int) else None
            of_layers = numbers(as_tree(summary, captured, QUANTILES), lag)
            record = Record(step, {**of_layers, **of_loop(norms.numbers)}, captured.tree())
            settings.loggers.write(record)
        self._training.losses += _loss_of(captured)
        self._training.clip_ratio = norms.numbers.get("clip_ratio", math.nan)
        alarms = alarms_of(captured, summary, step, self._training)
        found = list(norms.explained(alarms, step))
        self._is_broken = any(alarm.name == "nonfinite" and alarm.layer for alarm in found)
        for alarm in found:
            self._warnings.leave(alarm)
        if found:
            self._warnings.guarded(self._keep_alarms, found)

    def _keep_alarms(self, found: list[Alarm]) -> None:
        """Store new alarms in the run, for those who watch or open it."""
        known = alarms_of_run(self._run.attributes)
        names = {(alarm.name, alarm.layer) for alarm in known}
        if fresh := [alarm for alarm in found if (alarm.name, alarm.layer) not in names]:
            self._run.annotate({ATTRIBUTE: as_attribute([*known, *fresh])})


def _loss_of(captured: Captured) -> list[float]:
    losses = [float(leaf.arrays["loss"]) for leaf in captured.leaves.values() if "loss" in leaf.arrays]
    return losses[:1]


def _warn(text: str) -> None:
    warnings.warn(text, ThroughTimeWarning, stacklevel=9)
