"""Tells what is its own of each cell in a layer that holds several: stacked ones, or two unlike halves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from throughtime._record import Array
from throughtime.adapters.cell_weights import Readers
from throughtime.adapters.gates import GATED
from throughtime.adapters.several_leaves import Part

from . import weights
from .cell import inner_cells, state_names
from .own_cells import own_cell
from .settings import of_cell as settings_of_cell


def of_stack(halves: Sequence[Any], own: Readers) -> list[list[Part]]:
    """List the stacked cells of a layer, or of both layers of a Bidirectional.

    Parameters
    ----------
    own : readers of weights and their gradients, by the suffix of their names
    """
    by_half = [[_of_cell(half, cell, own) for cell in inner_cells(half.cell)] for half in halves]
    return [list(parts) for parts in zip(*by_half, strict=True)]


def _of_cell(layer: Any, cell: Any, own: Readers) -> Part:
    arrays: dict[str, Array] = {}
    for suffix, read in own.items():
        arrays |= weights.of_cell(cell, read, suffix)
    kind = weights.kind_of_cell(cell)
    states = () if kind in GATED else state_names(cell)
    return Part(kind, arrays, settings_of_cell(cell), states, is_channels_first(layer))


def of_half(half: Any, own: Readers) -> Part:
    """Tell what one layer of a Bidirectional has for itself."""
    arrays: dict[str, Array] = {}
    for suffix, read in own.items():
        arrays |= weights.named(half, read, suffix)
    flags = {**settings_of_cell(half.cell), "go_backwards": int(half.go_backwards)}
    return Part(weights.kind(half), arrays, flags, own_states(half), is_channels_first(half))


def own_states(layer: Any) -> tuple[str, ...]:
    """Name the states of a layer's cell that the schema has no words for."""
    registered = own_cell(layer)
    if registered is not None:
        return registered.states
    return () if weights.kind(layer) in GATED else state_names(layer.cell)


def is_channels_first(layer: Any) -> bool:
    """Whether a convolutional layer takes images with their channels before rows and columns."""
    return str(getattr(layer, "data_format", "")) == "channels_first"
