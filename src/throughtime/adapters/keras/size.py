"""What one call of a recurrent layer takes in memory, told from shapes and settings before it runs.

`meter` adds the calls of a pass up. Arrays are counted as `collect` and `cells` make them; what the backends
hold while they run was measured and stands in `held`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import keras
import numpy as np

from throughtime._budget import Amount, Need

from .cell import inner_cells
from .find import halves
from .held import HELD, OTHER
from .inside import is_closed, why_not
from .weights import GATED, kind_of_cell

_WITH_CELL = ("lstm", "conv_lstm")
_COLUMNS = {**GATED, "gru": 4}  # of the adjoint, gates among them; see `cells`
_FORWARD = frozenset({"hidden", "cell", "gate_activation"})
_OF_WEIGHTS = 5  # copies of the weights while a layer is solved: joined, transposed, their gradients


@dataclass(frozen=True)
class Asked:
    """What is asked of a call.

    Attributes
    ----------
    quantities : frozenset of str
        The schema's names; empty for a layer that only runs along.
    inside : frozenset of str
        Those among them that are found inside a layer.
    flows_back : bool
        A gradient flows back through the layer.
    activations : frozenset of str
        Those with a derivative in closed form.
    training : bool
    """

    quantities: frozenset[str]
    inside: frozenset[str]
    flows_back: bool
    activations: frozenset[str]
    training: bool


@dataclass(frozen=True)
class _Direction:
    """One direction of a call: elements of one step of one sample, in all its stacked cells together."""

    kind: str
    rows: float  # for each sample of the batch
    steps: int
    output_steps: int
    features: int
    output: int
    hidden: int
    cell: int
    columns: int
    item: int
    weights: int  # bytes

    def at_every_step(self, elements: float, *, solved: bool = False) -> float:
        """Bytes of so many elements at every step; half precisions are solved in float32."""
        return self.rows * self.steps * elements * (max(4, self.item) if solved else self.item)

    @property
    def inside(self) -> dict[str, int]:
        """Elements of what is found inside, by quantity."""
        gates = 0 if self.kind == "simple_rnn" else self.columns
        return {
            "hidden": self.hidden,
            "hidden_gradient": self.hidden,
            "cell": self.cell,
            "cell_gradient": self.cell,
            "gate_activation": gates,
            "gate_gradient": self.columns,
            "step_contribution": 1,
        }


def need(layer: Any, shape: tuple[int, ...], samples: int, asked: Asked) -> Need:
    """Tell what one call takes.

    Parameters
    ----------
    layer : RNN or Bidirectional
    shape : tuple of int
        Of the input, samples first, then time.
    samples : int
        Of the batch; a layer inside another one may see more.
    asked : Asked
    """
    directions = [_direction(half, shape, samples) for half in halves(layer)]
    total = Need(_outside(layer, directions, asked.quantities))
    for half, direction in zip(halves(layer), directions, strict=True):
        is_known = is_closed(half, asked.training, asked.activations)
        total += Need(passing=_passing(direction, asked, is_known=is_known))
        if asked.inside and not why_not(layer):
            total += _solved(direction, asked) if is_known else _unrolled(direction, asked)
    return total


def _direction(layer: Any, shape: tuple[int, ...], samples: int) -> _Direction:
    cells = [(kind_of_cell(cell), _units(cell, layer, shape)) for cell in inner_cells(layer.cell)]
    units = [sum(sizes) for _, sizes in cells]
    return _Direction(
        kind="lstm" if cells[0][0] == "conv_lstm" else cells[0][0],
        rows=shape[0] / samples,
        steps=shape[1],
        output_steps=shape[1] if layer.return_sequences else 1,
        features=prod(shape[2:]),
        output=cells[-1][1][0],
        hidden=sum(units),
        cell=sum(size for (kind, _), size in zip(cells, units, strict=True) if kind in _WITH_CELL),
        columns=sum(_COLUMNS.get(kind, 0) * size for (kind, _), size in zip(cells, units, strict=True)),
        item=_bytes_of(layer.compute_dtype),
        weights=sum(prod(weight.shape) for weight in layer.weights) * _bytes_of(layer.variable_dtype),
    )


def _units(cell: Any, layer: Any, shape: tuple[int, ...]) -> list[int]:
    """Sizes of a cell's states, all but the LSTM's c, which is as large as h."""
    kind = kind_of_cell(cell)
    if kind == "conv_lstm":
        return [prod(layer.compute_output_shape(shape)[2 if layer.return_sequences else 1 :])]
    if kind in GATED:
        return [int(cell.units)]
    return [int(size) for size in keras.tree.flatten(cell.state_size)]


def _bytes_of(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _outside(layer: Any, directions: list[_Direction], quantities: frozenset[str]) -> dict[str, Amount]:
    """Arrays of the layer as a whole."""
    first = directions[0]
    outputs = [one.rows * one.output_steps * one.output * one.item for one in directions]
    is_merged = getattr(layer, "merge_mode", None) in ("sum", "mul", "ave")
    amounts = {
        "input": Amount(first.at_every_step(first.features)),
        "output": Amount(outputs[0] if is_merged else sum(outputs)),
        "weights": Amount(once=sum(one.weights for one in directions)),
    }
    gradients = {"input": "input_gradient", "output": "output_gradient", "weights": "weight_gradients"}
    amounts |= {gradients[name]: amount for name, amount in amounts.items()}
    return {name: amount for name, amount in amounts.items() if name in quantities}


def _passing(direction: _Direction, asked: Asked, *, is_known: bool) -> Amount:
    """Count what the backend holds while the pass runs."""
    held = HELD[keras.backend.backend()]
    by_kind = held.back if asked.flows_back else held.forward
    states = by_kind.get(direction.kind, by_kind[OTHER]) * direction.hidden
    elements = states + held.inputs * direction.features
    if asked.inside and not is_known:
        elements += held.unrolled * (direction.hidden + direction.cell + direction.columns)
    copies = held.weights + _pending(direction, asked)
    return Amount(direction.at_every_step(elements), copies * direction.weights)


def _pending(direction: _Direction, asked: Asked) -> int:
    pending = HELD[keras.backend.backend()].pending
    return min(pending, direction.steps) if asked.flows_back else 0


def _solved(direction: _Direction, asked: Asked) -> Need:
    """Count what `cells` returns and holds for a cell that it knows."""
    kept, quantities = _kept(direction, asked), asked.quantities
    goes_back = bool(asked.inside - _FORWARD)
    gates = {name for name in ("gate_activation", "gate_gradient") if name in kept}
    # What went into the product, every gate and state; gate gradients are written over gates not kept.
    elements = direction.output + direction.features
    elements += direction.columns * ((1 + (goes_back and "gate_activation" in kept)) - len(gates))
    elements += 0 if "hidden" in quantities else direction.hidden
    elements += 0 if "cell" in quantities else direction.cell
    elements += direction.hidden if goes_back and "hidden_gradient" not in quantities else 0
    elements += direction.features if "certificate" in quantities else 0
    # What the pass leaves: h, ∂L/∂out, x and dL/dx.
    left = direction.at_every_step(2 * direction.output + 2 * direction.features)
    return Need(
        kept,
        left=Amount(left, (2 + _pending(direction, asked)) * direction.weights),
        solving=Amount(direction.at_every_step(elements, solved=True), _OF_WEIGHTS * direction.weights),
    )


def _unrolled(direction: _Direction, asked: Asked) -> Need:
    """Count what the framework returns for a cell that is unrolled: everything, whatever is asked for."""
    kept = _kept(direction, asked)
    elements = 2 * (direction.hidden + direction.cell + direction.columns + direction.features)
    left = direction.at_every_step(elements + direction.hidden)
    returned = sum(amount.each for amount in kept.values())
    return Need(kept, left=Amount(max(0.0, left - returned), 2 * direction.weights))


def _kept(direction: _Direction, asked: Asked) -> dict[str, Amount]:
    return {
        name: Amount(direction.at_every_step(elements, solved=True))
        for name, elements in direction.inside.items()
        if elements and name in asked.quantities
    }
