"""Passes on the TensorFlow backend: one `tf.function`, traced once, then run."""

from collections.abc import Sequence

import tensorflow as tf

from throughtime.adapters.keras.contracts import Tensor, Variable
from throughtime.adapters.keras.dialect import Run
from throughtime.adapters.keras.tensorflow_gradients import differentiated, scan  # noqa: F401 - for `backend`


def compiled(run: Run, values: Sequence[Tensor], inputs: object, *, eager: bool, with_xla: bool) -> Run:
    """Trace `run` for these shapes."""
    if eager:
        return run
    function = tf.function(run, autograph=False, jit_compile=with_xla)
    return function.get_concrete_function(list(values), inputs)


def value_of(variable: Variable) -> Tensor:
    """Return the variable's own value as a tensor."""
    return tf.convert_to_tensor(variable._value)
