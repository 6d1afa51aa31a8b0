"""Records of a direction that the framework has solved step by step: one for each inner cell, in input time.

Shared by the adapters of every Keras; each says how its tensors are read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from throughtime._errors import warn
from throughtime._record import Array, SolvedRecord

from .cell_weights import Values
from .unrolling import BETWEEN

_NO_GATES = ("simple_rnn",)  # its only gate is its state
MATRIX_KINDS = ("lstm", "gru", "simple_rnn")


class Result(Protocol):
    """Tensors of one pass, and the gradients that exist, by what they are of."""

    @property
    def tensors(self) -> Mapping[str, Any]:
        """Of the call's own loop, or of the layer as it was unrolled."""

    @property
    def gradients(self) -> Mapping[str, Any]:
        """Likewise."""


class Call(Protocol):
    """One call of one layer, as an adapter's recorder has it."""

    @property
    def inside(self) -> Sequence[Any]:
        """One for each direction."""

    def key(self, name: str, part: int = 0) -> str:
        """Name one tensor of this call among all that a pass returns."""


@dataclass(frozen=True)
class Direction(ABC):
    """One unrolled direction of one call. Arrays are in input time, (sample, time, …).

    Attributes
    ----------
    layer : the recurrent layer
    call : Call
    part : int
        Which direction of the call.
    first, second : Result
        What the call's own loop gave, and the unrolled layer.
    """

    layer: Any
    call: Call
    part: int
    first: Result
    second: Result

    @abstractmethod
    def array(self, tensor: Any) -> Array:
        """Bring a tensor to NumPy."""

    @abstractmethod
    def initial(self, state: int) -> Array:
        """Return a state before the first step, in memory of its own."""

    @abstractmethod
    def gradient_of(self, variable: Any) -> Array | None:
        """Return a weight's gradient through the unrolled layer."""

    @abstractmethod
    def recurrent_dropout(self, place: int) -> list[Array]:
        """Return what h_{t−1} was multiplied with, one array or one a gate; none without dropout."""

    @property
    def has_gradients(self) -> bool:
        """Whether anything arrives from the loss."""
        return bool(self.second.gradients)

    def keeps(self, place: int, name: str) -> bool:
        """Whether a state was asked for or is needed."""
        return True

    def value(self, place: int, name: str) -> Array:
        """Return the input, a state or the gates of an inner cell."""
        return self._in_input_time(self.array(self.second.tensors[f"{place}.{name}"]))

    def tap(self, place: int, name: str) -> Array | None:
        """Return the gradient at a tap of an inner cell."""
        gradient = self.through_unrolled(f"tap_{place}.{name}")
        return None if gradient is None else self._in_input_time(gradient)

    def gate_taps(self, place: int, gates: Sequence[str], like: Array) -> Array | None:
        """Return the gradients at the gates of an inner cell (sample, time, gate, …), if asked for."""
        taps = [self.tap(place, gate) for gate in gates]
        return np.stack([np.zeros_like(like) if tap is None else tap for tap in taps], axis=2)

    def input_gradient(self) -> Array | None:
        """Return the gradient of the layer's input, through the unrolled layer."""
        return self.through_unrolled("input")

    def initial_gradient(self, state: int) -> Array | None:
        """Return the gradient of a state before the first step."""
        return self.through_unrolled(f"initial_{state}")

    def first_gradient_of(self, variable: Any) -> Array | None:
        """Return a weight's gradient through the call's own loop."""
        position = next(index for index, one in enumerate(self.layer.weights) if one is variable)
        return self._through_loop(f"weight_{position}")

    def first_input_gradient(self) -> Array | None:
        """Return the input's gradient through the call's own loop."""
        return self._through_loop("half_input" if len(self.call.inside) > 1 else "input")

    def through_unrolled(self, key: str) -> Array | None:
        """Return a gradient that the second pass found."""
        gradient = self.second.gradients.get(key)
        return None if gradient is None else self.array(gradient)

    def _through_loop(self, name: str) -> Array | None:
        gradient = self.first.gradients.get(self.call.key(name, self.part))
        return None if gradient is None else self.array(gradient)

    def _in_input_time(self, by_time: Array) -> Array:
        """(time, sample, …) in processing order to (sample, time, …) in input time."""
        array = by_time.swapaxes(0, 1)
        return array[:, ::-1] if self.layer.go_backwards else array


@dataclass(frozen=True)
class InnerCell:
    """What is known of one of a layer's cells.

    Attributes
    ----------
    kind : str
        As `gates.GATED` has them, empty for any other cell.
    states, gates : tuple of str
    activations : mapping of str to (str, tuple of str)
        By attribute: the activation's name, and the gates it makes.
    weights : callable (values, suffix) -> mapping
        Reads what belongs to its weights, by name.
    """

    kind: str
    states: tuple[str, ...]
    gates: tuple[str, ...]
    activations: Mapping[str, tuple[str, tuple[str, ...]]]
    weights: Callable[[Values, str], dict[str, Array]]


def solved_records(direction: Direction, cells: Sequence[InnerCell]) -> tuple[SolvedRecord, ...]:
    """One record for each inner cell of the layer, the lowest first."""
    firsts = [sum(len(cell.states) for cell in cells[:place]) for place in range(len(cells))]
    return tuple(
        _record(direction, place, cell, first)
        for place, (cell, first) in enumerate(zip(cells, firsts, strict=True))
    )


def _record(direction: Direction, place: int, cell: InnerCell, first_state: int) -> SolvedRecord:
    arrays = _values(direction, place, cell)
    if direction.has_gradients:
        arrays |= _state_gradients(direction, place, cell, first_state, arrays)
        arrays |= _gate_gradient(direction, place, cell, arrays)
        arrays |= _input_gradient(direction, place)
        arrays |= cell.weights(direction.gradient_of, "_gradient")
    return SolvedRecord(
        arrays=arrays,
        weight_gradients=cell.weights(direction.first_gradient_of, "_gradient"),
        # Time is certified where the layer's input enters; cells above share the loop.
        input_gradient=direction.first_input_gradient() if place == 0 else None,
        initial=tuple(direction.initial(first_state + k) for k in range(len(cell.states))),
        hidden_before=_hidden_before(direction, place, cell, first_state, arrays),
    )


def _values(direction: Direction, place: int, cell: InnerCell) -> dict[str, Array]:
    names = ["input", *(name for name in cell.states if direction.keeps(place, name))]
    if cell.gates and cell.kind not in _NO_GATES:
        names.append("gate_activation")
    return {name: direction.value(place, name) for name in names}


def _state_gradients(
    direction: Direction, place: int, cell: InnerCell, first_state: int, values: dict[str, Array]
) -> dict[str, Array]:
    arrays = {}
    for position, name in enumerate(cell.states, first_state):
        if name not in values:
            continue
        zeros = np.zeros_like(values[name])
        tap, initial = direction.tap(place, name), direction.initial_gradient(position)
        arrays[f"{name}_gradient"] = zeros if tap is None else tap
        arrays[f"initial_{name}_gradient"] = zeros[:, 0] if initial is None else initial
    return arrays


def _gate_gradient(
    direction: Direction, place: int, cell: InnerCell, values: Mapping[str, Array]
) -> dict[str, Array]:
    if not cell.gates:
        return {}
    stacked = direction.gate_taps(place, cell.gates, values["hidden"])
    if stacked is None:
        return {}
    gates = {gate: stacked[:, :, position] for position, gate in enumerate(cell.gates)}
    _warn_of_flat_activations(direction.layer, cell, gates, values)
    return {"gate_gradient": stacked if len(gates) > 1 else stacked[:, :, 0]}


def _warn_of_flat_activations(
    layer: Any, cell: InnerCell, gates: Mapping[str, Array], values: Mapping[str, Array]
) -> None:
    """Say so where a gradient arrives at the state and none passes an activation."""
    for attribute, (name, places) in cell.activations.items():
        if values["hidden_gradient"].any() and not any(gates[gate].any() for gate in places):
            warn(
                f"No gradient passes the {attribute} of {layer.name}, {name}: dL/dz is 0 at every step, and "
                "dL/dh is not. Is it differentiable?"
            )


def _input_gradient(direction: Direction, place: int) -> dict[str, Array]:
    gradient = direction.input_gradient() if place == 0 else direction.tap(place, BETWEEN)
    return {} if gradient is None else {"input_gradient": gradient}


def _hidden_before(
    direction: Direction, place: int, cell: InnerCell, first_state: int, arrays: dict[str, Array]
) -> Array | None:
    """h_{t-1} as it met the recurrent kernel of a cell whose product with it is a matrix product."""
    if cell.kind not in MATRIX_KINDS or "hidden" not in arrays:
        return None
    initial, hidden = direction.initial(first_state)[:, None], arrays["hidden"]
    if direction.layer.go_backwards:
        before = np.concatenate([hidden[:, 1:], initial], axis=1)
    else:
        before = np.concatenate([initial, hidden[:, :-1]], axis=1)
    masks = direction.recurrent_dropout(place)
    if len(masks) > 1:
        return np.stack([before * mask for mask in masks], axis=2)
    return before * masks[0] if masks else before
