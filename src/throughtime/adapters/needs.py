"""Counts, from sizes alone, the arrays of a recurrent layer: what a pass hands out, what solving it takes.

Arrays are counted as `cells` makes them. The adapters read the sizes from their layers, and know what their
framework holds beside that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from throughtime._memory.budget import Amount, Need

INSIDE = frozenset(
    {
        "hidden",
        "hidden_gradient",
        "cell",
        "cell_gradient",
        "gate_activation",
        "gate_gradient",
        "initial_hidden_gradient",
        "initial_cell_gradient",
        "step_contribution",
        "certificate",
    }
)
COLUMNS = {"lstm": 4, "gru": 4, "simple_rnn": 1}  # of the adjoint, gates among them; see `cells`
_FORWARD = frozenset({"hidden", "cell", "gate_activation"})
INSIDE_GRADIENTS = INSIDE - _FORWARD
_OF_WEIGHTS = 5  # copies of the weights while a layer is solved: joined, transposed, their gradients


@dataclass(frozen=True)
class Direction:
    """Sizes of one direction of a call: elements of one step of one sample, all stacked cells together.

    Attributes
    ----------
    kind : str
    rows : float
        Sequences for each sample of the batch.
    steps, output_steps, features, output, hidden, cell, columns : int
        `cell` is 0 where there is no state beyond h; `columns` are the gates', as wide as `hidden` each.
    item : int
        Bytes of one element.
    weights : int
        Bytes of all weights.
    """

    kind: str
    rows: float
    steps: int
    output_steps: int
    features: int
    output: int
    hidden: int
    cell: int
    columns: int
    item: int
    weights: int

    def at_every_step(self, elements: float, *, solved: bool = False) -> float:
        """Bytes of so many elements at every step; half precisions are solved in float32."""
        return self.rows * self.steps * elements * (max(4, self.item) if solved else self.item)

    @property
    def output_bytes(self) -> float:
        """Bytes of what the direction returns for one sample."""
        return self.rows * self.output_steps * self.output * self.item

    def kept(self, quantities: frozenset[str]) -> dict[str, Amount]:
        """Count the arrays inside that are returned."""
        gates = 0 if self.kind == "simple_rnn" else self.columns
        inside = {
            "hidden": self.hidden,
            "hidden_gradient": self.hidden,
            "cell": self.cell,
            "cell_gradient": self.cell,
            "gate_activation": gates,
            "gate_gradient": self.columns,
            "step_contribution": 1,
        }
        return {
            name: Amount(self.at_every_step(elements, solved=True))
            for name, elements in inside.items()
            if elements and name in quantities
        }


def outside(directions: list[Direction], quantities: frozenset[str], *, is_merged: bool) -> dict[str, Amount]:
    """Count the arrays of a layer as a whole; outputs of directions lie side by side unless merged."""
    first, outputs = directions[0], [one.output_bytes for one in directions]
    amounts = {
        "input": Amount(first.at_every_step(first.features)),
        "output": Amount(outputs[0] if is_merged else sum(outputs)),
        "weights": Amount(once=sum(one.weights for one in directions)),
    }
    gradients = {"input": "input_gradient", "output": "output_gradient", "weights": "weight_gradients"}
    amounts |= {gradients[name]: amount for name, amount in amounts.items()}
    return {name: amount for name, amount in amounts.items() if name in quantities}


def handed_out(direction: Direction) -> Amount:
    """Count what a pass leaves of a direction: h, ∂L/∂out, x, dL/dx, the weights and their gradients."""
    elements = 2 * direction.output + 2 * direction.features
    return Amount(direction.at_every_step(elements), 2 * direction.weights)


def solved(direction: Direction, quantities: frozenset[str]) -> Need:
    """Count what `cells.solve` returns and holds."""
    kept, goes_back = direction.kept(quantities), bool(quantities & INSIDE_GRADIENTS)
    if quantities & INSIDE == {"hidden"}:  # nothing is replayed
        return Need(kept, left=handed_out(direction))
    gates = {name for name in ("gate_activation", "gate_gradient") if name in kept}
    # What went into the product, every gate and state; gate gradients are written over gates not kept.
    elements = direction.output + direction.features
    elements += direction.columns * ((1 + (goes_back and "gate_activation" in kept)) - len(gates))
    elements += 0 if "hidden" in quantities else direction.hidden
    elements += 0 if "cell" in quantities else direction.cell
    elements += direction.hidden if goes_back and "hidden_gradient" not in quantities else 0
    if "certificate" in quantities:
        elements += direction.features + (0 if "cell_gradient" in quantities else direction.cell)
    solving = Amount(direction.at_every_step(elements, solved=True), _OF_WEIGHTS * direction.weights)
    return Need(kept, left=handed_out(direction), solving=solving)


def bytes_of(dtype: str) -> int:
    """Return the size of one element.

    Examples
    --------
    >>> bytes_of("float32"), bytes_of("bfloat16"), bytes_of("bool")
    (4, 2, 1)
    """
    bits = re.search(r"\d+", dtype)
    return 1 if bits is None else max(1, int(bits[0]) // 8)
