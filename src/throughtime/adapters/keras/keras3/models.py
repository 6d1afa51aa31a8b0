"""What is asked of a whole model of Keras 3: variables, losses, settings, and that it is left as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras.src.backend.common import global_state

from throughtime._data.random_states import random_state_restorers
from throughtime._data.restoring import Restored
from throughtime._errors import UnbuiltModelError, UnsupportedModelError
from throughtime.adapters.attributes import attributes_restorer
from throughtime.adapters.keras.library import every_layer, overrides
from throughtime.adapters.keras.reductions import Labels
from throughtime.adapters.records import Attribute

from .tensors import dtype_of

_counts: dict[str, int] = {}
AVERAGES_OVER_VALID_STEPS = True


def check_model(model: Any) -> None:
    """Refuse what cannot be captured: no Keras model, or one without weights yet."""
    if not isinstance(model, keras.layers.Layer):
        raise UnsupportedModelError(f"Expected a Keras model, got {type(model).__name__}.")
    if not model.built:
        raise UnbuiltModelError(
            f"The model {model.name!r} is not built: it has no weights yet. Start it with "
            "keras.Input(shape), or call it once on a batch, model(x), before the capture."
        )
    unbuilt = unbuilt_in_cells(model)
    if unbuilt:
        raise UnbuiltModelError(
            f"Keras builds {', '.join(unbuilt)}, inside a recurrent cell of {model.name!r}, when the cell "
            "first runs. Call the model once on a batch, model(x), before the capture."
        )


def automatic_name_count(layer: Any, prefix: str) -> int:
    """How many names Keras has given out for this prefix, in the thread that has given out most.

    Keras counts in each thread apart, and a thread sees its own count alone: the others' are remembered.
    """
    count = int((global_state.get_global_attribute("object_name_uids") or {}).get(prefix, 0))
    _counts[prefix] = max(count, _counts.get(prefix, 0))
    return _counts[prefix]


def unbuilt_in_cells(model: Any) -> list[str]:
    """Name layers inside recurrent cells that have no weights before the cell has run."""
    recurrent = [layer for layer in every_layer(model) if isinstance(layer, keras.layers.RNN)]
    cells = [layer.cell for layer in recurrent if isinstance(layer.cell, keras.layers.Layer)]
    inner = {layer.name: layer for cell in cells for layer in every_layer(cell)}
    has_weights = {name for name, layer in inner.items() if type(layer).build is not keras.layers.Layer.build}
    return [name for name, layer in inner.items() if not layer.built and name in has_weights]


def synchronise(model: Any) -> None:
    """Bring what training holds outside of the model into its variables: on JAX, inside `fit`."""
    state_sync = getattr(model, "jax_state_sync", None)
    if state_sync is not None:
        state_sync()


def global_state_of_this_thread() -> Any:
    """Return what has Keras' name counters, open scopes and variables without a value as attributes."""
    return global_state.GLOBAL_STATE_TRACKER


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
    holders = [global_state_of_this_thread(), *_holders(model)]
    return Restored([*random_state_restorers(), *map(attributes_restorer, holders)])


def _holders(model: Any) -> list[Any]:
    """Objects on which a forward pass and its loss may write."""
    loss = compiled_losses(model)
    tracked = [loss, getattr(loss, "_tracker", None)] if loss is not None else []
    return [*every_layer(model), *(holder for holder in tracked if holder is not None)]


def compute_dtype(layer: Any) -> str:
    """Name the precision a layer computes in: JAX takes float64 for float32 unless told otherwise."""
    return dtype_of(keras.ops.zeros((), layer.compute_dtype))


def path_of(variable: Any) -> str:
    """Name a variable with its scopes, parted by slashes."""
    return str(variable.path)


def of_framework(model: Any) -> dict[str, Attribute]:
    """Name Keras, its version and its backend."""
    return {
        "framework": "keras",
        "framework_version": keras.__version__,
        "backend": keras.backend.backend(),
    }


def of_training(model: Any, *, with_loss: bool) -> dict[str, Attribute]:
    """Name what the pass does otherwise than a training step."""
    if not with_loss or not overrides(model, "train_step"):
        return {}
    return {"train_step": "the model's own train_step was not run: the loss is that of compute_loss"}


def regularised(model: Any) -> list[str]:
    """Name the weights that are regularised."""
    return sorted({each.path for each in model.trainable_variables if each.regularizer is not None})


def loss_scale_of(model: Any) -> float:
    """Return the factor by which the model's optimizer scales its loss, 1 without."""
    optimizer = getattr(model, "optimizer", None)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return float(optimizer.dynamic_scale) if optimizer.built else float(optimizer.initial_scale)
    return float(getattr(optimizer, "loss_scale_factor", None) or 1.0)


def weight_values(model: Any, variables: Sequence[Any]) -> dict[int, Any]:
    """Read variables as they are now, by their identity."""
    return {id(variable): variable.value for variable in variables}


def is_compiled(model: Any) -> bool:
    """Whether the model was compiled, with a loss or without."""
    return bool(getattr(model, "compiled", False))


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


def adds_losses(model: Any) -> bool:
    """Whether layers add to the loss by themselves, beside the regularisers of weights."""
    regularised = [weight for weight in model.trainable_variables if weight.regularizer is not None]
    return len(model.losses) > len(regularised)
