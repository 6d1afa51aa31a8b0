"""The loss of each sample alone: one pass without gradients, then the loss of one sample at a time."""

from collections.abc import Sequence

import numpy as np

from throughtime._errors import LossError, ThroughTimeError
from throughtime._inputs.batch import Batch, running_on
from throughtime.adapters.records import Array

from .batches import check_sizes, ragged_explained
from .contracts import Data, Model, Tensor
from .dialect import Dialect, Result, Traced
from .library import called, numpy, synchronise
from .loop import wide
from .loss import Loss
from .program import Traces, weakly
from .recorder import CARRIED
from .reductions import Labels

_traces: Traces[Traced] = Traces()


def losses(keras: Dialect, model: Model, *batch: object, loss: object, training: bool) -> Array:
    """Evaluate what each sample of x, y and sample weights loses alone, in float64; NaN where all is masked.

    LossError: no loss compares predictions with labels, or it fails on single samples.
    """

    def traced() -> Traced:
        held, passed = weakly(model), weakly(loss)

        def alone(inputs: Data) -> Result:
            return Result(_alone(Loss(keras, held(), passed()), keras, inputs, training), {})

        return keras.traced(model, alone, data)

    keras.check_model(model)
    own = Loss(keras, model, loss)
    own.check()
    if not own.has_data_loss():
        raise LossError("Layers add the whole loss, so a single sample has no loss.")
    synchronise(model)
    data = keras.batch(model, *batch)
    check_sizes(keras, *data)
    kept = keras.untouched(model)
    with ragged_explained(keras, batch[0]), kept, kept:
        try:
            found = _traces.get(keras, own, data, training, traced)(data).tensors
        except ThroughTimeError:
            raise
        except Exception as error:
            raise LossError(
                f"The loss cannot be evaluated on one sample alone: {type(error).__name__}: {error}"
            ) from error
    values, valid = (np.asarray(numpy(found[name]), float).ravel() for name in ("loss", "valid"))
    return np.where(valid > 0, values, np.nan)


def _alone(loss: Loss, keras: Dialect, inputs: Data, training: bool) -> dict[str, Tensor]:
    """Run the model; return what each sample loses, and whether anything is valid in it."""
    tree, (x, y, weight) = keras.tree, inputs
    with running_on(Batch(x, y, weight, "")):
        predictions = called(loss.model, x, training)
    carried = [[keras.beside(each, name) for name in CARRIED] for each in tree.flatten(predictions)]
    whole = [x if loss.overrides else None, y, weight, predictions, carried]
    flat = tree.flatten(whole)

    def step(carry: object, row: dict[str, Tensor]) -> tuple[object, dict[str, Tensor]]:
        parts = [None if each is None else row[str(place)] for place, each in enumerate(flat)]
        *labels, predicted, beside = tree.pack_sequence_as(whole, parts)
        for tensor, values in zip(tree.flatten(predicted), beside, strict=True):
            for name, value in zip(CARRIED, values, strict=True):
                keras.set_beside(tensor, name, value)
        value = loss.of_data(Labels(*labels), predicted, training)
        return carry, {"loss": keras.ops.reshape(wide(keras, value), (1,)), "valid": _valid(keras, beside)}

    # One sample a step, which keeps its axis.
    rows = {str(place): each[:, None] for place, each in enumerate(flat) if each is not None}
    return keras.scan(step, [], rows)[1]


def _valid(keras: Dialect, beside: Sequence[Sequence[Tensor | None]]) -> Tensor:
    """Whether any step of any prediction is valid; it is where one has no mask."""
    ops, masks = keras.ops, [mask for mask, _ in beside]
    if not masks or any(mask is None for mask in masks):
        return ops.convert_to_tensor([1.0])
    each = [ops.max(ops.cast(mask, "float32")) for mask in masks]
    return ops.reshape(ops.max(ops.stack(each)), (1,))
