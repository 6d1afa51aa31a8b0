"""Adds up what the layers of a pass take in memory, from shapes, before each runs.

A pass that would take more than its budget ends in an ExceededError in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from throughtime._memory.budget import Amount, Budget, Need
from throughtime.adapters.needs import COLUMNS, Asked, Direction, Overhead, estimate, estimate_outputs

from . import layout, weights

# torch keeps nothing back where no gradient flows: what is asked for then is small.
FUSED = Overhead(back=2.8, forward=2.8, solving=1.8)
STEPWISE = Overhead(back=2.9, forward=2.9, solving=5.2, each_step=37_000)
_OFTEN = 16  # calls of a cell, of which only each of so many is counted: counting takes time as well


class Meter:
    """What one pass needs so far, of the quantities that it can give.

    `budget` counts the samples that the layers see: the batch's first axis may be time.
    """

    def __init__(self, budget: Budget, quantities: frozenset[str]) -> None:
        self.budget = budget
        self._quantities = quantities
        self._sum = Need()
        self._calls: dict[int, int] = {}  # so far, of each module in a loop
        self._of_cells: dict[int, Need] = {}

    def add(self, module: Any, given: Any, *, samples: int, is_watched: bool) -> None:
        """Add a call of a recurrent layer or cell before it runs.

        `samples` are those of the whole model, as known by now. Without `is_watched` the layer only runs
        along.
        """
        is_cell = isinstance(module, nn.RNNCellBase)
        steps = self._calls[id(module)] = self._calls.get(id(module), 0) + 1
        if is_cell and not _is_due(steps):
            return
        if self.budget.part == self.budget.samples:
            self.budget = replace(self.budget, samples=samples, part=samples)
        data = given.data if isinstance(given, PackedSequence) else given
        if not isinstance(data, torch.Tensor):
            return
        rows = layout.samples(module, given) / self.budget.part
        asked, item = self._asked(is_watched), data.element_size()
        if is_cell:
            one = _direction(module, rows, steps, module.input_size, item)
            self._of_cells[id(module)] = estimate([one], asked, STEPWISE, is_merged=False)
        else:
            for directions in _inner_layers(module, rows, _steps(module, given), item):
                self._sum += estimate(directions, asked, FUSED, is_merged=False)
        self._check()

    def add_output(self, tensors: Sequence[torch.Tensor], *, is_watched: bool) -> None:
        """Add what a layer that is not recurrent returned, or the model: it has a gradient as large."""
        size = sum(tensor.nbytes for tensor in tensors) / self.budget.part
        self._sum += estimate_outputs(size, self._asked(is_watched))
        self._check()

    def add_again(self, module: int, tensors: Sequence[torch.Tensor], samples: int) -> None:
        """Add what one more call of a module returned: it, its copy, what it was made of, and gradients."""
        calls = self._calls[module] = self._calls.get(module, 0) + 1
        if not _is_due(calls):
            return
        size = sum(tensor.nbytes for tensor in tensors)
        square = 4 * samples * sum(tensor.numel() / samples for tensor in tensors) ** 2
        kept = {"state_jacobian": Amount(calls * square / self.budget.part)}
        kept = {name: amount for name, amount in kept.items() if name in self._quantities}
        self._of_cells[module] = Need(kept, passing=Amount(6 * calls * size / self.budget.part))
        self._check()

    def _asked(self, is_watched: bool) -> Asked:
        return Asked(self._quantities if is_watched else frozenset())

    def _check(self) -> None:
        self.budget.check(sum(self._of_cells.values(), self._sum))


def _is_due(calls: int) -> bool:
    return calls % _OFTEN == 0 or calls & (calls - 1) == 0  # the first ones: 1, 2, 4, 8


def _steps(module: Any, given: Any) -> int:
    if isinstance(given, PackedSequence):
        return len(given.batch_sizes)
    return int(given.shape[0 if given.ndim == 2 else int(module.batch_first)])


def _inner_layers(module: Any, rows: float, steps: int, item: int) -> list[list[Direction]]:
    """Give the sizes of every direction of every inner layer."""
    count = 2 if module.bidirectional else 1
    output = module.proj_size or module.hidden_size
    widths = [module.input_size, *(count * output,) * (module.num_layers - 1)]
    return [[_direction(module, rows, steps, width, item)] * count for width in widths]


def _direction(module: Any, rows: float, steps: int, features: int, item: int) -> Direction:
    kind = weights.kind_of(module)
    units, gates = module.hidden_size, 3 if kind == "gru" else COLUMNS[kind]
    output = getattr(module, "proj_size", 0) or units
    columns = COLUMNS[kind] * units
    return Direction(
        rows=rows,
        steps=steps,
        output_steps=steps,
        features=features,
        output=output,
        hidden=units,  # of a projection h is narrower
        cell=units if kind == "lstm" else 0,
        columns=columns,
        gates=0 if kind == "simple_rnn" else columns,
        item=item,
        weights=item * gates * units * (features + output + 2),
    )
