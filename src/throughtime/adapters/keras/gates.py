"""What the standard cells of every Keras are made of: states, gates, and the order their activations run in.

The gradient of a loss with respect to a zero added at a gate, a tap, is the total derivative at that place.
Gates, and the way from an LSTM's c_t to its h_t, are tapped through the activations that Keras' cells apply
in a fixed order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from throughtime.adapters.attributes import replaced

CELL = "cell"
GATED = {"lstm": 4, "gru": 3, "simple_rnn": 1, "conv_lstm": 4}
# Words of the tree that no state of a user's cell can have.
_TAKEN = frozenset({"input", "output", "valid", "loss", "reduction_factor", "gate", "gate_activation"})
STATES = {
    "lstm": ("hidden", CELL),
    "conv_lstm": ("hidden", CELL),
    "gru": ("hidden",),
    "simple_rnn": ("hidden",),
}


@dataclass(frozen=True)
class Order:
    """What a cell's activations are applied to, in the order in which its `call` applies them."""

    recurrent: tuple[str, ...]
    plain: tuple[str, ...]
    gates: tuple[str, ...]  # in the order of the schema


_LSTM = Order(("input", "forget", "output"), ("candidate", CELL), ("input", "forget", "candidate", "output"))
_ORDERS = {
    "lstm": _LSTM,
    "conv_lstm": _LSTM,
    "gru": Order(("update", "reset"), ("candidate",), ("update", "reset", "candidate")),
    "simple_rnn": Order((), ("gate",), ("gate",)),
}


def state_names(
    kind: str, own: Any, count: int, *, emits_first: bool, words: Collection[str]
) -> tuple[str, ...]:
    """Name a cell's states: as known, or as its attribute `state_names` says, else by their number.

    Names that a tree cannot hold beside its own words and the cell's weights are not taken.

    Parameters
    ----------
    kind : as `GATED` has them, empty for any other cell
    own : the attribute's value, str or sequence of str
    count : int
        How many states there are.
    emits_first : bool
        Its first state is what the cell hands out.
    words : names of the cell's weights
    """
    known = STATES.get(kind) or ((own,) if isinstance(own, str) else tuple(own))
    if len(known) == count == len({*known} - _TAKEN - {*words}) and all(map(str.isidentifier, known)):
        return known
    numbered = tuple(f"state_{k}" for k in range(count))
    return ("hidden", *numbered[1:]) if emits_first else numbered


def gates_of(kind: str) -> dict[str, tuple[str, ...]]:
    """Gates by the attribute that holds their activation; empty where the cell is not one of Keras'."""
    order = _ORDERS.get(kind)
    if order is None:
        return {}
    plain = tuple(place for place in order.plain if place != CELL)
    by_attribute = {"activation": plain, "recurrent_activation": order.recurrent}
    return {attribute: gates for attribute, gates in by_attribute.items() if gates}


def gate_names(kind: str) -> tuple[str, ...]:
    """Gates in the schema's order; empty where the cell is not one of Keras'."""
    return _ORDERS[kind].gates if kind else ()


@dataclass(frozen=True)
class Stepped:
    """What one step of one cell gave; `output_state` is the position of the state that it hands out."""

    output: Any
    states: list[Any]
    gates: list[Any]
    output_state: int | None


def stepped(output: Any, after: list[Any], gates: list[Any]) -> Stepped:
    """Gather what a step gave, and find out which state the cell handed out."""
    same = (position for position, state in enumerate(after) if state is output)
    return Stepped(output, after, gates, next(same, None))


def step(cell: Any, kind: str, taps: Mapping[str, Any], run: Callable[[], tuple[Any, list[Any]]]) -> Stepped:
    """Run a cell once, gates and the cell state's way to the output tapped.

    Parameters
    ----------
    run : callable
        Calls the cell; returns its output and a flat list of its new states.
    """
    if not kind:
        return stepped(*run(), [])
    seen: dict[str, Any] = {}
    with _tapped_activations(cell, _ORDERS[kind], taps, seen):
        output, after = run()
    return stepped(output, after, [seen[name] for name in _ORDERS[kind].gates])


@contextmanager
def _tapped_activations(
    cell: Any, order: Order, taps: Mapping[str, Any], seen: dict[str, Any]
) -> Iterator[None]:
    with ExitStack() as stack:
        for attribute, places in (("activation", order.plain), ("recurrent_activation", order.recurrent)):
            if places:
                tapped = _tapped(getattr(cell, attribute), places, taps, seen)
                stack.enter_context(replaced(cell, attribute, tapped))
        yield


def _tapped(activation: Any, places: Sequence[str], taps: Mapping[str, Any], seen: dict[str, Any]) -> Any:
    """Wrap an activation: each application gets the tap of its place and leaves its value there."""
    coming = iter(places)

    def call(value: Any, *args: Any, **kwargs: Any) -> Any:
        place = next(coming)
        seen[place] = activation(value + taps[place] if place in taps else value, *args, **kwargs)
        return seen[place]

    return call
