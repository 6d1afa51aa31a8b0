"""Parts a layer into its leaves: one, or several where it holds stacked cells, or two unlike halves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from throughtime.adapters.records import Array, LayerRecord

from . import cell as cells
from . import settings, weights
from .cell_weights import Readers
from .dialect import Dialect
from .dims import with_own_axes
from .gates import GATED
from .several_leaves import Inside, Part, stacked, unlike_halves


def leaves(
    keras: Dialect,
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
    if cells.inner_cells(halves[0].cell)[0] is not halves[0].cell:
        return stacked(whole, _of_stack(keras, halves, own), inside or [])
    if len(halves) > 1 and not whole.directions and inside != []:
        parts = [_of_half(keras, half, own) for half in halves]
        return (whole, *unlike_halves(whole, parts, inside or [[], []]))
    solved = replace(whole, inside=tuple(cells[0] for cells in inside or []))
    first = halves[0]
    named = with_own_axes(solved, _own_states(keras, first), channels_first=_is_channels_first(first))
    return (replace(named, dims={**named.dims, **whole.dims}),)


def _of_stack(keras: Dialect, halves: Sequence[Any], own: Readers) -> list[list[Part]]:
    """List the stacked cells of a layer, or of both layers of a Bidirectional.

    Parameters
    ----------
    own : readers of weights and their gradients, by the suffix of their names
    """
    by_half = [[_of_cell(keras, half, cell, own) for cell in cells.inner_cells(half.cell)] for half in halves]
    return [list(parts) for parts in zip(*by_half, strict=True)]


def _of_cell(keras: Dialect, layer: Any, cell: Any, own: Readers) -> Part:
    arrays: dict[str, Array] = {}
    for suffix, read in own.items():
        arrays |= weights.of_cell(keras, cell, read, suffix)
    kind = weights.kind_of_cell(keras, cell)
    states = () if kind in GATED else cells.state_names(keras, cell)
    return Part(kind, arrays, settings.of_cell(keras, cell), states, _is_channels_first(layer))


def _of_half(keras: Dialect, half: Any, own: Readers) -> Part:
    """Tell what one layer of a Bidirectional has for itself."""
    arrays: dict[str, Array] = {}
    for suffix, read in own.items():
        arrays |= weights.named(keras, half, read, suffix)
    flags = {**settings.of_cell(keras, half.cell), "go_backwards": int(half.go_backwards)}
    return Part(weights.kind(keras, half), arrays, flags, _own_states(keras, half), _is_channels_first(half))


def _own_states(keras: Dialect, layer: Any) -> tuple[str, ...]:
    """Name the states of a layer's cell that the schema has no words for."""
    return () if weights.kind(keras, layer) in GATED else cells.state_names(keras, layer.cell)


def _is_channels_first(layer: Any) -> bool:
    """Whether a convolutional layer takes images with their channels before rows and columns."""
    return str(getattr(layer, "data_format", "")) == "channels_first"
