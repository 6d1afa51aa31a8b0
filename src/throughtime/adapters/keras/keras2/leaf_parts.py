"""How layers and cells of Keras 2 are read, where one layer becomes several leaves."""

from __future__ import annotations

from throughtime.adapters.keras.leaf_parts import Reading

from . import weights
from .cell import inner_cells, is_stack, state_names
from .own_cells import own_cell
from .settings import of_cell

READING = Reading(
    is_stack=is_stack,
    inner_cells=inner_cells,
    states=state_names,
    kind_of_cell=weights.kind_of_cell,
    flags=of_cell,
    kind=weights.kind,
    own_cell=own_cell,
    weights_of_cell=weights.of_cell,
    weights=weights.named,
)
