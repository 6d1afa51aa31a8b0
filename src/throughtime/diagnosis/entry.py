"""`diagnose`: captures a model, exchanges inputs between samples, and judges it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from throughtime._capture.lag_matrix import READ_OFTEN
from throughtime._capture.probe import Probe
from throughtime._errors import BatchError, DiagnosticError, LossError, ThroughTimeError, warn
from throughtime._inputs import model_or_tree, structures, takes
from throughtime._inputs.batch import Batch, take_several
from throughtime._inputs.rules import number, whole
from throughtime._tree import reads_many_steps, recorded_steps
from throughtime.adapters.optimizer import left_out, optimizer_step

from . import integrity, measure, order
from .diagnosis import Diagnosis
from .judge import judge, note_few_samples
from .layers import anchors, has_loss_per_step, join, reading_of, recurrent_layers, why_not_swapped
from .progress import Passes
from .results import UNCLEAR, Asked
from .swap import Reading, Swapped, losses_with_shared_inputs, passes, predicts_at_steps, prefix_swap
from .training import diagnose_captured, diagnose_record, diagnose_run
from .use import are_labels_equal, pays, pool, use
from .words import phrase

_MORE_ANCHORS = 16


@takes(DiagnosticError, dependency_length=whole(1, of="timesteps"), solved=number(), model=model_or_tree)
def diagnose(
    model: Any,
    x: Any = None,
    y: Any = None,
    *,
    dependency_length: int | None = None,
    solved: float | None = None,
    loss: Any = None,
    sample_weight: Any = None,
    layers: Any = "recurrent",
    seed: int = 0,
    batches: int = 1,
    step: int | None = None,
    optimizer: Any = None,
) -> Diagnosis:
    """Find out whether a model uses inputs some steps back, whether gradient reaches them, and why.

    Reach is R(D), the gradient D steps back as a fraction of that at the last step, for error that enters at
    one step. Use is U(D), the rise of the loss if inputs D or more steps back come from another sample of the
    same length and mask, as a fraction of its rise if all inputs do. Both have 95 % intervals over samples,
    and the verdict combines them. It is "unstable" if a number is not finite, or if gradients grow within the
    window and disrupt training: the next step of the optimizer changes the recurrent weights by a fifth of
    their norm, or the loss of a run has risen. Growth alone is not a fault.

    Parameters
    ----------
    model : model, a capture of one, or a run of many training steps
        Use is not measured for a capture or run, because it needs the model.
    x, y, loss, sample_weight, layers : see `capture`
    dependency_length : int, optional
        Lag, in timesteps, that the task needs. By default the largest lag in use is judged.
    solved : float, optional
        Loss at or below which nothing needs to be changed. Remedies for memory are named if
        `dependency_length` is also given and the loss is higher.
    seed : int
        Seed for partners, resampling and loss steps; the same seed gives the same diagnosis.
    batches : int
        Number of batches of a dataset whose samples are joined.
    step : int, optional
        Recorded training step of a run. By default the last one is diagnosed, and reach, share and horizon
        are measured at up to 13 of them, in a `TrainingDiagnosis`. A run that keeps a summary has medians
        over samples; one recorded with `quantities="timestep"` or "full" has share as well.
    optimizer : optimizer of Keras or torch, optional
        Optimizer of the model, which determines clipping, the size of a step and, in torch, which layers are
        trained. The default is that with which a Keras model was compiled; for others, plain gradient descent
        at rate 0.01.

    Returns
    -------
    Diagnosis
        Computing it takes one or two captures and about 40 forward passes. A loss at every step also needs
        the lag matrix, and four to eight times as many passes. Slow diagnoses show a progress bar.

    Raises
    ------
    DiagnosticError
        `dependency_length` is not a whole number of 1 or more, a capture has no recurrent layer, or `step` is
        given without a run.
    SchemaError
        The run has no such step, or none yet.
    UnsupportedModelError, UnbuiltModelError, LayerNotFoundError, LossError, BatchError

    Warns
    -----
    ThroughTimeWarning
        Fewer than 16 samples.

    References
    ----------
    Khandelwal et al. (2018), arXiv 1805.04623, for use; Pascanu, Mikolov & Bengio (2013), arXiv 1211.5063,
    for reach.

    Examples
    --------
    An LSTM that has to return the first of 40 inputs, before any training:

    >>> import keras, numpy as np
    >>> keras.utils.set_random_seed(0)
    >>> x = np.random.normal(size=(64, 40, 1)).astype("float32")
    >>> layers = [keras.Input((40, 1)), keras.layers.LSTM(8, name="lstm"), keras.layers.Dense(1)]
    >>> model = keras.Sequential(layers)
    >>> model.compile(loss="mse")
    >>> found = diagnose(model, x, y=x[:, 0], dependency_length=38)
    >>> print(str(found.brief).splitlines()[0])  # print(found.brief) has numbers and a remedy, with code
    The gradient vanishes before lag 38.
    >>> found.verdict, found.layers["lstm"].reach.answer
    (<Verdict.NO_EVIDENCE: 'no_evidence'>, 'no')

    A torch module brings no loss, a function of the output and `y`:

    >>> import torch
    >>> gru, series = torch.nn.GRU(1, 8, batch_first=True), torch.from_numpy(x)
    >>> def last_loss(output, y):
    ...     return ((output[0][:, -1] - y) ** 2).mean()
    >>> found = diagnose(gru, series, series[:, 0], loss=last_loss, dependency_length=38)
    >>> found.to_dict()["findings"]
    {'vanishing': 'yes', 'unstable': 'no', 'nonfinite': 'no', 'misread': 'no'}
    """
    if isinstance(model, (xr.DataTree, xr.Dataset)):
        tree = xr.DataTree.from_dict({"/layer": model}) if isinstance(model, xr.Dataset) else model
        framework = str(tree.attrs.get("framework", ""))
        asked = Asked(dependency_length, solved, seed, optimizer_step(optimizer))
        return replace(_diagnose_tree(tree, step, asked), framework=framework)
    if step is not None:
        raise DiagnosticError(phrase("no_run", step=step))
    if x is None:
        raise BatchError("diagnose needs data: diagnose(model, x, y), or a dataset of (x, y).")
    taken = take_several(x, y, sample_weight, batches)
    run = _Run(model, loss, layers, seed, dependency_length)
    leaves, swaps = run.capture(taken), run.swap(taken)
    for note in note_few_samples(next(iter(leaves.values())).sizes["sample"]):
        warn(note)
    stepping, leaves = optimizer_step(optimizer or getattr(model, "optimizer", None)), dict(leaves)
    for path in left_out(optimizer, model, leaves):
        leaves[path] = leaves[path].assign_attrs(trainable=0)
    asked = Asked(dependency_length, solved, seed, stepping, notes=tuple(run.notes), unread=run.unread)
    return replace(judge(leaves, swaps, integrity.with_data(asked, taken, leaves)), framework=run.framework)


def _diagnose_tree(tree: xr.DataTree, step: int | None, asked: Asked) -> Diagnosis:
    if recorded_steps(tree):
        return diagnose_run(tree, asked) if step is None else diagnose_record(tree, step, asked)
    if step is not None:
        raise DiagnosticError(phrase("no_run", step=step))
    return diagnose_captured(tree, asked)


@dataclass
class _Run:
    """The captures of one model, and how its inputs are exchanged."""

    model: Any
    loss: Any
    layers: Any
    seed: int
    dependency_length: int | None
    notes: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    framework: str = ""
    _captures: list[dict[str, xr.Dataset]] = field(default_factory=list)
    _why_not: str = ""
    _axes: object = None  # the most of any output of the model

    def capture(self, batches: Sequence[Batch]) -> dict[str, xr.Dataset]:
        """Capture all batches, and their lag matrices if the loss has a value at every step."""
        self._probe = Probe(self.model, loss=self.loss, layers=self.layers)
        mirror = order.Mirror(self._probe)
        for batch in batches:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The certificate of")  # part of the verdict
                tree = self._probe(batch.x, batch.y, sample_weight=batch.sample_weight)
                leaves = mirror(recurrent_layers(tree), batch)
            self.framework, self._axes = str(tree.attrs.get("framework", "")), tree.attrs.get("output_axes")
            self._why_not = why_not_swapped(tree.attrs, leaves)
            if hasattr(batch.y, "shape") and self._has_loss_per_step(leaves, batch):
                leaves = order.with_labels(self._probe, leaves, batch)
                self._add_lag_matrices(leaves, batch)
            self._captures.append(leaves)
        return join(self._captures)

    def _has_loss_per_step(self, leaves: Mapping[str, xr.Dataset], batch: Batch, label: int = 0) -> bool:
        return has_loss_per_step(self._probe, leaves, batch, self._axes, seed=self.seed, label=label)

    def _add_lag_matrices(self, leaves: dict[str, xr.Dataset], batch: Batch) -> None:
        steps = int(batch.y.shape[1])
        paths = [path for path, leaf in leaves.items() if leaf.sizes.get("time") == steps]
        try:
            settings = {"layers": self.layers, "loss": self.loss, "seed": self.seed}
            lag = self.dependency_length or 0
            matrices = recurrent_layers(order.lag_matrices(self.model, batch, lag, **settings))
        except ThroughTimeError as error:
            reason = phrase("per_step_unmeasured", reason=str(error).partition("\n")[0].rstrip("."))
            self.unread.update(dict.fromkeys(paths, reason))
            self._why_not = reason
            return
        for path in paths:
            added = matrices[path][["lag_matrix"]]
            if added.attrs.get("go_backwards", 0) != leaves[path].attrs.get("go_backwards", 0):
                added = added.isel(time=slice(None, None, -1))
            merged = leaves[path].merge(added, compat="override", combine_attrs="override")
            leaves[path] = merged.assign_attrs({READ_OFTEN: added.attrs.get(READ_OFTEN, 0)})

    def swap(self, batches: Sequence[Batch]) -> dict[str, Swapped]:
        """Measure use, once for layers that read the same time."""
        if self._why_not or batches[0].y is None:
            reason = self._why_not or phrase("no_losses", reason="there are no labels")
            return dict.fromkeys(self._captures[0], Swapped(reason=reason))
        found, leaves = dict[str, Swapped](), self._captures[0].items()
        times = {path: (leaf.sizes.get("time"), measure.UNTIL_READ in leaf.attrs) for path, leaf in leaves}
        for time in dict.fromkeys(times.values()):
            paths = [path for path in times if times[path] == time]
            found.update(dict.fromkeys(paths, self._swap_together(paths, batches)))
        return found

    def _swap_together(self, paths: Sequence[str], batches: Sequence[Batch]) -> Swapped:
        lag, readings = self.dependency_length, []
        for leaves, batch in zip(self._captures, batches, strict=True):
            by_step = any("lag_matrix" in leaves[path] for path in paths)
            chosen = {path: leaves[path] for path in paths}
            readings.append(reading_of(chosen, batch, by_step=by_step, lag=lag))
        longest = max(int(reading.valid.sum(axis=1).max()) for reading in readings) - 1
        lags = measure.lags_up_to(longest, lag)
        first, batch = {path: self._captures[0][path] for path in paths}, batches[0]
        among = self._probe, batch, readings[0]
        reads_many = any(map(reads_many_steps, first.values()))
        if all(map(are_labels_equal, batches, readings)):
            return Swapped(reason=phrase("equal_labels"))
        try:
            # One of several arrays of labels has no lag matrix and no anchors.
            if not readings[0].anchors and any(
                self._has_loss_per_step(first, batch, place)
                or (reads_many and predicts_at_steps(*among, label=place, seed=self.seed))
                for place in range(len(structures.leaves(batch.y)))
            ):
                return Swapped(reason=phrase("labels_at_steps"))
            parts = self._exchange(batches, readings, lags)
            swapped = self._refine(batches, readings, pool(parts))
            if not swapped.reason and not pays(swapped, seed=self.seed):
                shared = [
                    losses_with_shared_inputs(self._probe, batch, reading, seed=self.seed)
                    for batch, reading, part in zip(batches, readings, parts, strict=True)
                    if not part.reason
                ]
                swapped = replace(swapped, shared=np.concatenate(shared, axis=1))
        except LossError as error:
            return Swapped(reason=phrase("no_losses", reason=str(error).partition("\n")[0].rstrip(".")))
        self._note(readings[0], swapped)
        # The loss of one step counts as its share of the mean over all steps.
        steps = [float(reading.counted.sum(axis=1).mean()) for reading in readings if reading.anchors]
        return swapped.scaled(float(np.mean(steps))) if steps else swapped

    def _exchange(
        self, batches: Sequence[Batch], readings: Sequence[Reading], lags: Sequence[int]
    ) -> list[Swapped]:
        with Passes(len(batches) * passes(lags, readings[0].anchors)) as bar:
            return [
                prefix_swap(self._probe, batch, reading, lags, seed=self.seed + place, advance=bar.advance)
                for place, (batch, reading) in enumerate(zip(batches, readings, strict=True))
            ]

    def _refine(self, batches: Sequence[Batch], readings: Sequence[Reading], swapped: Swapped) -> Swapped:
        """Evaluate more of the loss steps if use at the requested lag is unclear."""
        lag = self.dependency_length or 0
        is_asked = bool(readings[0].anchors) and lag in swapped.lags[1:]
        if not is_asked or use(swapped, lag, seed=self.seed).answer != UNCLEAR:
            return swapped
        more = [replace(reading, anchors=anchors(reading, _MORE_ANCHORS, lag)) for reading in readings]
        found = pool(self._exchange(batches, more, [lag]))
        changes = swapped.changes.copy()
        changes[:, [0, swapped.lags.index(lag)]] = found.changes
        return replace(swapped, changes=changes, before=found.before)

    def _note(self, reading: Reading, swapped: Swapped) -> None:
        notes = []
        if len(reading.ways) > 1:
            place = "the step of each loss" if reading.anchors else "both ends"
            notes.append(phrase("either_direction", place=place))
        if reading.anchors:
            more = len(anchors(reading, _MORE_ANCHORS, self.dependency_length or 0))
            notes.append(phrase("per_step", n=len(reading.anchors), more=more))
        if swapped.without_partner:
            notes.append(phrase("without_partner", n=swapped.without_partner))
        self.notes += [each for each in notes if each not in self.notes]
