"""Parts a layer into its leaves: one, or several where it holds stacked cells, or two unlike halves.

Shared by the adapters of every Keras; each says how its layers and cells are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from throughtime._cell import Cell
from throughtime._record import Array, Attribute, LayerRecord

from .cell_weights import Readers, Values
from .dims import with_own_axes
from .gates import GATED
from .several_leaves import Inside, Part, stacked, unlike_halves


@dataclass(frozen=True)
class Reading:
    """How one Keras is read.

    Attributes
    ----------
    is_stack, inner_cells, states, kind_of_cell, flags : callables of a cell
    kind, own_cell : callables of a layer
    weights_of_cell, weights : callables of a cell or layer, what to read of each weight, and a suffix
    """

    is_stack: Callable[[Any], bool]
    inner_cells: Callable[[Any], Sequence[Any]]
    states: Callable[[Any], tuple[str, ...]]
    kind_of_cell: Callable[[Any], str]
    flags: Callable[[Any], dict[str, Attribute]]
    kind: Callable[[Any], str]
    own_cell: Callable[[Any], Cell | None]
    weights_of_cell: Callable[[Any, Values, str], dict[str, Array]]
    weights: Callable[[Any, Values, str], dict[str, Array]]

    def leaves(
        self,
        whole: LayerRecord,
        halves: Sequence[Any],
        own: Readers,
        inside: Sequence[Sequence[Inside]] | None,
    ) -> tuple[LayerRecord, ...]:
        """Make the leaves of a recurrent layer.

        Parameters
        ----------
        whole : the layer's record without its inside
        halves : the layer, or both layers of a Bidirectional
        own : readers of weights and their gradients, by the suffix of their names
        inside : for each half its cells' records, none where nothing was looked into; None where nothing ran
        """
        if self.is_stack(halves[0].cell):
            return stacked(whole, self._of_stack(halves, own), inside or [])
        if len(halves) > 1 and not whole.directions and inside != []:
            parts = [self._of_half(half, own) for half in halves]
            return (whole, *unlike_halves(whole, parts, inside or [[], []]))
        solved = replace(whole, inside=tuple(cells[0] for cells in inside or []))
        first = halves[0]
        named = with_own_axes(solved, self._own_states(first), channels_first=_is_channels_first(first))
        return (replace(named, dims={**named.dims, **whole.dims}),)

    def _of_stack(self, halves: Sequence[Any], own: Readers) -> list[list[Part]]:
        """List the stacked cells of a layer, or of both layers of a Bidirectional.

        Parameters
        ----------
        own : readers of weights and their gradients, by the suffix of their names
        """
        by_half = [
            [self._of_cell(half, cell, own) for cell in self.inner_cells(half.cell)] for half in halves
        ]
        return [list(parts) for parts in zip(*by_half, strict=True)]

    def _of_cell(self, layer: Any, cell: Any, own: Readers) -> Part:
        arrays: dict[str, Array] = {}
        for suffix, read in own.items():
            arrays |= self.weights_of_cell(cell, read, suffix)
        kind = self.kind_of_cell(cell)
        states = () if kind in GATED else self.states(cell)
        return Part(kind, arrays, self.flags(cell), states, _is_channels_first(layer))

    def _of_half(self, half: Any, own: Readers) -> Part:
        """Tell what one layer of a Bidirectional has for itself."""
        arrays: dict[str, Array] = {}
        for suffix, read in own.items():
            arrays |= self.weights(half, read, suffix)
        flags = {**self.flags(half.cell), "go_backwards": int(half.go_backwards)}
        return Part(self.kind(half), arrays, flags, self._own_states(half), _is_channels_first(half))

    def _own_states(self, layer: Any) -> tuple[str, ...]:
        """Name the states of a layer's cell that the schema has no words for."""
        registered = self.own_cell(layer)
        if registered is not None:
            return registered.states
        return () if self.kind(layer) in GATED else self.states(layer.cell)


def _is_channels_first(layer: Any) -> bool:
    """Whether a convolutional layer takes images with their channels before rows and columns."""
    return str(getattr(layer, "data_format", "")) == "channels_first"
