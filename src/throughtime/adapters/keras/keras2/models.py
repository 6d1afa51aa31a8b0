"""Operations on a whole model of Keras 2: its batch, weights, settings and losses.

Losses are evaluated as Keras' training would, without its metrics, which hold variables.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from throughtime._errors import BatchError, UnsupportedModelError
from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras import library
from throughtime.adapters.keras.batches import PAD, mapped
from throughtime.adapters.keras.cell import inner_cells
from throughtime.adapters.keras.contracts import Call, Layer, Model, Tensor, Variable
from throughtime.adapters.keras.reductions import Labels
from throughtime.adapters.records import Attribute

from . import graph
from .variables import raw_variable

AVERAGES_OVER_VALID_STEPS = False


def check_model(model: Model) -> None:
    """Refuse what cannot be captured: a model without weights yet, or spread over devices."""
    library.check_built(model, [part for layer in library.every_layer(model) for part in _unbuilt(layer)])
    if any("distribute" in type(raw_variable(variable)).__module__ for variable in model.weights):
        raise UnsupportedModelError(
            f"The weights of {model.name!r} are spread over devices by a tf.distribute strategy. Build the "
            "model once more outside of strategy.scope(), give it the weights with "
            "set_weights(model.get_weights()), and capture that one."
        )
    for layer in library.every_layer(model):
        if getattr(layer, "time_major", False):
            raise UnsupportedModelError(
                f"The layer {layer.name!r} has time_major=True: its first axis is time. Build it with "
                "time_major=False and give it tf.transpose(x, [1, 0, 2]); its weights are the same."
            )


def _unbuilt(layer: Layer) -> Iterator[str]:
    if library.is_a(layer, "RNN") and hasattr(layer, "cell"):
        for cell in inner_cells(layer.cell):
            if library.is_layer(cell) and not cell.built:  # what is no layer has its weights from the start
                yield str(cell.name)


def weight_values(model: Model, variables: Sequence[Variable]) -> dict[int, object]:
    """Read variables as they are now, by their identity."""
    variables = list({id(variable): variable for variable in variables}.values())
    if library.belongs_to_a_graph(model):
        values = graph.values_of(model, variables)
    else:
        values = [np.array(raw_variable(variable).read_value()) for variable in variables]
    return {id(variable): value for variable, value in zip(variables, values, strict=True)}


def of_framework(model: Model) -> dict[str, Attribute]:
    """Name the Keras 2 of a model, its version, and how it runs."""
    return {
        "framework": (package := library.package_of_object(model)),
        "framework_version": str(getattr(import_module(package), "__version__", "")),
        "backend": "tensorflow",
        "backend_version": str(tf.__version__),
        "mode": "graph" if library.belongs_to_a_graph(model) else "eager",
    }


def regularised(model: Model) -> list[str]:
    """Name the layers that are regularised, once for each regulariser."""
    return [layer.name for layer in library.every_layer(model) for _ in layer._callable_losses]


def automatic_name_count(layer: Layer, prefix: str) -> int:
    """How many names Keras has given out for this prefix, in the graph that has given out most."""
    counts = library.internal(layer, "backend").PER_GRAPH_OBJECT_NAME_UIDS.values()
    return max((int(names.get(("", prefix), 0)) for names in counts), default=0)


def compute_dtype(layer: Layer) -> str:
    """Name the precision a layer computes in; one that takes over its input's shows it by its weights."""
    held = [layer, getattr(layer, "forward_layer", None), getattr(layer, "cell", None)]
    told = (getattr(each, "compute_dtype", None) for each in held)
    weights = (tf.as_dtype(raw_variable(weight).dtype).name for weight in getattr(layer, "weights", ()))
    return str(next(filter(None, [*told, *weights]), "float32"))


def loss_function(passed: object) -> object:
    """Return what was passed: the name of a loss stands for `losses_to_call`, which reads masks."""
    return passed


def single_losses(losses: Any) -> list[object]:
    """List each output's loss, known after `losses` has been called."""
    return list(losses._losses)


def computed_loss(
    model: Model, losses: object, labels: Labels, predictions: object, training: bool
) -> Tensor:
    """Evaluate the model's own `compute_loss`, which adds what layers add."""
    is_kept = getattr(model, "compiled_loss", None) is not None
    with replaced(model, "compiled_loss", losses) if is_kept else nullcontext():
        return model.compute_loss(labels.x, labels.y, predictions, labels.sample_weight)


def added_losses(model: Model) -> list[Tensor]:
    """List what layers and regularisers have added to the loss in this pass."""
    here = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    return [loss for loss in model.losses if not _is_foreign(loss, here)]


def _is_foreign(tensor: Tensor, graph: object) -> bool:
    """Whether a tensor was left by another pass, in another graph; values from outside functions are not."""
    own = getattr(tensor, "graph", None) if not hasattr(tensor, "numpy") else None
    if graph is None or own is None:
        return False
    while graph is not None and graph is not own:  # a loop's graph may use what stands around it
        graph = getattr(graph, "outer_graph", None)
    return graph is None


def losses_to_call(model: Model, name: str | None) -> Call:
    """Make a container of losses, as `compile` makes one, that keeps no metrics."""
    compiled = getattr(model, "compiled_loss", None)
    if name is None and compiled is not None:
        container = copy.copy(compiled)
    else:
        kind = library.internal(model, "engine.compile_utils").LossesContainer
        container = kind.__new__(kind)
        losses, scales = (name, None) if name is not None else (model.loss, model.loss_weights)
        # The attributes that its constructor sets; the constructor would make a metric.
        container._output_names = getattr(model, "output_names", None)
        container._user_losses = container._losses = losses
        container._user_loss_weights = container._loss_weights = scales
        container._mesh, container._built = None, False

    def create_no_metrics() -> None:
        container._per_output_metrics = [None] * len(container._losses)

    container._per_output_metrics = None
    if container._built:
        create_no_metrics()
    container._create_metrics = create_no_metrics
    silent = SimpleNamespace(update_state=lambda *_, **__: None, reset_state=lambda: None)
    container._total_loss_mean = container._loss_metric = silent  # in place of a metric that nobody reads
    return container


def batch(model: Model, *structures: object) -> tuple[object, ...]:
    """Bring x, y and sample weights to NumPy; BatchError where a part is no dense array."""
    return tuple(mapped(tf.nest, _array, structure) for structure in structures)


def _array(value: Tensor) -> Tensor:
    if isinstance(value, tf.RaggedTensor):
        raise BatchError(f"A tf.RaggedTensor cannot be captured. {PAD}")
    if isinstance(value, tf.SparseTensor):
        raise BatchError("A tf.SparseTensor cannot be captured. Pass tf.sparse.to_dense(x).")
    if isinstance(value, tf.Tensor) and not hasattr(value, "numpy"):
        raise BatchError(
            "The batch holds a graph tensor, which has no values. Pass arrays: session.run(tensor)."
        )
    return np.asarray(value)


def beside(tensor: Tensor, name: str) -> Tensor | None:
    """Return what Keras keeps on a tensor, its mask or logits; None for nothing."""
    return getattr(tensor, name, None)


def set_beside(tensor: Tensor, name: str, value: Tensor | None) -> None:
    """Keep something on a tensor, None for nothing."""
    if value is not None:
        setattr(tensor, name, value)
    elif hasattr(tensor, name):
        delattr(tensor, name)
