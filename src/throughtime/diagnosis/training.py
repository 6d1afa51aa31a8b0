"""`TrainingDiagnosis`: the verdict for the last record of a run, and reach, share and horizon over many.

Records are read one at a time, so that a run may be larger than memory.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from throughtime._common.text.tables import Items, Paragraph, Part, Shown, Table
from throughtime._tree import at_place, evenly, place_of, recorded_steps
from throughtime.diagnostics.alarm import alarms_of_run
from throughtime.diagnostics.labelled import remember
from throughtime.diagnostics.thresholds import REACHES, USED
from throughtime.picture._drawing.scale import FLOOR

from . import integrity, measure, summarized
from .diagnosis import Diagnosis, cell, layer_at_step, plain
from .judge import judge
from .layers import (
    SUMMARY,
    as_captured,
    by_direction,
    level,
    recurrent_layers,
    stored_swap,
    variables_to_read,
)
from .results import NAN, NOT_MEASURED, Answer, Asked, LayerDiagnosis, steps_of
from .words import number, phrase, with_interval

MOST_RECORDS = 13
_COLUMNS = ("step", "layer", "loss", "question", "answer", "value", "low", "high", "n", "reason")


@dataclass(frozen=True)
class StepRecord:
    """One recorded training step.

    Attributes
    ----------
    step : int
    loss : float
        The recorded loss of the batch.
    layers : mapping of str to LayerDiagnosis
        With `reach`, `share`, `use` and `horizon`; empty if the record could not be judged.
    stopped : str
        Reason why it could not be judged.
    """

    step: int
    loss: float = NAN
    layers: Mapping[str, LayerDiagnosis] = field(default_factory=dict)
    stopped: str = ""


@dataclass(frozen=True, repr=False)
class History(Shown):
    """Reach, share and horizon over the recorded steps of a run; prints as a table.

    Attributes
    ----------
    lag : int
    recorded : int
        Number of recorded steps in the run.
    records : tuple of StepRecord
        At most 13 of them, chosen evenly, including the first and the last.
    trend : tuple of str
        The change of reach from the first to the last, and the alarms of the run, in words.
    """

    lag: int
    recorded: int
    records: tuple[StepRecord, ...]
    trend: tuple[str, ...] = ()

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row for each recorded step, layer and question, and for the horizon."""
        rows = [row for record in self.records for row in _rows(record)]
        return pd.DataFrame(rows, columns=_COLUMNS)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts; NaN becomes None."""
        records = [
            {
                "step": record.step,
                "loss": plain(record.loss),
                "stopped": record.stopped,
                "layers": {path: layer_at_step(layer) for path, layer in record.layers.items()},
            }
            for record in self.records
        ]
        return {"lag": self.lag, "recorded": self.recorded, "trend": list(self.trend), "records": records}

    def __parts__(self) -> Iterator[Part]:
        yield Items(phrase("over_training", n=len(self.records), all=self.recorded), self.trend)
        share = (f"share ≥ {self.lag}",) if self._has_share else ()
        headings = ("step", "loss", "layer", f"reach R({self.lag})", *share, "horizon")
        yield Table(tuple(self._table()), headings)

    @property
    def _has_share(self) -> bool:
        return any(
            layer.share.answer != NOT_MEASURED for record in self.records for layer in record.layers.values()
        )

    def _table(self) -> Iterator[tuple[str, ...]]:
        for record in self.records:
            shown = (str(record.step), number(record.loss))
            if record.stopped:
                yield *shown, record.stopped
            for path, layer in record.layers.items():
                share = (number(layer.share.value),) if self._has_share else ()
                yield *shown, path, cell(layer.reach), *share, layer.horizon
                shown = ("", "")


@dataclass(frozen=True, repr=False)
class TrainingDiagnosis(Diagnosis):
    """The diagnosis of the last record of a run, and the development of reach and horizon.

    Every attribute of `Diagnosis` describes the last recorded step.

    Attributes
    ----------
    step : int
        The last recorded training step.
    history : History

    Examples
    --------
    >>> from throughtime import diagnose, testing
    >>> leaves = [testing.decaying(rate, samples=16)["rnn"].to_dataset() for rate in (0.5, 0.9)]
    >>> steps = xr.DataArray([0, 100], dims="step", name="step")
    >>> run = xr.DataTree.from_dict({"/rnn": xr.concat(leaves, steps)})
    >>> found = diagnose(run, dependency_length=10)
    >>> found.history.to_dataframe().query("question == 'reach'")["value"].round(4).tolist()
    [0.001, 0.3487]
    >>> found.history.trend[0].partition(",")[0]
    'Reach of rnn at lag 10 has risen since step 0'
    """

    step: int = 0
    history: History = field(default_factory=lambda: History(1, 0, ()))

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts, by `throughtime.verdict.v1`; NaN becomes None."""
        return {**super().to_dict(), "step": self.step, "history": self.history.to_dict()}

    def __parts__(self) -> Iterator[Part]:
        yield Paragraph(phrase("last_record", step=self.step))
        yield from super().__parts__()
        yield from self.history.__parts__()


def _rows(record: StepRecord) -> Iterator[tuple[Any, ...]]:
    if record.stopped:
        nothing = (NOT_MEASURED, NAN, NAN, NAN, 0, record.stopped)
        yield (record.step, "", record.loss, "reach", *nothing)
    for path, layer in record.layers.items():
        start = (record.step, path, record.loss)
        for question, one in layer.answers.items():
            yield (*start, question, one.answer, one.value, *one.interval, one.n, one.reason)
        value = steps_of(layer.horizon)
        yield (*start, "horizon", layer.horizon, value, *layer.horizon_interval, layer.reach.n, "")


def diagnose_record(tree: xr.DataTree, step: int | None, asked: Asked) -> Diagnosis:
    """Diagnose one recorded step; the default is the last."""
    place = place_of(recorded_steps(tree), step)
    return diagnose_captured(at_place(tree, place), replace(asked, losses=losses(tree)[:place]))


def losses(tree: xr.DataTree) -> tuple[float, ...]:
    """Read the loss of every record; of a capture its one loss."""
    of_layers = (
        np.ravel(node.to_dataset()["loss"].values) for node in tree.leaves if "loss" in node.data_vars
    )
    return tuple(map(float, next(of_layers, ())))


def diagnose_captured(tree: xr.DataTree, asked: Asked) -> Diagnosis:
    """Diagnose a capture, or one record of a run."""
    leaves = {path: leaf.compute() for path, leaf in recurrent_layers(tree).items()}  # one step of a lazy run
    if any(level(leaf) == SUMMARY for leaf in leaves.values()):
        return summarized.diagnosis_of(by_direction(leaves), asked)
    captured = {path: as_captured(leaf) for path, leaf in leaves.items()}
    return judge(captured, {path: stored_swap(leaf) for path, leaf in leaves.items()}, asked)


def diagnose_run(tree: xr.DataTree, asked: Asked) -> TrainingDiagnosis:
    """Diagnose the last record, and measure reach, share and horizon for many."""
    steps = recorded_steps(tree)
    last = diagnose_record(tree, None, asked)
    places, lag = evenly(len(steps), MOST_RECORDS), last.lag or 1
    records = tuple(_record(tree, place, steps[place], lag, asked.seed) for place in places)
    alarms = (phrase("alarm", alarm=alarm) for alarm in alarms_of_run(tree.attrs))
    history = History(lag, len(steps), records, (*_trend(records, lag), *alarms))
    return TrainingDiagnosis(**vars(last), step=steps[-1], history=history)


def _record(tree: xr.DataTree, place: int, step: int, lag: int, seed: int) -> StepRecord:
    """Measure one record, reading only the required variables."""
    leaves = recurrent_layers(at_place(tree, place, variables_to_read))
    losses = [float(leaf["loss"]) for leaf in leaves.values() if "loss" in leaf]
    loss = losses[0] if losses else NAN
    if any(level(leaf) == SUMMARY for leaf in leaves.values()):
        parts = by_direction(leaves)
        if (stopped := summarized.find_fault(parts)) is not None:
            return StepRecord(step, loss, stopped=stopped.sentence)
        return StepRecord(step, loss, {path: summarized.layer_of(leaf, lag) for path, leaf in parts.items()})
    if (stopped := summarized.find_fault(leaves) or integrity.find_fault(leaves)) is not None:
        return StepRecord(step, loss, stopped=stopped.sentence)
    leaves = {path: as_captured(leaf) for path, leaf in leaves.items()}
    parts = by_direction(integrity.accept_rounding(leaves)[0])
    return StepRecord(step, loss, {path: _layer(leaf, lag, seed) for path, leaf in parts.items()})


@remember()
def _layer(leaf: xr.Dataset, lag: int, seed: int) -> LayerDiagnosis:
    kind = str(leaf.attrs.get("kind", ""))
    use = Answer(NOT_MEASURED, threshold=USED, reason=phrase("needs_model"))
    leaf, why_not = measure.at_one_step(leaf)
    if reason := measure.why_no_gradient(leaf) or why_not:
        nothing = Answer(NOT_MEASURED, threshold=REACHES, reason=reason)
        return LayerDiagnosis(kind, nothing, nothing, use)
    share = measure.share(leaf, lag, seed=seed)
    reach = measure.reach(measure.reach_curve(leaf, [lag]), lag)
    horizon, ends = measure.horizon(leaf)
    return LayerDiagnosis(
        kind, reach, share, use, horizon=horizon, horizon_interval=ends, k90=measure.k90(leaf)
    )


def _trend(records: tuple[StepRecord, ...], lag: int) -> Iterator[str]:
    """Describe the change of each layer's reach from its first to its last measured record."""
    broken = [record for record in records if record.stopped]
    if broken:
        yield phrase("trend_stopped", n=len(broken), step=broken[0].step, reason=broken[0].stopped)
    for path in dict.fromkeys(path for record in records for path in record.layers):
        measured = [
            (record.step, record.layers[path].reach)
            for record in records
            if path in record.layers and record.layers[path].reach.answer != NOT_MEASURED
        ]
        if len(measured) > 1:
            (first, before), (_, after) = measured[0], measured[-1]
            ends = (with_interval(one.value, one.interval) for one in (before, after))
            words = dict(zip(("before", "after"), ends, strict=True))
            yield phrase(_change(before, after), layer=path, lag=lag, first=first, **words)


def _change(before: Answer, after: Answer) -> str:
    if max(before.value, after.value) < FLOOR:
        return "trend_floor"
    if before.n < 2 or after.n < 2:
        return "trend_values"
    if after.interval[0] > before.interval[1]:
        return "trend_risen"
    return "trend_fallen" if after.interval[1] < before.interval[0] else "trend_same"
