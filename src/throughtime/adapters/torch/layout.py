"""Where samples and steps stand in a layer's tensors, and what memory the layers of a pass take.

Inside the adapter sequences are time-major, (time, sample, …) or packed; records are sample-major.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from throughtime._common.memory.budget import Amount, Budget, Need
from throughtime.adapters.needs import COLUMNS, Asked, Direction, Overhead, estimate, estimate_outputs
from throughtime.adapters.records import Array

from . import weights


@dataclass(frozen=True)
class Dense:
    """Every sample has every step."""

    samples: int
    steps: int

    def reversed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Turn the order of time around."""
        return tensor.flip(0)

    def by_sample(self, array: Array) -> Array:
        """Turn (time, sample, …) into (sample, time, …)."""
        return array.swapaxes(0, 1)

    def in_order(self, states: Array) -> Array:
        """Bring states (sample, …) into the order of the samples."""
        return states


@dataclass(frozen=True)
class Packed:
    """Sequences packed step after step, the longest first.

    `batch_sizes` (time) counts the samples that have each step. `unsorted` has where each of the caller's
    samples stands in the packed order; None where that is their order.
    """

    batch_sizes: torch.Tensor
    unsorted: torch.Tensor | None

    @property
    def samples(self) -> int:
        """Number of sequences."""
        return int(self.batch_sizes[0])

    @property
    def steps(self) -> int:
        """Length of the longest."""
        return len(self.batch_sizes)

    @cached_property
    def _places(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Step and packed sample of each row of the data."""
        sizes = self.batch_sizes.numpy()
        steps = np.repeat(np.arange(len(sizes)), sizes)
        return steps, np.concatenate([np.arange(size) for size in sizes])

    def reversed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Turn the order of time around within each sequence."""
        sizes, (steps, samples) = self.batch_sizes.numpy(), self._places
        lengths = np.bincount(samples)
        first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        rows = first[lengths[samples] - 1 - steps] + samples
        return tensor.index_select(0, torch.from_numpy(rows).to(tensor.device))

    def by_sample(self, array: Array) -> Array:
        """Turn packed data into (sample, time, …), 0 where a sequence has ended."""
        steps, samples = self._places
        padded = np.zeros((self.samples, self.steps, *array.shape[1:]), array.dtype)
        padded[samples, steps] = array
        return self.in_order(padded)

    def in_order(self, states: Array) -> Array:
        """Bring states (sample, …) from the packed order into that of the caller's samples."""
        return states if self.unsorted is None else states[self.unsorted.cpu().numpy()]


Layout = Dense | Packed
Recurrent = nn.RNNBase | nn.RNNCellBase


def count_samples(module: Recurrent, given: object) -> int:
    """Count the samples that a recurrent layer or a cell is called with; 1 where there is no batch."""
    if isinstance(given, PackedSequence):
        return int(given.batch_sizes[0])
    is_cell = isinstance(module, nn.RNNCellBase)
    if not isinstance(given, torch.Tensor) or given.ndim != (2 if is_cell else 3):
        return 1
    return int(given.shape[0 if is_cell or module.batch_first else 1])


def why_unfit(name: str, module: Recurrent, given: object) -> str:
    """Return why a layer or cell cannot be meant to read this; empty where it can."""
    tensor = given.data if isinstance(given, PackedSequence) else given
    weight = next(module.parameters(), None)
    if not isinstance(tensor, torch.Tensor) or weight is None:
        return ""
    shape = tuple(tensor.shape)
    if tensor.dtype != weight.dtype and not torch.is_autocast_enabled(tensor.device.type):
        return f"{name} takes {weight.dtype}, and got {tensor.dtype}"
    if shape[-1:] != (module.input_size,):
        return f"{name} takes {module.input_size} features, and got {shape[-1]} in a tensor {shape}"
    if isinstance(module, nn.RNNBase) and tensor is given and len(shape) == 2:
        order = "sample, time" if module.batch_first else "time, sample"
        return (
            f"{name} takes ({order}, {module.input_size}), and got {shape}, without an axis of samples. Make "
            "a batch of one sample: x[None]"
        )
    return ""


# torch keeps nothing back where no gradient flows: what is asked for then is small.
FUSED = Overhead(back=2.8, forward=2.8, solving=1.8)
STEPWISE = Overhead(back=2.9, forward=2.9, solving=3.4, each_step=37_000)
_OFTEN = 16  # calls of a cell, of which only each of so many is counted: counting takes time as well


class Meter:
    """The memory that one pass needs so far for the quantities that it can give.

    `budget` counts the samples that the layers see: the batch's first axis may be time.
    """

    def __init__(self, budget: Budget, quantities: frozenset[str]) -> None:
        self.budget = budget
        self._quantities = quantities
        self._sum = Need()
        self._calls: dict[int, int] = {}  # so far, of each module in a loop
        self._of_cells: dict[int, Need] = {}

    def add(self, module: Recurrent, given: object, *, samples: int, is_watched: bool) -> None:
        """Add a call of a recurrent layer or cell before it runs, of a model of so many samples."""
        if self.budget.part == self.budget.samples:
            self.budget = replace(self.budget, samples=samples, part=samples)
        if not isinstance(given, (torch.Tensor, PackedSequence)):
            return
        rows = count_samples(module, given) / self.budget.part
        asked, item = self._asked(is_watched), given.data.element_size()
        if isinstance(module, nn.RNNCellBase):
            one = _direction(module, rows, self._calls[id(module)], module.input_size, item)
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
        calls = self._calls[module]
        size = sum(tensor.nbytes for tensor in tensors)
        square = 4 * samples * sum(tensor.numel() / samples for tensor in tensors) ** 2
        kept = {"state_jacobian": Amount(calls * square / self.budget.part)}
        kept = {name: amount for name, amount in kept.items() if name in self._quantities}
        self._of_cells[module] = Need(kept, passing=Amount(6 * calls * size / self.budget.part))
        self._check()

    def is_due(self, module: int) -> bool:
        """Note a call of a cell, or of another module in a loop; returns whether it is one that is added."""
        calls = self._calls[module] = self._calls.get(module, 0) + 1
        return calls % _OFTEN == 0 or calls & (calls - 1) == 0  # the first ones: 1, 2, 4, 8

    def _asked(self, is_watched: bool) -> Asked:
        return Asked(self._quantities if is_watched else frozenset())

    def _check(self) -> None:
        self.budget.check(sum(self._of_cells.values(), self._sum))


def _steps(module: nn.RNNBase, given: torch.Tensor | PackedSequence) -> int:
    if isinstance(given, PackedSequence):
        return len(given.batch_sizes)
    return int(given.shape[0 if given.ndim == 2 else int(module.batch_first)])


def _inner_layers(module: nn.RNNBase, rows: float, steps: int, item: int) -> list[list[Direction]]:
    """Give the sizes of every direction of every inner layer."""
    count = 2 if module.bidirectional else 1
    output = module.proj_size or module.hidden_size
    widths = [module.input_size, *(count * output,) * (module.num_layers - 1)]
    return [[_direction(module, rows, steps, width, item)] * count for width in widths]


def _direction(module: Recurrent, rows: float, steps: int, features: int, item: int) -> Direction:
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
