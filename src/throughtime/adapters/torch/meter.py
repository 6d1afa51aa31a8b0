"""Adds up what the layers of a pass take in memory, from shapes, before each runs, and stops it in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from throughtime._memory.budget import Amount, Budget, Need
from throughtime.adapters.needs import COLUMNS, Asked, Direction, Overhead, estimate, estimate_outputs

from . import layout

# torch keeps nothing back where no gradient flows: what is asked for then is small.
FUSED = Overhead(back=2.8, forward=2.8, solving=1.8)
STEPWISE = Overhead(back=2.9, forward=2.9, solving=5.2, each_step=37_000)
PROJECTED = replace(FUSED, solving=9.0)  # repeated step by step, through torch's own operations
_OFTEN = 16  # calls of a cell from which on only each of so many is counted: counting takes time as well


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
        asked, item = self._asked(is_watched), data.element_size()
        if isinstance(module, nn.RNNCellBase):
            steps = self._cells[id(module)] = self._cells.get(id(module), 0) + 1
            if steps > _OFTEN and steps % _OFTEN:
                return
            one = _direction(module, rows, steps, module.input_size, item)
            self._of_cells[id(module)] = estimate([one], asked, STEPWISE, is_merged=False)
        else:
            overhead = PROJECTED if module.proj_size else FUSED
            for directions in _inner_layers(module, rows, _steps(module, given), item):
                self._sum += estimate(directions, asked, overhead, is_merged=False)
        self._check()

    def add_output(self, tensors: Sequence[torch.Tensor], *, is_watched: bool) -> None:
        """Add what a layer that is not recurrent returned, or the model: it has a gradient as large.

        Raises
        ------
        ExceededError
        """
        size = sum(tensor.nbytes for tensor in tensors) / self.budget.part
        self._sum += estimate_outputs(size, self._asked(is_watched))
        self._check()

    def add_again(self, module: int, tensors: Sequence[torch.Tensor], samples: int) -> None:
        """Add what one more call of a module returned: it and its copy, what it was made of, and gradients.

        Raises
        ------
        ExceededError
        """
        each = Amount(6 * sum(tensor.nbytes for tensor in tensors) / self.budget.part)
        width = sum(tensor.numel() for tensor in tensors) / samples
        square = samples / self.budget.part * width**2 * 4
        kept = {"state_jacobian": Amount(square)} if "state_jacobian" in self._quantities else {}
        self._of_cells[module] = self._of_cells.get(module, Need()) + Need(kept, passing=each)
        self._check()

    def _asked(self, is_watched: bool) -> Asked:
        return Asked(self._quantities if is_watched else frozenset())

    def _check(self) -> None:
        self.budget.check(sum(self._of_cells.values(), self._sum))


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
    name = str(getattr(module, "mode", type(module).__name__)).lower()
    kind = next((kind for kind in ("lstm", "gru") if kind in name), "simple_rnn")
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
