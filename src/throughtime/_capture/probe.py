"""`Probe`, the core of every capture: a model and a batch become a labelled tree.

It chooses the adapter, takes the batch, records, solves the recurrent layers, and labels the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from throughtime import _vocabulary, adapters, cells
from throughtime._capture.certificate import Warn, certified
from throughtime._capture.complete import check_named, check_reached
from throughtime._capture.label import Captured, Labeller
from throughtime._capture.locks import lock_of
from throughtime._capture.solve import apart, per_sample, with_inside
from throughtime._capture.splitting import capture_split
from throughtime._common.memory import free
from throughtime._common.memory.budget import Budget, ExceededError, Need, allowed
from throughtime._errors import LossError, SchemaError, UnsupportedModelError, warn
from throughtime._inputs import rules, takes
from throughtime._inputs.batch import Batch, running_on, take
from throughtime.adapters.records import (
    Array,
    DirectionRecord,
    LayerRecord,
    ModelRecord,
    Request,
    SolvedRecord,
)

_GROUPS = ("recurrent", "all")
_FEW = 256  # number of arrays as large as the largest one in a capture


@takes(quantities=replace(rules.names, error=SchemaError))
class Probe:
    """Captures the same layers of one model on batch after batch; traced once per shape.

    Parameters
    ----------
    model, loss, layers, quantities, training, adapter, budget
        See `capture`.

    Raises
    ------
    BatchError
        The data contain no batch, or the model refuses it.
    LossError
        Gradients are requested without a loss or labels, or these do not fit.
    NoGradientError
        The loss does not depend on the requested layers.
    SchemaError
        `quantities` contains an unknown name.
    TooLargeError
        The capture needs more memory than is available.

    Examples
    --------
    >>> import keras, numpy as np
    >>> layers = [keras.Input((5, 2)), keras.layers.GRU(3, name="gru"), keras.layers.Dense(1)]
    >>> model = keras.Sequential(layers)
    >>> probe = Probe(model, loss="mse", quantities="output_gradient")
    >>> x, y = np.ones((4, 5, 2), "float32"), np.zeros((4, 1), "float32")
    >>> probe(x, y)["gru"]["output_gradient"].shape
    (4, 3)
    """

    def __init__(
        self,
        model: Any,
        *,
        loss: Any = None,
        layers: Any = "recurrent",
        quantities: Any = "all",
        training: bool = False,
        adapter: Any = None,
        budget: float | str | None = None,
    ) -> None:
        chosen: adapters.Adapter = adapters.choose(model) if adapter is None else adapter
        self._is_group = isinstance(layers, str) and layers in _GROUPS
        self._quantities = _vocabulary.quantities(quantities)
        named = [quantities] if isinstance(quantities, str) else quantities
        self._named = _vocabulary.quantities([name for name in named if name != "all"])
        request = Request(
            quantities=self._quantities,
            gradients=self._quantities & _vocabulary.GRADIENT_QUANTITIES,
            activations=frozenset(cells.ACTIVATIONS),
            training=training,
        )
        self._budget = None if budget is None else allowed(budget)
        self._adapter, self._pass = chosen, {"loss": loss, "training": training}
        self._model, self._label = model, Labeller()
        self._lock = lock_of(model)
        free.keep()
        with self._lock:
            self._probe = chosen.Probe(model, loss=loss, layers=layers, request=request)

    def __call__(self, x: Any, y: Any = None, *, sample_weight: Any = None) -> xr.DataTree:
        """Capture one batch. See `capture` for arguments and results."""
        batch = take(x, y, sample_weight)
        return self._labelled(self._captured(batch, solve=True), batch).tree()

    def begin(self, x: Any, y: Any = None, *, sample_weight: Any = None) -> Callable[[Warn], Captured]:
        """Run the model on one batch; calling the result solves the recurrent layers.

        The model may be trained meanwhile; the call is allowed once, in any thread.

        Returns
        -------
        callable (warn) -> Captured
            Its `tree()` is the result that the probe would have returned. `warn` is called with the text of a
            warning, because a second thread should not raise warnings of Python.
        """
        batch = take(x, y, sample_weight)
        try:
            pending = [apart(self._recorded(batch, self._budget_of(batch)))]
        except ExceededError:
            pending = []
        if not pending:
            whole = self._labelled(self._captured(batch, solve=True), batch)
            return lambda _: whole
        check_reached(pending[0], is_group=self._is_group)

        def finish(warn: Warn) -> Captured:
            # No other reference while it is solved.
            record = certified(self._completed(pending.pop()), warn)
            check_named(record, self._named)
            return self._labelled(record, batch)

        return finish

    def _labelled(self, record: ModelRecord, batch: Batch) -> Captured:
        captured = self._label.beside(record)
        captured.attributes["batch"] = batch.origin
        return captured

    def losses(
        self, x: Any, y: Any = None, *, sample_weight: Any = None, step: int | None = None
    ) -> xr.DataArray:
        """Evaluate the loss of each sample of a batch, in a forward pass without gradients.

        A loss of Keras is evaluated on all samples at once; any other loss, and every loss of a torch module,
        on one sample after another.

        Parameters
        ----------
        x, y, sample_weight : see `capture`
        step : int, optional
            Evaluate only this step of a loss with a value for each step, as `sample_weight` would select it.

        Returns
        -------
        DataArray (sample)
            NaN for a sample whose steps are all masked.

        Raises
        ------
        LossError
            There are no labels, there is no loss, or it is not defined for single samples.

        Examples
        --------
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((5, 2)), keras.layers.GRU(3), keras.layers.Dense(1)])
        >>> x, y = np.zeros((2, 5, 2), "float32"), np.array([[1.0], [2.0]], "float32")
        >>> Probe(model, loss="mse").losses(x, y).values
        array([1., 4.])
        """
        batch = take(x, y, sample_weight)
        if not hasattr(self._adapter, "losses"):
            raise LossError("This library's adapter does not evaluate the loss of single samples.")
        if batch.y is None:
            raise LossError("Without labels there is no loss: pass y, or a dataset of (x, y).")
        weight = batch.sample_weight if step is None else _at_step(batch, step)
        with self._lock, running_on(batch):
            values = self._adapter.losses(self._model, batch.x, batch.y, weight, **self._pass)
        return xr.DataArray(values, dims="sample", name="loss")

    def follow(self, model: Any) -> None:
        """Capture this model from now on: the new object that a training step has returned.

        UnsupportedModelError: only JAX models are replaced by training; others change in place.
        """
        if model is self._model:
            return
        if not hasattr(self._probe, "follow"):
            raise UnsupportedModelError(
                f"Got another {type(model).__name__} than the one that is watched. Training replaces only "
                "models of JAX; call step() without the model."
            )
        self._probe.follow(model)
        self._model = model

    def expect_one_layer(self) -> None:
        """Refuse if several layers were selected.

        AmbiguousLayerError: with the indexed list of layers.
        """
        self._probe.expect_one_layer()

    def record(self, x: Any, y: Any, sample_weight: Any) -> tuple[ModelRecord, Batch]:
        """Capture one batch, unlabelled, with gradients as the framework returns them."""
        batch = take(x, y, sample_weight)
        return self._captured(batch, solve=False), batch

    def _captured(self, batch: Batch, *, solve: bool) -> ModelRecord:
        """Capture a batch, in parts if it is too large for the memory."""
        budget, need = self._budget_of(batch), None
        try:
            # Nested calls, because no other reference may exist while it is solved.
            record = (
                self._completed(self._recorded(batch, budget)) if solve else self._recorded(batch, budget)
            )
        except ExceededError as exceeded:
            # Without its traceback, which refers to the results of the pass.
            need, budget = exceeded.need, exceeded.budget
        if need is not None:
            record = self._split(batch, budget, need, solve=solve)
        if record.loss is None and self._named & _vocabulary.GRADIENT_QUANTITIES:
            names = ", ".join(sorted(self._named & _vocabulary.GRADIENT_QUANTITIES))
            raise LossError(f"Without labels there is no {names}: pass y, or a dataset of (x, y).")
        check_reached(record, is_group=self._is_group)
        check_named(record, self._named)
        return certified(record, warn)

    def _budget_of(self, batch: Batch) -> Budget:
        """Return the budget of the whole batch."""
        with running_on(batch):
            samples = self._probe.samples(batch.x)
        if self._budget is None:
            return Budget(free.available(), samples, samples)
        return Budget(self._budget, samples, samples, is_stated=True)

    def _split(self, batch: Batch, budget: Budget, need: Need, *, solve: bool) -> ModelRecord:
        data = batch.x, batch.y, batch.sample_weight

        def capture(rows: slice, budget: Budget) -> ModelRecord:
            free.release()  # the data of the previous part
            x, y, weight = self._probe.part(data, rows)
            part = Batch(x, y, weight, batch.origin)
            return self._completed(self._recorded(part, budget), solve=solve)

        record = capture_split(capture, budget, need, self._probe.why_whole(data))
        if solve or record.reduction_factor is None:
            return record
        factor = 1.0 / record.reduction_factor
        return replace(record, layers=tuple(per_sample(leaf, factor) for leaf in record.layers))

    def _recorded(self, batch: Batch, budget: Budget) -> ModelRecord:
        with self._lock, running_on(batch):
            recorded: ModelRecord = self._probe(batch.x, batch.y, batch.sample_weight, budget)
        if _FEW * max(map(_largest, recorded.layers), default=0) > (budget.available or 0):
            free.release()  # memory of the framework; releasing it takes time, and allocating it again more
        return recorded

    def _completed(self, record: ModelRecord, *, solve: bool = True) -> ModelRecord:
        """Undo the batch mean and, if requested, solve the recurrent layers."""
        has_labels = record.loss is not None
        wanted = self._quantities if has_labels else self._quantities - _vocabulary.GRADIENT_QUANTITIES
        factor = None if record.is_undone else record.reduction_factor
        leaves = [per_sample(leaf, factor) for leaf in record.layers]
        record = replace(record, layers=())
        done: list[LayerRecord] = []
        while leaves:  # each is released after it is solved
            done.append(with_inside(leaves.pop(0), wanted if solve else frozenset()))
        return replace(record, layers=tuple(done))


def _largest(leaf: LayerRecord) -> int:
    """Return the size of the largest array of a layer, in bytes."""
    inside = [one.hidden for one in leaf.inside if isinstance(one, DirectionRecord)]
    solved = [array for one in leaf.inside if isinstance(one, SolvedRecord) for array in one.arrays.values()]
    return max((array.nbytes for array in [*leaf.arrays.values(), *inside, *solved]), default=0)


def _at_step(batch: Batch, step: int) -> Array:
    """Return weights for one step of every sample."""
    shape = tuple(getattr(batch.y, "shape", ()))
    if len(shape) < 2 or not 0 <= step < shape[1]:
        raise LossError(f"step={step} needs labels (sample, time, …) that have it; these have shape {shape}.")
    weights = np.zeros(shape[:2], np.float32)
    weights[:, step] = 1
    if batch.sample_weight is None:
        return weights
    given = np.asarray(batch.sample_weight, np.float32)
    return weights * (given[:, None] if given.ndim == 1 else given)
