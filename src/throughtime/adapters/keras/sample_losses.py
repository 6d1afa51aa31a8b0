"""What each sample of a batch loses alone: one pass without gradients, and its loss a sample at a time."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from throughtime._errors import LossError, ThroughTimeError
from throughtime.adapters.records import Array

from .batches import check_sizes, ragged_explained, shapes
from .dialect import Dialect, Traced
from .library import plain_settings
from .loop import wide
from .loss import Loss
from .program import Traces, weakly
from .recorder import CARRIED
from .reductions import Labels


class Alone:
    """A pass, and the part of the loss that compares each sample with its labels; holds the model weakly."""

    any_batch = False

    def __init__(self, keras: Dialect, model: Any, passed: Callable[[], Any], *, training: bool) -> None:
        self._keras, self._passed, self._training = keras, passed, training
        self._model = weakref.ref(model)

    @property
    def model(self) -> Any:
        """The model."""
        return self._model()

    def __call__(self, inputs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what each sample loses, and whether anything is valid in it."""
        keras, tree, loss = self._keras, self._keras.tree, Loss(self._keras, self.model, self._passed())
        x, y, weight = inputs
        predictions = keras.called(self.model, x, self._training)
        carried = [[keras.beside(each, name) for name in CARRIED] for each in tree.flatten(predictions)]
        whole = [x if loss.overrides else None, y, weight, predictions, carried]
        flat = tree.flatten(whole)

        def step(carry: Any, row: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            parts = [None if each is None else row[str(place)] for place, each in enumerate(flat)]
            *labels, predicted, beside = tree.pack_sequence_as(whole, parts)
            for tensor, values in zip(tree.flatten(predicted), beside, strict=True):
                for name, value in zip(CARRIED, values, strict=True):
                    keras.set_beside(tensor, name, value)
            value = loss.of_data(Labels(*labels), predicted, self._training)
            return carry, {"loss": keras.ops.reshape(wide(keras, value), (1,)), "valid": self._valid(beside)}

        # One sample a step, which keeps its axis.
        rows = {str(place): each[:, None] for place, each in enumerate(flat) if each is not None}
        return keras.scan(self.model, step, [], rows)[1], {}

    def _valid(self, beside: Any) -> Any:
        """Whether any step of any prediction is valid; it is where one has no mask."""
        ops, masks = self._keras.ops, [mask for mask, _ in beside]
        if not masks or any(mask is None for mask in masks):
            return ops.convert_to_tensor([1.0])
        each = [ops.max(ops.cast(mask, "float32")) for mask in masks]
        return ops.reshape(ops.max(ops.stack(each)), (1,))


_traces: Traces[tuple[Traced, Callable[[], Any]]] = Traces()


def losses(keras: Dialect, model: Any, *batch: Any, loss: Any, training: bool) -> Array:
    """Evaluate what each sample of a batch, x, y and sample weights, loses alone, in float64.

    Returns
    -------
    ndarray (sample)
        NaN for a sample whose steps are all masked.

    Raises
    ------
    LossError
        There is no loss that compares predictions with labels, or it fails on single samples.
    """
    keras.check_model(model)
    own = Loss(keras, model, loss)
    own.check()
    if not own.has_data_loss():
        raise LossError("Layers add the whole loss, so a single sample has no loss.")
    keras.synchronise(model)
    data = keras.batch(model, *batch)
    check_sizes(keras, *data)
    kept = keras.untouched(model)
    with ragged_explained(keras, batch[0]), kept, kept:
        try:
            found = _traced(keras, own, data, training)(data).tensors
        except ThroughTimeError:
            raise
        except Exception as error:
            raise LossError(
                f"The loss cannot be evaluated on one sample alone: {type(error).__name__}: {error}"
            ) from error
    values, valid = (np.asarray(keras.numpy(found[name]), float).ravel() for name in ("loss", "valid"))
    return np.where(valid > 0, values, np.nan)


def _traced(keras: Dialect, loss: Loss, data: Any, training: bool) -> Traced:
    model = loss.model

    def made() -> tuple[Traced, Callable[[], Any]]:
        alone = Alone(keras, model, weakly(loss.passed), training=training)
        return keras.traced(alone, data), weakly(loss.identity)

    identity = loss.passed if isinstance(loss.passed, str) else id(loss.identity)
    key = shapes(keras, data), identity, training, keras.execution(model), plain_settings(model)
    return _traces.get(model, key, made, lambda trace: trace[1]() is loss.identity)[0]
