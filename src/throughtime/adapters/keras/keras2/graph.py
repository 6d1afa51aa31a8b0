"""Gradients of TensorFlow 1's graph mode: `tf.gradients` in a separate graph and session.

Nothing is added to the user's graph, which may be finalized, and nothing runs in the user's session but the
reading of weights. The layers are called again in the new graph, on variables of the same names and values.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.autograph.core import ag_ctx

from throughtime._errors import UnbuiltModelError, UnsupportedModelError
from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras.contracts import Data, Held, Model, Tensor, Variable
from throughtime.adapters.keras.dialect import Computation, Result, Traced
from throughtime.adapters.keras.library import every_layer, internal, shape_of
from throughtime.adapters.records import Array

from .variables import all_variables, is_cast, raw_variable, standing_in, untouched


def values_of(model: Model, variables: Sequence[Variable]) -> list[Array]:
    """Read variables in the session that holds them, by operations that are there; or UnbuiltModelError."""
    if not variables:
        return []
    raw = [raw_variable(variable) for variable in variables]
    try:
        return session_of(model, raw[0].graph).run(raw)
    except tf.errors.FailedPreconditionError as error:
        raise UnbuiltModelError(
            f"The model {model.name!r} has variables without a value: {error.message.splitlines()[0]}\n"
            "Restore them, or let Keras initialise them: keras.backend.get_session(), or fit."
        ) from error


def session_of(model: Model, graph: object) -> Any:
    """Find the session with a graph's values: the one entered, else the one that Keras was given.

    None is made, but UnbuiltModelError raised: Keras itself would start a new one, with new random weights,
    where its own is of another graph.
    """
    of_keras = getattr(internal(model, "backend")._SESSION, "session", None)
    for session in (tf.compat.v1.get_default_session(), of_keras):
        if session is not None and session.graph is graph and not getattr(session, "_closed", False):
            return session
    raise UnbuiltModelError(
        f"The graph of the model {model.name!r} has no session, so its weights have no values. Enter the "
        "session that holds them, `with session.as_default():`, or pass it to Keras with "
        "keras.backend.set_session(session); keras.backend.get_session() makes a new one."
    )


def trace(model: Model, computation: Computation, inputs: object) -> Traced:
    """Build a graph that runs a computation and its gradients."""
    scratch = _Scratch(model)
    with scratch.graph.as_default():
        fed = tf.nest.map_structure(_placeholder, inputs)
        with untouched(model), scratch.in_place_of(model), _other_graphs_told(model), autograph_enabled():
            tensors, gradients = computation(fed)
        fetched = Result({key: tf.convert_to_tensor(tensor) for key, tensor in tensors.items()}, gradients)
    scratch.graph.finalize()

    def run(inputs: Data) -> Result:
        scratch.load()
        return scratch.session.run(fetched, _feed(fed, inputs))

    return run


def _placeholder(array: Tensor) -> Tensor:
    if array is None:
        return None
    return tf.compat.v1.placeholder(tf.as_dtype(array.dtype), array.shape)


def _feed(fed: Any, inputs: object) -> dict[Any, Array]:
    pairs = zip(tf.nest.flatten(fed), tf.nest.flatten(inputs), strict=True)
    return {placeholder: array for placeholder, array in pairs if placeholder is not None}


class _Scratch:
    """A graph beside the user's, with variables in place of the model's, and a session for it."""

    def __init__(self, model: Model) -> None:
        self.graph = tf.Graph()
        self._model: Held = weakref.ref(model)
        self._variables = all_variables(model)
        with self.graph.as_default():
            self._stand_ins = {id(variable): _like(model, variable) for variable in self._variables}
            self._constants = {id(tensor): tf.constant(value) for tensor, value in _constants(model)}
            self.session = tf.compat.v1.Session(graph=self.graph)

    @contextmanager
    def in_place_of(self, model: Model) -> Iterator[None]:
        """Let the model's layers compute with this graph's variables."""
        layers = every_layer(model)
        with ExitStack() as stack:
            for layer in layers:
                # Losses that earlier calls of the layer have added belong to another graph.
                stack.enter_context(replaced(layer, "_losses", []))
            stack.enter_context(standing_in(layers, {**self._stand_ins, **self._constants}, lists=True))
            yield

    def load(self) -> None:
        """Take over the values that the user's session has now."""
        values = values_of(self._model(), self._variables)
        initializers = [raw_variable(each).initializer for each in self._stand_ins.values()]
        feed = {each.inputs[1]: value for each, value in zip(initializers, values, strict=True)}
        self.session.run(initializers, feed)


def _like(model: Model, variable: Variable) -> Tensor:
    """Make a variable of the same kind in the current graph."""
    raw = raw_variable(variable)
    name = raw.name.partition(":")[0]
    zeros = np.zeros(shape_of(raw), raw.dtype.as_numpy_dtype)
    own = tf.compat.v1.Variable(zeros, trainable=raw.trainable, name=name, use_resource=True)
    if not is_cast(variable):
        return own
    return internal(model, "mixed_precision.autocast_variable").create_autocast_variable(own)


def _constants(model: Model) -> Iterator[tuple[Any, Array]]:
    """Find constants of the user's graph that layers keep in their attributes."""
    for layer in every_layer(model):
        for value in vars(layer).values():
            for tensor in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(tensor, tf.Tensor) and tensor.op.type == "Const":
                    yield tensor, tf.get_static_value(tensor)


@contextmanager
def _other_graphs_told(model: Model) -> Iterator[None]:
    """Raise UnsupportedModelError, with the remedy, where a layer keeps a tensor of the user's graph."""
    try:
        yield
    except ValueError as error:
        if "same graph" not in str(error):
            raise
        raise UnsupportedModelError(
            f"A layer of {model.name!r} computes with a tensor of the model's graph, which a capture does "
            f"not enter: {str(error).splitlines()[0]}\nCreate the tensor in call(), or keep it as a weight: "
            "add_weight(trainable=False)."
        ) from error


def autograph_enabled() -> AbstractContextManager[object]:
    """Let Keras convert the calls of users' layers, as it does while it trains."""
    return ag_ctx.ControlStatusCtx(status=ag_ctx.Status.ENABLED)
