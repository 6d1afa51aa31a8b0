"""What is known of a call and of its directions without their tensors, and which of these are kept."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from . import cell as cells
from .cell import CELL
from .dialect import Dialect
from .every_step import OF_GATES
from .loop import MARKED


@dataclass(frozen=True)
class Result:
    """Tensors of one pass and the gradients that exist, by what they are of."""

    tensors: dict[str, Any]
    gradients: dict[str, Any]


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
    """

    layer: Callable[[], Any]
    is_closed: bool
    has_mask: bool = False
    initial_states: int = 0
    dropout: list[Any] = field(default_factory=list)
    kept: tuple[str, ...] = ()
    handed_on: tuple[str, ...] = ()
    output: str = ""


@dataclass
class SeenCall:
    """One call of one watched layer, without its tensors.

    Attributes
    ----------
    index, number : int
        Which layer, and which of its calls, from 1.
    group : int
        Calls of one group make one leaf: those of all outer steps of a TimeDistributed.
    outer_steps : int
        How many samples a TimeDistributed made of each of its own; 0 where there is none around the layer.
    outputs : int
        How many tensors others see of what it returned.
    output_dtype, input_dtype : str
        Empty where there is no such tensor, or not one.
    input_shape : tuple of int
        Empty where it is not known before the pass.
    logits : tuple of str
        Keys of the marked logits behind the output, of each step if several.
    not_inside : str
        Why this call was not looked into.
    """

    index: int
    number: int
    group: int
    outer_steps: int = 0
    outputs: int = 0
    output_dtype: str = ""
    input_dtype: str = ""
    input_shape: tuple[int, ...] = ()
    has_mask: bool = False
    logits: tuple[str, ...] = ()
    not_inside: str = ""
    inside: list[SeenInside] = field(default_factory=list)

    def key(self, name: str, part: int = 0) -> str:
        """Name one tensor of this call among all that a pass returns."""
        return key(self.index, self.number, name, part)


def key(index: int, number: int, name: str, part: int = 0) -> str:
    """Name a tensor: which layer, which of its calls, what, and which of several."""
    return f"{index}.{number}.{name}.{part}"


def lies_within_steps(keras: Dialect, cell: Any, quantities: frozenset[str]) -> bool:
    """Whether a quantity that was asked for lies within the steps of a cell, and not in the loop alone."""
    parts = cells.inner_cells(cell)
    if quantities & {"gate_activation", *OF_GATES}:
        return True
    if "cell_gradient" in quantities and any(CELL in cells.state_names(keras, part) for part in parts):
        return True
    return len(parts) > 1 and bool(quantities & {"input_gradient", "output_gradient"})


def names_kept(
    keras: Dialect, cell: Any, names: Collection[str], quantities: frozenset[str]
) -> tuple[str, ...]:
    """Choose among what a loop has: what is asked for, or needed for what lies within the steps."""
    if not quantities & {"gate_activation", "gate_gradient"}:
        names = [name for name in names if MARKED not in name]
    if lies_within_steps(keras, cell, quantities):
        return tuple(names)
    unasked = {
        name
        for name in ("hidden", "cell")
        if not quantities & {name, f"{name}_gradient", f"initial_{name}_gradient"}
    }
    return tuple(name for name in names if name.partition(".")[2] not in unasked)
