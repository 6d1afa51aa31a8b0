"""Adds up what the recurrent layers of a pass take, and stops the pass where that is too much."""

from dataclasses import dataclass, field
from math import prod
from typing import Any

from throughtime._common.memory.budget import NOTHING, Budget, Need
from throughtime.adapters import needs
from throughtime.adapters.records import Request

from . import cell as cells
from .cell import GATED, has_closed_form, why_not
from .contracts import Layer, Shape
from .dialect import Dialect
from .library import dtype_of, halves, shape_of
from .weights import cudnn_kind

OVERHEAD = {
    "tensorflow": needs.Overhead(back=2.5, forward=1, solving=10, weights=10, each_step=4_500),
    "jax": needs.Overhead(back=3, forward=1, solving=6.6),
    # Its loop is Python's: every step has separate nodes in the graph.
    "torch": needs.Overhead(back=3, forward=1.5, solving=2.4, each_step=30_000),
}
_COLUMNS = {**GATED, **needs.COLUMNS}
_WITH_CELL = ("lstm", "conv_lstm")


@dataclass
class Meter:
    """The memory that one pass needs so far.

    A pass that computes `at_once` is stopped at the first layer that is too much; one that is only traced
    takes nothing yet, and is judged when all of it is known.
    """

    keras: Dialect
    budget: Budget
    request: Request  # that this pass can answer
    at_once: bool
    _need: Need = field(default_factory=Need)

    @property
    def samples(self) -> int:
        """Number of samples of the batch that the pass runs on."""
        return self.budget.part

    def add(self, layer: Layer, shape: Shape, *, is_watched: bool, flows_back: bool) -> None:
        """Add a call on an input of this shape before it runs; ExceededError where it is too much.

        A layer inside another one may see more samples than the batch has.
        """
        each = halves(layer)
        # The kernel of a cuDNN layer keeps what it keeps.
        if len(shape) < 3 or None in shape or any(map(cudnn_kind, each)):
            return
        asked = self._asked(is_watched, flows_back, is_watched and not why_not(layer))
        directions = [self._direction(half, tuple(shape)) for half in each]
        is_merged = getattr(layer, "merge_mode", None) in ("sum", "mul", "ave")
        need = needs.estimate(directions, asked, OVERHEAD[self.keras.BACKEND], is_merged=is_merged)
        if flows_back and self.samples > 1:  # what a pass hands out is there while it runs
            need += Need(passing=sum((one.handed_out for one in directions), NOTHING))
        self._add(need)

    def add_output(self, size: float, *, is_watched: bool, flows_back: bool) -> None:
        """Add the bytes that a layer that is not recurrent returned, or the model."""
        self._add(needs.estimate_outputs(size / self.samples, self._asked(is_watched, flows_back)))

    def _asked(self, is_watched: bool, flows_back: bool, looks_inside: bool = True) -> needs.Asked:
        quantities: frozenset[str] = self.request.quantities if is_watched else frozenset()
        return needs.Asked(quantities, looks_inside, flows_back)

    def _add(self, need: Need) -> None:
        self._need += need
        if self.at_once:
            self.budget.check(self._need)

    def _direction(self, layer: Layer, shape: tuple[int, ...]) -> needs.Direction:
        parts = cells.inner_cells(layer.cell)
        kinds = [cells.standard_kind(cell) for cell in parts]
        units = [_units(cell, layer, shape) for cell in parts]
        known = [(kind, sum(sizes)) for kind, sizes in zip(kinds, units, strict=True)]
        own = [
            sum(sizes) * (2 if kind in _WITH_CELL else 1)
            for kind, sizes, part in zip(kinds, units, parts, strict=True)
            if not has_closed_form(self.keras, part, self.request.activations)
        ]
        columns = sum(_COLUMNS.get(kind, 0) * size for kind, size in known)
        return needs.Direction(
            rows=shape[0] / self.samples,
            steps=shape[1],
            output_steps=shape[1] if layer.return_sequences else 1,
            features=prod(shape[2:]),
            output=units[-1][0],
            hidden=sum(size for _, size in known),
            cell=sum(size for kind, size in known if kind in _WITH_CELL),
            columns=columns,
            gates=0 if kinds[0] == "simple_rnn" else columns,
            item=needs.bytes_of(self.keras.compute_dtype(layer)),
            weights=sum(prod(shape_of(each)) * needs.bytes_of(dtype_of(each)) for each in layer.weights),
            jacobian=sum(size**2 for size in own),
        )

    def total(self) -> Need:
        """Return what all calls need together; ExceededError where it is too much."""
        self.budget.check(self._need)
        return self._need


def _units(cell: Layer, layer: Layer, shape: tuple[int, ...]) -> list[int]:
    """Sizes of a cell's states, all but the LSTM's c, which is as large as h."""
    kind = cells.standard_kind(cell)
    if kind == "conv_lstm":
        returned = layer.compute_output_shape(shape)
        output = returned[0] if layer.return_state else returned
        return [_elements(tuple(output)[2 if layer.return_sequences else 1 :])]
    if kind in GATED:
        return [int(cell.units)]
    return [_elements(size) for size in cells.sizes_of_states(cell)]


def _elements(size: Any) -> int:
    """Count the elements of a state, of whose shape parts may not be known."""
    lengths = [size] if isinstance(size, int) else list(size)
    # TensorFlow 1 has other numbers.
    known = [getattr(length, "value", length) for length in lengths]
    return prod(length for length in known if isinstance(length, int) and length > 0)
