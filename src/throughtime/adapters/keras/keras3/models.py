"""What is asked of a whole model of Keras 3: variables, losses, settings, and that it is left as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras.src.backend.common import global_state

from throughtime._data.restoring import Restored, random_state_restorers
from throughtime.adapters.attributes import attributes_restorer
from throughtime.adapters.keras.library import check_built, every_layer
from throughtime.adapters.keras.reductions import Labels
from throughtime.adapters.keras.tensors import dtype_of
from throughtime.adapters.records import Attribute

_counts: dict[str, int] = {}
AVERAGES_OVER_VALID_STEPS = True


def automatic_name_count(layer: Any, prefix: str) -> int:
    """How many names Keras has given out for this prefix, in the thread that has given out most.

    Keras counts in each thread apart, and a thread sees its own count alone: the others' are remembered.
    """
    count = int((global_state.get_global_attribute("object_name_uids") or {}).get(prefix, 0))
    _counts[prefix] = max(count, _counts.get(prefix, 0))
    return _counts[prefix]


def check_model(model: Any) -> None:
    """Refuse a model without weights yet; layers inside recurrent cells get theirs when the cell runs."""
    recurrent = [layer for layer in every_layer(model) if isinstance(layer, keras.layers.RNN)]
    cells = [layer.cell for layer in recurrent if isinstance(layer.cell, keras.layers.Layer)]
    inner = {layer.name: layer for cell in cells for layer in every_layer(cell)}
    has_weights = {name for name, layer in inner.items() if type(layer).build is not keras.layers.Layer.build}
    check_built(model, [name for name, layer in inner.items() if not layer.built and name in has_weights])


def all_variables(model: Any) -> list[Any]:
    """Return everything a pass may read or write: weights, seeds, statistics, states of stateful layers."""
    states = [
        state
        for layer in every_layer(model)
        if isinstance(layer, keras.layers.RNN)
        for state in keras.tree.flatten(layer.states)
        if isinstance(state, keras.Variable)
    ]
    return list({id(variable): variable for variable in [*model.variables, *states]}.values())


def untouched(model: Any) -> Restored:
    """Take back every attribute written inside the block, also when it raises or is interrupted.

    Keras' own global state is put back as well: name counters, and scopes that an interrupt leaves open.
    """
    holders = [global_state.GLOBAL_STATE_TRACKER, *_holders(model)]
    return Restored([*random_state_restorers(), *map(attributes_restorer, holders)])


def _holders(model: Any) -> list[Any]:
    """Objects on which a forward pass and its loss may write."""
    loss = compiled_losses(model)
    tracked = [loss, getattr(loss, "_tracker", None)] if loss is not None else []
    return [*every_layer(model), *(holder for holder in tracked if holder is not None)]


def compute_dtype(layer: Any) -> str:
    """Name the precision a layer computes in: JAX takes float64 for float32 unless told otherwise."""
    return dtype_of(keras.ops.zeros((), layer.compute_dtype))


def of_framework(model: Any) -> dict[str, Attribute]:
    """Name Keras, its version and its backend."""
    return {
        "framework": "keras",
        "framework_version": keras.__version__,
        "backend": keras.backend.backend(),
    }


def regularised(model: Any) -> list[str]:
    """Name the weights that are regularised."""
    return sorted(each.path for each in model.trainable_variables if each.regularizer is not None)


def weight_values(model: Any, variables: Sequence[Any]) -> dict[int, Any]:
    """Read variables as they are now, by their identity."""
    return {id(variable): variable.value for variable in variables}


def compiled_losses(model: Any) -> Any:
    """Return the object `compile` made of the losses, None when there are none."""
    return getattr(model, "_compile_loss", None)


def given_losses(model: Any) -> list[Any]:
    """List what `compile` was given as losses, empty for nothing."""
    given = getattr(compiled_losses(model), "_user_loss", None)
    return [] if given is None else keras.tree.flatten(given)


def loss_function(passed: Any) -> Any:
    """Return what the name of a loss stands for."""
    return keras.losses.get(passed) if isinstance(passed, str) else passed


def losses_to_call(model: Any, name: str | None) -> Any:
    """Return the model's losses as `compile` made them."""
    del name  # stands for a function
    return compiled_losses(model)


def single_losses(losses: Any) -> list[Any]:
    """List each output's loss, known after `losses` has been called."""
    return [entry.loss for entry in getattr(losses, "_flat_losses", None) or []]


def computed_loss(model: Any, losses: Any, labels: Labels, predictions: Any, training: bool) -> Any:
    """Evaluate the model's own `compute_loss`, which adds what layers add."""
    # Models written before Keras 3.3 override compute_loss without its training argument.
    compute = getattr(model, "_compute_loss", model.compute_loss)
    return compute(
        x=labels.x, y=labels.y, y_pred=predictions, sample_weight=labels.sample_weight, training=training
    )


def added_losses(model: Any) -> list[Any]:
    """Sum up each loss that layers and regularisers add, as Keras does."""
    return [keras.ops.sum(added) for added in model.losses]
