"""What each backend holds of a recurrent layer while a pass runs, beside the weights themselves.

Measured as peak resident memory of first captures on the CPU, compilation apart, in units of one sequence
of states (sample, time, unit); `tests/keras/peak_memory.py` measures it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OTHER = "other"  # a cell whose step is not Keras' own


@dataclass(frozen=True)
class Held:
    """What a backend holds of a layer during a pass.

    Attributes
    ----------
    back : mapping of str to float
        Sequences of states where a gradient flows back through the layer, by the kind of its cell.
    without_weights : float
        Share of that where no gradient of weights is found on the way.
    forward : mapping of str to float
        The same where none does.
    inputs : float
        Sequences of inputs.
    weights : float
        Copies of the weights where a gradient flows back.
    pending : int
        Shares of single steps in the weights' gradients that wait to be added.
    unrolled : float
        Sequences of states and gates, for a cell that is solved by unrolling it.
    stays : float
        Sequences of states that are not given back after the pass.
    each_step : int
        Bytes for each step, however small it is; a quarter of them stay.
    """

    back: Mapping[str, float]
    without_weights: float
    forward: Mapping[str, float]
    inputs: float
    weights: float
    unrolled: float
    pending: int = 0
    stays: float = 0.0
    each_step: int = 0


HELD = {
    "tensorflow": Held(
        back={"lstm": 12, "gru": 12, "simple_rnn": 6, OTHER: 10},
        without_weights=0.85,
        forward={"lstm": 4, "gru": 4, "simple_rnn": 3, OTHER: 4},
        inputs=3,
        weights=3,
        unrolled=9,
        # Its loops run up to 32 steps at once, and its allocator gives large blocks back to nobody.
        pending=32,
        stays=6,
        each_step=4_500,
    ),
    "jax": Held(
        back={"lstm": 21, "gru": 26, "simple_rnn": 11, OTHER: 13},
        without_weights=0.6,
        forward={"lstm": 4, "gru": 9, "simple_rnn": 4, OTHER: 6},
        inputs=4,
        weights=3,
        unrolled=3,
    ),
    "torch": Held(
        back={"lstm": 27, "gru": 23, "simple_rnn": 6, OTHER: 10},
        without_weights=0.7,
        forward={"lstm": 9, "gru": 7, "simple_rnn": 3, OTHER: 6},
        inputs=2,
        weights=2,
        unrolled=6,
        each_step=30_000,  # its loop is Python's: every step has nodes of its own in the graph
    ),
}
