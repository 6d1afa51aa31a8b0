"""What a pass that repeats a layer step by step is given, and where it is tapped.

Shared by the adapters of every Keras.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# What passes from one stacked cell to the next: not "input", the name of a gate, and no name of a state.
BETWEEN = "from below"
GATES = "all gates"


@dataclass(frozen=True)
class Recorded:
    """What the first pass left of one direction of one call: structures of arrays or tensors.

    Attributes
    ----------
    input : (sample, time, …) in input time
    mask : (sample, time) or None
    initial : list, one a state, inner cells one after the other
    dropout : list of dropout masks by inner cell, empty where none is active
    output_gradient : (sample, [time,] …) in processing order, or None
    final_gradients : list as `initial`, with None where nothing arrives
    scale : scalar that the loss is multiplied by, or None
    """

    input: Any
    mask: Any
    initial: list[Any]
    dropout: list[Any]
    output_gradient: Any
    final_gradients: list[Any]
    scale: Any = None

    def as_structure(self) -> dict[str, Any]:
        """Give them as a structure that a framework can trace."""
        return dict(vars(self))

    @property
    def has_gradient(self) -> bool:
        """Whether anything arrives from the loss."""
        return any(gradient is not None for gradient in (self.output_gradient, *self.final_gradients))


@dataclass(frozen=True)
class Tapped:
    """Where an inner cell is tapped: its states and gates; the width of what a cell above it is handed."""

    states: tuple[str, ...]
    gates: tuple[str, ...]
    width: int


def tap_shapes(
    cells: Sequence[Tapped], initial: Sequence[tuple[int, ...]], samples: int
) -> dict[str, tuple[int, ...]]:
    """Shapes of the taps of one step, by inner cell and name.

    Parameters
    ----------
    initial : sequence of tuples
        Shapes of the states before the first step, inner cells one after the other.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    position = 0
    for place, cell in enumerate(cells):
        own = initial[position : position + len(cell.states)]
        shapes |= {f"{place}.{name}": shape for name, shape in zip(cell.states, own, strict=True)}
        shapes |= {f"{place}.{gate}": own[0] for gate in cell.gates}
        if place:
            shapes[f"{place}.{BETWEEN}"] = (samples, cells[place - 1].width)
        position += len(cell.states)
    return shapes


def of_cell(place: int, named: Mapping[str, Any]) -> dict[str, Any]:
    """Take the taps of one inner cell, by name."""
    return {
        name.split(".", 1)[1]: value for name, value in named.items() if name.split(".", 1)[0] == str(place)
    }
