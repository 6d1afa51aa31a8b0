"""Adds up what the layers of a pass take in memory, told from shapes before each runs, and stops it in time.

`tap` tells it of every call; `adapters.needs` counts arrays. What torch holds beside them was measured as
peak resident memory on the CPU, in sequences of states (sample, time, unit).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from throughtime._memory.budget import NOTHING, Amount, Budget, Need
from throughtime.adapters import needs
from throughtime.adapters.needs import COLUMNS, INSIDE, Direction

from . import layout

_OF_WEIGHTS = frozenset({"weight_gradients", "certificate"})
_OF_OUTPUTS = frozenset({"output", "output_gradient"})


@dataclass(frozen=True)
class Held:
    """What torch holds of one direction of one inner layer.

    Attributes
    ----------
    states : mapping of str to float
        Sequences of states, by kind.
    inputs : float
        Sequences of inputs.
    weights : float
        Copies of the weights.
    without_weights : float
        Share of the states' sequences where no gradient of weights is found.
    each_step : int
        Bytes for each step, however small it is.
    """

    states: dict[str, float]
    inputs: float
    weights: float
    without_weights: float = 1.0
    each_step: int = 0


FUSED = Held({"lstm": 13, "gru": 14, "simple_rnn": 6}, inputs=3, weights=3)
STEPWISE = Held(
    {"lstm": 40, "gru": 38, "simple_rnn": 20}, inputs=3, weights=3, without_weights=0.5, each_step=37_000
)
_OFTEN = 16  # calls of a cell from which on only each of so many is counted: counting takes time as well
_UNROLLED = 9  # sequences of states and gates, where a projection is repeated step by step


class Meter:
    """What one pass needs so far.

    Parameters
    ----------
    budget : Budget
    quantities : frozenset of str
        Those that this pass can give.

    Attributes
    ----------
    budget : Budget
        Of the samples that the layers see: the batch's first axis may be time.
    """

    def __init__(self, budget: Budget, quantities: frozenset[str]) -> None:
        self.budget = budget
        self._quantities = quantities
        self._sum = Need()
        self._cells: dict[int, int] = {}  # steps so far
        self._of_cells: dict[int, Need] = {}

    def add(self, module: Any, given: Any, *, samples: int, is_watched: bool) -> None:
        """Add a call of a recurrent layer or cell before it runs.

        Parameters
        ----------
        module : nn.RNNBase or nn.RNNCellBase
        given : tensor or PackedSequence
        samples : int
            Of the whole model, as it is known by now.
        is_watched : bool
            Something of it is asked for; else it only runs along.

        Raises
        ------
        ExceededError
        """
        if self.budget.part == self.budget.samples:
            self.budget = replace(self.budget, samples=samples, part=samples)
        data = given.data if isinstance(given, PackedSequence) else given
        if not isinstance(data, torch.Tensor):
            return
        rows = layout.samples(module, given) / self.budget.part
        quantities = self._quantities if is_watched else frozenset()
        if isinstance(module, nn.RNNCellBase):
            steps = self._cells[id(module)] = self._cells.get(id(module), 0) + 1
            if steps > _OFTEN and steps % _OFTEN:
                return
            one = _of_cell(module, rows, steps, data.element_size())
            self._of_cells[id(module)] = _need([one], quantities, STEPWISE)
        else:
            for directions in _inner_layers(module, rows, _steps(module, given), data.element_size()):
                self._sum += _need(directions, quantities, FUSED)
        self._check()

    def add_output(self, tensors: Sequence[torch.Tensor], *, is_watched: bool) -> None:
        """Add what a layer that is not recurrent returned, or the model: it has a gradient as large.

        Raises
        ------
        ExceededError
        """
        each = Amount(sum(tensor.nbytes for tensor in tensors) / self.budget.part)
        names = _OF_OUTPUTS & self._quantities if is_watched else ()
        # Beside the tensor what it was made of, and their gradients.
        self._sum += Need(dict.fromkeys(names, each), sum([each] * 4, NOTHING))
        self._check()

    def add_again(self, module: int, tensors: Sequence[torch.Tensor]) -> None:
        """Add what one more call of a module returned: it and its copy, what it was made of, and gradients.

        Raises
        ------
        ExceededError
        """
        each = Amount(6 * sum(tensor.nbytes for tensor in tensors) / self.budget.part)
        self._of_cells[module] = self._of_cells.get(module, Need()) + Need(passing=each)
        self._check()

    def _check(self) -> None:
        self.budget.check(sum(self._of_cells.values(), self._sum))


def _steps(module: Any, given: Any) -> int:
    if isinstance(given, PackedSequence):
        return len(given.batch_sizes)
    return int(given.shape[0 if given.ndim == 2 else int(module.batch_first)])


def _kind(module: Any) -> str:
    name = str(getattr(module, "mode", type(module).__name__)).lower()
    return next((kind for kind in ("lstm", "gru") if kind in name), "simple_rnn")


def _inner_layers(module: Any, rows: float, steps: int, item: int) -> list[list[Direction]]:
    """Tell the sizes of every direction of every inner layer."""
    count = 2 if module.bidirectional else 1
    output = module.proj_size or module.hidden_size
    widths = [module.input_size, *(count * output,) * (module.num_layers - 1)]
    return [[_direction(module, rows, steps, width, output, item)] * count for width in widths]


def _of_cell(cell: Any, rows: float, steps: int, item: int) -> Direction:
    return _direction(cell, rows, steps, cell.input_size, cell.hidden_size, item)


def _direction(module: Any, rows: float, steps: int, features: int, output: int, item: int) -> Direction:
    kind, units = _kind(module), module.hidden_size
    gates = 3 if kind == "gru" else COLUMNS[kind]
    return Direction(
        kind=kind,
        rows=rows,
        steps=steps,
        output_steps=steps,
        features=features,
        output=output,
        hidden=units,  # of a projection h is narrower
        cell=units if kind == "lstm" else 0,
        columns=COLUMNS[kind] * units,
        item=item,
        weights=item * gates * units * (features + output + 2),
    )


def _need(directions: list[Direction], quantities: frozenset[str], held: Held) -> Need:
    total = Need(needs.outside(directions, quantities, is_merged=False))
    for one in directions:
        share = 1.0 if quantities & _OF_WEIGHTS else held.without_weights
        elements = share * held.states[one.kind] * one.hidden + held.inputs * one.features
        once = held.weights * one.weights + held.each_step * one.steps
        total += Need(passing=Amount(one.at_every_step(elements), once))
        if quantities & INSIDE:
            total += needs.solved(one, quantities)
        if one.output < one.hidden:
            wide = one.hidden + one.cell + one.columns
            total += Need(solving=Amount(one.at_every_step(_UNROLLED * wide)))
    return total
