"""Operations on a whole model of Keras 3: its batch, variables and losses, and restoring it."""

from collections.abc import Sequence
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.backend.common.tensor_attributes import get_tensor_attr, set_tensor_attr

from throughtime._errors import BatchError
from throughtime._inputs.restoring import Restored, random_state_restorers
from throughtime.adapters.attributes import attributes_restorer
from throughtime.adapters.keras.batches import PAD, is_ragged, mapped
from throughtime.adapters.keras.contracts import Call, Layer, Model, Tensor, Variable
from throughtime.adapters.keras.library import check_built, compiled_losses, dtype_of, every_layer
from throughtime.adapters.keras.reductions import Labels
from throughtime.adapters.records import Attribute

_counts: dict[str, int] = {}
AVERAGES_OVER_VALID_STEPS = True
_VECTORISE = "Give numbers. Text is taken on TensorFlow alone, by a model that begins with TextVectorization."


def automatic_name_count(layer: Layer, prefix: str) -> int:
    """How many names Keras has given out for this prefix, in the thread that has given out most.

    Keras counts in each thread apart, and a thread sees its own count alone: the others' are remembered.
    """
    count = int((global_state.get_global_attribute("object_name_uids") or {}).get(prefix, 0))
    _counts[prefix] = max(count, _counts.get(prefix, 0))
    return _counts[prefix]


def check_model(model: Model) -> None:
    """Refuse a model without weights yet; layers inside recurrent cells get theirs when the cell runs."""
    recurrent = [layer for layer in every_layer(model) if isinstance(layer, keras.layers.RNN)]
    cells = [layer.cell for layer in recurrent if isinstance(layer.cell, keras.layers.Layer)]
    inner: dict[str, Any] = {layer.name: layer for cell in cells for layer in every_layer(cell)}
    has_weights = {name for name, layer in inner.items() if type(layer).build is not keras.layers.Layer.build}
    check_built(model, [name for name, layer in inner.items() if not layer.built and name in has_weights])


def all_variables(model: Model) -> list[Variable]:
    """Return everything a pass may read or write: weights, seeds, statistics, states of stateful layers."""
    states = [
        state
        for layer in every_layer(model)
        if isinstance(layer, keras.layers.RNN)
        for state in keras.tree.flatten(layer.states)
        if isinstance(state, keras.Variable)
    ]
    return list({id(variable): variable for variable in [*model.variables, *states]}.values())


def untouched(model: Model) -> Restored:
    """Take back every attribute written inside the block, also when it raises or is interrupted.

    Keras' global state is restored as well: name counters, and scopes that an interrupt leaves open.
    """
    loss = compiled_losses(model)
    of_loss = [each for each in (loss, getattr(loss, "_tracker", None)) if each is not None]
    holders = [global_state.GLOBAL_STATE_TRACKER, *every_layer(model), *of_loss]
    return Restored([*random_state_restorers(), *map(attributes_restorer, holders)])


def compute_dtype(layer: Any) -> str:
    """Name the precision a layer computes in: JAX takes float64 for float32 by default."""
    name = str(layer.compute_dtype)
    return dtype_of(keras.ops.zeros((), name)) if name == "float64" else name


def of_framework(model: Model) -> dict[str, Attribute]:
    """Name Keras, its version and its backend."""
    return {"framework": "keras", "framework_version": keras.__version__, "backend": keras.backend.backend()}


def regularised(model: Any) -> list[str]:
    """Name the weights that are regularised."""
    return sorted(each.path for each in model.trainable_variables if each.regularizer is not None)


def weight_values(model: Model, variables: Sequence[Any]) -> dict[int, object]:
    """Read variables as they are now, by their identity."""
    return {id(variable): variable.value for variable in variables}


def loss_function(passed: object) -> object:
    """Return what the name of a loss stands for."""
    return keras.losses.get(passed) if isinstance(passed, str) else passed


def losses_to_call(model: Model, name: str | None) -> Call:
    """Return the model's losses as `compile` made them."""
    del name  # stands for a function
    return compiled_losses(model)


def single_losses(losses: object) -> list[object]:
    """List each output's loss, known after `losses` has been called."""
    return [entry.loss for entry in getattr(losses, "_flat_losses", None) or []]


def computed_loss(
    model: Model, losses: object, labels: Labels, predictions: object, training: bool
) -> Tensor:
    """Evaluate the model's own `compute_loss`, which adds what layers add."""
    # Models written before Keras 3.3 override compute_loss without its training argument.
    compute = getattr(model, "_compute_loss", model.compute_loss)
    return compute(
        x=labels.x, y=labels.y, y_pred=predictions, sample_weight=labels.sample_weight, training=training
    )


def added_losses(model: Model) -> list[Tensor]:
    """Sum up each loss that layers and regularisers add, as Keras does."""
    return [keras.ops.sum(added) for added in model.losses]


def batch(model: Model, *structures: object) -> tuple[object, ...]:
    """Turn x, y and sample weights into tensors that share no mask or history with the caller's."""
    found = tuple(mapped(keras.tree, _tensor, structure) for structure in structures)
    check_inputs(model, found[0])
    return found


def _tensor(array: Tensor) -> Tensor:
    try:
        tensor = keras.ops.convert_to_tensor(array)
    except Exception as error:
        what = f"{type(array).__name__} of dtype {getattr(array, 'dtype', None)}"
        raise BatchError(
            f"A {what} cannot become a tensor on the {keras.backend.backend()} backend: "
            f"{type(error).__name__}: {str(error)[:200]}\n{_remedy(array)}"
        ) from error
    return tensor.detach() if hasattr(tensor, "detach") else tensor


def _remedy(array: Tensor) -> str:
    if is_ragged(array):
        return PAD
    is_text = getattr(getattr(array, "dtype", None), "kind", "") in ("U", "S", "O", "T")
    return _VECTORISE if is_text else "Give dense arrays of numbers."


def check_inputs(model: Model, x: object) -> None:
    """Raise BatchError for tensors whose axes are not those that a model declares for its inputs."""
    declared, given = getattr(model, "inputs", None) or [], keras.tree.flatten(x)
    if isinstance(x, dict) or len(declared) != len(given):
        return  # matched by name, or by the model itself
    for expected, tensor in zip(declared, given, strict=True):
        expects, has = tuple(expected.shape), tuple(getattr(tensor, "shape", ()))
        if has and not _fits(expects, has):
            is_single = _fits(expects[1:], has)
            remedy = (
                " That is one sample without the axis of samples: x[None] is a batch." if is_single else ""
            )
            raise BatchError(f"x has shape {has}, and the model {model.name!r} expects {expects}.{remedy}")


def _fits(expects: tuple[int | None, ...], has: tuple[int | None, ...]) -> bool:
    if len(expects) == len(has):
        return all(None in (one, other) or one == other for one, other in zip(expects, has, strict=True))
    # Keras itself adds a last axis of length 1, or takes it away.
    longer, shorter = max(expects, has, key=len), min(expects, has, key=len)
    return longer[-1:] == (1,) and len(longer) == len(shorter) + 1


def beside(tensor: Tensor, name: str) -> Tensor | None:
    """Return what Keras keeps beside a tensor, its mask or logits; None for nothing."""
    return get_tensor_attr(tensor, name)


def set_beside(tensor: Tensor, name: str, value: Tensor | None) -> None:
    """Keep something beside a tensor, None for nothing."""
    if value is not None:
        set_tensor_attr(tensor, name, value)
    elif hasattr(tensor, name):
        delattr(tensor, name)
