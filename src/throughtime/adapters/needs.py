"""Estimates what a call of a recurrent layer takes in memory, from sizes: one formula for every library.

Returned arrays are counted as they are. A framework holds a multiple of the layer's states, gates and inputs
beside them: a measured `Overhead` a backend.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from throughtime import _vocabulary
from throughtime._common.memory.budget import NOTHING, Amount, Need

INSIDE = frozenset({*_vocabulary.INSIDE, "certificate"})
COLUMNS = {"lstm": 4, "gru": 4, "simple_rnn": 1}  # of the adjoint, gates among them; see `cells`
INSIDE_GRADIENTS = INSIDE - {"hidden", "cell", "gate_activation", "state_jacobian"}
_COPIES = 9.0  # of a Jacobian, while a step of the cell runs for each element of the state
_OF_OUTPUTS = frozenset({"output", "output_gradient"})


@dataclass(frozen=True)
class Overhead:
    """The memory that a framework needs for a layer beside the arrays returned.

    Measured as peak resident memory of first captures on the CPU, compilation apart; `peak_memory` in
    `tests/keras` and `tests/torch` measures it again.
    """

    back: float  # for each byte of states, gates and inputs in the pass, where a gradient flows
    forward: float  # the same where none does
    solving: float  # the same after the pass, while gates are found
    weights: float = 3.0  # copies
    each_step: int = 0  # bytes, however small the layer is


@dataclass(frozen=True)
class Asked:
    """The quantities that a capture wants of a call.

    `quantities` have the schema's names; there are none for a layer that only runs along. A layer that
    `looks_inside` can be looked into, and a gradient `flows_back` through it.
    """

    quantities: frozenset[str]
    looks_inside: bool = True
    flows_back: bool = True


@dataclass(frozen=True)
class Direction:
    """Sizes of one direction of a call: elements of one step of one sample, all stacked cells together.

    `rows` are sequences for each sample of the batch. `cell` is 0 where there is no state beyond h; `columns`
    are those of the adjoint, `gates` those among them that are gates. `item` are the bytes of one element,
    `weights` those of all weights. `jacobian` counts the Jacobian's elements, 0 where it has a closed form.
    """

    rows: float
    steps: int
    output_steps: int
    features: int
    output: int
    hidden: int
    cell: int
    columns: int
    gates: int
    item: int
    weights: int
    jacobian: int = 0

    def at_every_step(self, elements: float, *, solved: bool = False) -> float:
        """Bytes of so many elements at every step; half precisions are solved in float32."""
        return self.rows * self.steps * elements * (max(4, self.item) if solved else self.item)

    @property
    def states(self) -> float:
        """Bytes of all states, gates and inputs for one sample."""
        return self.at_every_step(self.hidden + self.cell + self.columns + self.features)

    @property
    def output_bytes(self) -> float:
        """Bytes of what the direction returns for one sample."""
        return self.rows * self.output_steps * self.output * self.item

    def kept(self, quantities: frozenset[str]) -> dict[str, Amount]:
        """Count the arrays inside that are returned."""
        inside = {
            "hidden": self.hidden,
            "hidden_gradient": self.hidden,
            "cell": self.cell,
            "cell_gradient": self.cell,
            "gate_activation": self.gates,
            "gate_gradient": self.columns,
            "step_contribution": 1,
            "state_jacobian": self.jacobian,
        }
        return {
            name: Amount(self.at_every_step(elements, solved=True))
            for name, elements in inside.items()
            if elements and name in quantities
        }

    @property
    def handed_out(self) -> Amount:
        """The results of a pass: h, ∂L/∂out, x, dL/dx, the weights and their gradients."""
        return Amount(self.at_every_step(2 * self.output + 2 * self.features), 2 * self.weights)


def estimate(directions: Sequence[Direction], asked: Asked, overhead: Overhead, *, is_merged: bool) -> Need:
    """Estimate what one call takes; outputs of directions lie side by side unless merged."""
    is_inside = asked.looks_inside and bool(asked.quantities & INSIDE)
    total = Need(_outside(directions, asked.quantities, is_merged))
    for one in directions:
        held = overhead.back if asked.flows_back else overhead.forward
        copies, kept = overhead.weights * one.weights, one.kept(asked.quantities) if is_inside else {}
        steps = overhead.solving * one.states + _COPIES * kept.get("state_jacobian", NOTHING).each
        total += Need(
            kept=kept,
            passing=Amount(held * one.states, copies + overhead.each_step * one.steps),
            left=one.handed_out if is_inside else NOTHING,
            solving=Amount(steps, copies) if is_inside else NOTHING,
        )
    return total


def _outside(
    directions: Sequence[Direction], quantities: frozenset[str], is_merged: bool
) -> dict[str, Amount]:
    """Count the arrays of a layer as a whole."""
    first, outputs = directions[0], [one.output_bytes for one in directions]
    amounts = {
        "input": Amount(first.at_every_step(first.features)),
        "output": Amount(outputs[0] if is_merged else sum(outputs)),
        "weights": Amount(once=sum(one.weights for one in directions)),
    }
    gradients = {"input": "input_gradient", "output": "output_gradient", "weights": "weight_gradients"}
    amounts |= {gradients[name]: amount for name, amount in amounts.items()}
    return {name: amount for name, amount in amounts.items() if name in quantities}


def estimate_outputs(size: float, asked: Asked) -> Need:
    """Estimate what a layer that is not recurrent takes, or the model, from the bytes of what it returned."""
    each = Amount(size)
    names = sorted(_OF_OUTPUTS & asked.quantities)
    # Beside the tensor what it was made of, and their gradients.
    passing = Amount(size * (4 if asked.flows_back else 2))
    return Need(dict.fromkeys(names, each), passing)


def bytes_of(dtype: str) -> int:
    """Return the size of one element: 4 of a float32, 2 of a bfloat16, 1 of a bool."""
    bits = re.search(r"\d+", dtype)
    return 1 if bits is None else max(1, int(bits[0]) // 8)
