"""Passes on the TensorFlow backend: one `tf.function`, traced once, then run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import tensorflow as tf
from keras.src.backend.tensorflow.rnn import rnn

from throughtime.adapters.keras.contracts import Layer, LoopStep, Scanned, Tensor, Variable
from throughtime.adapters.keras.dialect import Run
from throughtime.adapters.keras.loop import scan_by_rnn
from throughtime.adapters.keras.tensorflow_gradients import differentiated  # noqa: F401 - for `backend`

_LONGEST = 2**30


def compiled(run: Run, values: Sequence[Tensor], inputs: object, *, eager: bool, with_xla: bool) -> Run:
    """Trace `run` for these shapes."""
    if eager:
        return run
    function = tf.function(run, autograph=False, jit_compile=with_xla)
    return function.get_concrete_function(list(values), inputs)


def value_of(variable: Variable) -> Tensor:
    """Return the variable's own value as a tensor."""
    return tf.convert_to_tensor(variable._value)


def scan(layer: Layer, step: LoopStep, carry: object, sequences: object) -> Scanned:
    """Run `step` (carry, values of one step) -> (carry, outputs) along the first axis, in Keras' own loop."""
    # XLA needs to know how many steps there are; where that is not known, the loop finds out by itself.
    most = tf.nest.flatten(sequences)[0].shape[0] or _LONGEST
    own = partial(rnn, input_length=most, time_major=True, return_all_outputs=True)
    return scan_by_rnn(tf.nest, own, step, carry, sequences)
