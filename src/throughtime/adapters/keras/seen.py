"""What is known of one direction of one call without its tensors, and which of them are kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .dialect import Dialect
from .every_step import OF_GATES
from .gates import CELL


@dataclass(frozen=True)
class Result:
    """Tensors of one pass and the gradients that exist, by what they are of."""

    tensors: dict[str, Any]
    gradients: dict[str, Any]


class SeenCall(Protocol):
    """One call of one recurrent layer; `index` says of which."""

    @property
    def index(self) -> int:
        """Position of the layer among those that are watched."""

    @property
    def inside(self) -> Sequence[SeenInside]:
        """One for each direction."""

    def key(self, name: str, part: int = 0) -> str:
        """Name one tensor of this call among all that a pass returns."""


@dataclass
class SeenInside:
    """One direction inside a recurrent layer; outlives the trace.

    Attributes
    ----------
    layer : callable () -> the layer
    is_closed : bool
        It ran its own kernel, and `cells` solves it.
    initial_states : int
        How many states it started from.
    dropout : list
        As `every_step.Recorded.dropout`, with keys in place of masks.
    kept, handed_on : sequence of str
        As `loop.Loop` has them.
    output : str
        The state whose sequence is the layer's output, and not returned a second time; empty for none.
    is_compared : bool
        The loop was compared with the layer's own.
    draws : bool
        Its cells draw at each step what cannot be repeated.
    """

    layer: Callable[[], Any]
    is_closed: bool
    has_mask: bool = False
    initial_states: int = 0
    dropout: list[Any] = field(default_factory=list)
    kept: tuple[str, ...] = ()
    handed_on: tuple[str, ...] = ()
    output: str = ""
    is_compared: bool = False
    draws: bool = False


def lies_within_steps(keras: Dialect, cell: Any, quantities: frozenset[str]) -> bool:
    """Whether a quantity that was asked for lies within the steps of a cell, and not in the loop alone."""
    parts = keras.inner_cells(cell)
    if quantities & {"gate_activation", *OF_GATES}:
        return True
    if "cell_gradient" in quantities and any(CELL in keras.state_names(part) for part in parts):
        return True
    return len(parts) > 1 and bool(quantities & {"input_gradient", "output_gradient"})


def names_kept(
    keras: Dialect, cell: Any, names: Collection[str], quantities: frozenset[str]
) -> tuple[str, ...]:
    """Choose among what a loop has: what is asked for, or needed for what lies within the steps."""
    if lies_within_steps(keras, cell, quantities):
        return tuple(names)
    unasked = {
        name
        for name in ("hidden", "cell")
        if not quantities & {name, f"{name}_gradient", f"initial_{name}_gradient"}
    }
    return tuple(name for name in names if name.partition(".")[2] not in unasked)
