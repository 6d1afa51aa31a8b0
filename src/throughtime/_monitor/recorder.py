"""Records one model into one open run: reduces each capture, commits it, logs it, looks for alarms."""

import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from throughtime._capture.certificate import Warn
from throughtime._capture.label import Captured, NamedArray
from throughtime._capture.probe import Probe
from throughtime._errors import MonitorError, ThroughTimeWarning
from throughtime._store import Run
from throughtime.adapters.optimizer import optimizer_step
from throughtime.diagnostics.alarm import ATTRIBUTE, Alarm, alarms_of_run, as_attribute
from throughtime.loggers.record import Record

from .alarms import Training, alarms_of
from .arrays import Reduced, as_tree, by_key, nbytes, rename_root_layers
from .gradient_norms import GradientNorms, Norms
from .guards import BackgroundWorker, WarningQueue
from .levels import LEVELS, QUANTILES, Weights, weights_of
from .numbers import numbers, of_loop
from .place import WEIGHTS
from .provenance import attributes_of, is_of_jax, weights_fingerprint
from .settings import Settings
from .together import Alone, Seen, together

_UNCHANGED = (
    "The model has the weights of the last record. If training has changed them, pass the model "
    "that it returned: monitor.step(model)."
)
_INTERRUPTED = (
    "Training was interrupted at step {step}. {path} continues with the weights that the model has now, "
    "which cannot be compared with those of that step. If this is another training, the run joins both: call "
    "monitor.end() after an interrupt, and other weights are noticed."
)
Finish = Callable[[Warn], Captured]
Begin = Callable[[], Finish]


class Outcome(NamedTuple):
    """Decisions of the process that writes the run: one of `stride` due records is made from now on."""

    stride: int
    alarms: list[Alarm]
    is_broken: bool


class Recorder:
    """Records one model into one run, which is closed again if it cannot be recorded into.

    `last_step` is the last recorded training step. One of `stride` due records is made; it doubles each time
    the budget is reached. The settings of `optimizer`, and the `gradient_norms` that the training loop
    reports between records, are evidence for alarms.
    """

    def __init__(
        self, model: Any, loss: Any, settings: Settings, warning_queue: WarningQueue, optimizer: Any = None
    ) -> None:
        self._settings, self._warnings = settings, warning_queue
        self._before: Weights | None = None
        self.optimizer = optimizer or getattr(model, "optimizer", None)
        self._training = Training(settings.vanishing_lag, optimizer_step(self.optimizer))
        self.stride = 1
        self.gradient_norms = GradientNorms()
        self._together = together(model, settings)
        quantities = "all" if settings.level in LEVELS else settings.level
        self._model, self._is_followed, self._is_over = model, False, False
        self._recorded = weights_fingerprint(model)  # of the last record
        self._known = {self._recorded}  # of all records
        self._probe = Probe(model, loss=loss, layers=settings.layers, quantities=quantities)
        self._run: Run | None = None  # the first of several processes has it
        x, y, weight = settings.batch
        seen = self._together.seen(
            lambda: rename_root_layers(self._probe.begin(x, y, sample_weight=weight)(_warn)), 0
        )
        try:
            self.last_step, settings.place.path, outcome = self._together.agreed(
                lambda: self._open(model, loss, seen)
            )
        except BaseException:
            if self._run is not None:
                self._run.close()
            raise
        self._began = self.last_step
        self._follow(outcome)
        self._worker = BackgroundWorker(in_background=settings.background)

    def record(self, step: int) -> None:
        """Capture the model's present state and commit it, unless the step is recorded already."""
        if self.last_step >= step or self._is_over:
            return
        begin: Begin = self._begin
        if isinstance(self._together, Alone):
            begin = partial(_return, begin())  # training waits only for this
        self.last_step = step
        self._training.optimizer = optimizer_step(self.optimizer)  # the learning rate may change
        norms = self._warnings.guard(self.gradient_norms.take) or Norms()
        before, self._recorded = self._recorded, weights_fingerprint(self._model)
        self._known.add(self._recorded)
        if not self._is_followed and is_of_jax(self._model) and self._recorded == before:
            self._warnings.leave(_UNCHANGED)
        self._worker.put(self._warnings.guard, self._keep, begin, step, norms, self._root())

    def _begin(self) -> Finish:
        """Run the model on the batch; the returned function computes the rest."""
        x, y, weight = self._settings.batch
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            finish = self._probe.begin(x, y, sample_weight=weight)
        self._warnings.pass_on(caught)
        return finish

    def follow(self, model: Any) -> None:
        """Record this model from now on: the object that a training step returned in place of the old one."""
        self._probe.follow(model)
        self._model, self._is_followed = model, True

    def has_trained(self, model: Any, step: int) -> bool:
        """Whether this is the recorded model, and it has been trained since recording began."""
        return self._model is model and step > self._began

    def interrupt(self, step: int) -> None:
        """End with the last record if the model has weights that were recorded: they may begin anew.

        Other weights cannot be compared with those of the last step, which are not kept.
        """
        self._is_over = weights_fingerprint(self._model) in self._known - {0}
        if not self._is_over:
            self._warnings.leave(_INTERRUPTED.format(path=self._settings.place.path, step=step))

    def drain(self) -> None:
        """Wait until each captured step is committed, or has failed with a warning."""
        self._worker.drain()
        last = self._warnings.guard(self._together.agreed, lambda: self._first_run.steps[-1])
        self.last_step = self.last_step if last is None else last

    def leave(self) -> None:
        """Exchange nothing with other processes from now on: training has failed here."""
        self._together.leave()

    def close(self) -> None:
        try:
            self._worker.close()
        finally:
            if self._run is not None:
                self._run.close()
                self._settings.loggers.close()

    @property
    def _first_run(self) -> Run:
        """The run, in the process that writes it."""
        assert self._run is not None
        return self._run

    def _root(self) -> dict[str, NamedArray]:
        """Return the hash of the recorded weights, as a variable of the run's root."""
        return {WEIGHTS: NamedArray((), np.asarray(self._recorded, np.int64))}

    def _check_budget(self, needed: int) -> None:
        budget = self._settings.budget
        if budget is not None and 2 * needed > budget:
            raise MonitorError(
                f"budget={budget:,.0f} bytes do not hold two records of {needed:,} bytes each. "
                "Raise the budget, or store less: quantities='summary', fewer layers."
            )

    def _open(self, model: Any, loss: Any, seen: Seen) -> tuple[int, Path, Outcome]:
        """Open the run, and record the first step of a new run or check that it can be continued."""
        settings, root = self._settings, self._root()
        kept = seen.reduced(settings.level, None)
        self._check_budget(nbytes(kept))
        attributes = {**attributes_of(model, loss, settings, seen.captured), **self._together.attributes}
        self._run = run = settings.place.open(attributes, {**by_key(kept), **root})
        step = run.steps[-1] if run.steps else 0
        is_new = not run.steps
        if is_new:
            tree = as_tree(kept, seen.labels, QUANTILES)
            run.append(tree.assign({name: xr.Variable(*each) for name, each in root.items()}), step)
        else:
            run.check(by_key(kept), step + 1)
        settings.loggers.begin()
        return step, settings.place.path, self._inspect(seen, kept, step, Norms(), is_new=is_new)

    def _keep(self, begin: Begin, step: int, norms: Norms, root: Mapping[str, NamedArray]) -> None:
        """Finish, store and log a capture; a single process needs no model for it and uses any thread."""
        messages: list[str] = []
        seen = self._together.seen(lambda: rename_root_layers(begin()(messages.append)), step)
        outcome = self._together.agreed(lambda: self._store(seen, step, norms, root))
        self._follow(outcome)
        if not outcome.is_broken:  # otherwise the certificate would report the same NaN again
            for text in messages:
                self._warnings.leave(text)

    def _store(self, seen: Seen, step: int, norms: Norms, root: Mapping[str, NamedArray]) -> Outcome:
        kept = seen.reduced(self._settings.level, self._before)
        self._keep_to_budget(nbytes(kept))
        self._first_run.append_arrays({**by_key(kept), **norms.arrays(), **root}, step)
        return self._inspect(seen, kept, step, norms)

    def _follow(self, outcome: Outcome) -> None:
        """Take over the decisions of the first process."""
        self.stride = outcome.stride
        for alarm in outcome.alarms:
            self._warnings.leave(alarm)

    def _keep_to_budget(self, more: int) -> None:
        budget, run = self._settings.budget, self._first_run
        if budget is None or run.nbytes + more <= budget:
            return
        run.thin()
        self.stride *= 2
        self._warnings.leave(
            f"{run.path} has reached its budget of {budget:,.0f} bytes: every second record was "
            f"dropped, and from now on one in {self.stride} due records is made."
        )

    def _inspect(self, seen: Seen, kept: Reduced, step: int, norms: Norms, *, is_new: bool = True) -> Outcome:
        """Write a new record to the loggers, and find the alarms of a captured step."""
        settings = self._settings
        summary = kept if settings.level == "summary" else seen.reduced("summary", self._before)
        self._before = weights_of(seen.captured)
        if settings.loggers and is_new:
            lag = settings.vanishing_lag if isinstance(settings.vanishing_lag, int) else None
            of_layers = numbers(as_tree(summary, seen.labels, QUANTILES), lag)
            record = Record(step, {**of_layers, **of_loop(norms.numbers)}, seen.captured.tree())
            settings.loggers.write(record)
        self._training.losses += _loss_of(summary)
        self._training.clip_ratio = norms.numbers.get("clip_ratio", math.nan)
        broken = seen.broken()
        alarms = [broken] if broken else alarms_of(seen.layers(), summary, step, self._training)
        found = list(norms.explain(alarms, step))
        if found:
            self._warnings.guard(self._keep_alarms, found)
        is_broken = any(alarm.name == "nonfinite" and alarm.layer for alarm in found)
        return Outcome(self.stride, found, is_broken)

    def _keep_alarms(self, found: list[Alarm]) -> None:
        """Store new alarms in the run, for those who watch or open it."""
        known = alarms_of_run(self._first_run.attributes)
        names = {(alarm.name, alarm.layer) for alarm in known}
        if fresh := [alarm for alarm in found if (alarm.name, alarm.layer) not in names]:
            self._first_run.annotate({ATTRIBUTE: as_attribute([*known, *fresh])})


def _loss_of(summary: Reduced) -> list[float]:
    losses = [float(arrays["loss"].values) for arrays in summary.values() if "loss" in arrays]
    return losses[:1]


def _return(finish: Finish) -> Finish:
    return finish


def _warn(text: str) -> None:
    warnings.warn(text, ThroughTimeWarning, stacklevel=9)
