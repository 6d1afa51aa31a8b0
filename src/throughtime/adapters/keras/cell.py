"""Reads what a Keras cell is made of, and runs one step of it with zero taps wherever a gradient is wanted.

The gradient of a loss with respect to a zero that is added somewhere, a tap, is the total derivative at that
place. States are tapped from outside the cell; gates, and the way from an LSTM's c_t to its h_t, through the
activations that Keras' cells apply in a fixed order.
"""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from throughtime._inputs.structures import leaves
from throughtime.adapters.attributes import replaced

from .contracts import Call, Layer, Tensor
from .dialect import Dialect
from .library import halves, is_a, is_own, is_recurrent, package_of_object, path_of

CELL = "cell"
PRODUCTS = ("lstm", "gru", "simple_rnn")  # whose input and state enter by matrix products
GATED = {"lstm": 4, "gru": 3, "simple_rnn": 1, "conv_lstm": 4}
_KINDS = {"LSTMCell": "lstm", "GRUCell": "gru", "SimpleRNNCell": "simple_rnn", "ConvLSTMCell": "conv_lstm"}
# The methods of a standard cell's step; a class that overrides one is no standard cell.
_METHODS = (
    "call",
    "_compute_carry_and_output",
    "_compute_carry_and_output_fused",
    "input_conv",
    "recurrent_conv",
)
# Words of the tree that no state of a user's cell can have.
_TAKEN = frozenset({"input", "output", "valid", "loss", "reduction_factor", "gate", "gate_activation"})


@dataclass(frozen=True)
class _Order:
    """The inputs of a cell's activations, in the order in which its `call` applies them."""

    recurrent: tuple[str, ...]
    plain: tuple[str, ...]
    gates: tuple[str, ...]  # in the order of the schema


_LSTM = _Order(("input", "forget", "output"), ("candidate", CELL), ("input", "forget", "candidate", "output"))
_ORDERS = {
    "lstm": _LSTM,
    "conv_lstm": _LSTM,
    "gru": _Order(("update", "reset"), ("candidate",), ("update", "reset", "candidate")),
    "simple_rnn": _Order((), ("gate",), ("gate",)),
}


def standard_kind(cell: Layer) -> str:
    """Name a cell whose step is Keras' own; empty for every other."""
    owners = {_owner(cell, name) for name in _METHODS if hasattr(type(cell), name)}
    return _KINDS.get(owners.pop(), "") if len(owners) == 1 else ""


def is_called_as_defined(cell: Layer) -> bool:
    """Whether a call of this very cell runs the methods of its class, by way of Keras' own `__call__`."""
    return not vars(cell).keys() & {*_METHODS} and bool(_owner(cell, "__call__"))


def _owner(cell: Layer, method: str) -> str:
    """Name the class of Keras that a cell's method is defined in; empty for a user's."""
    function = inspect.unwrap(getattr(type(cell), method))
    module = f"{function.__module__}."
    if not module.startswith(f"{package_of_object(cell)}.") or "legacy" in module:
        return ""
    return str(function.__qualname__).partition(".")[0]


def inner_cells(cell: Layer) -> tuple[Layer, ...]:
    """Return the cells that Keras' `StackedRNNCells` runs one after another, else the cell itself."""
    if is_a(cell, "StackedRNNCells") and _owner(cell, "call") == "StackedRNNCells":
        return tuple(cell.cells)
    return (cell,)


def state_names(cell: Layer) -> tuple[str, ...]:
    """Name a cell's states: as known, or by its attribute `state_names`, else by their number.

    Names that a tree cannot hold beside its own words and the cell's weights are not taken.
    """
    kind = standard_kind(cell)
    if kind:  # a ConvLSTM's state_size is −1
        return ("hidden", CELL) if _ORDERS[kind] is _LSTM else ("hidden",)
    count, own = len(sizes_of_states(cell)), getattr(cell, "state_names", ())
    known = (own,) if isinstance(own, str) else tuple(own)
    words = {path_of(weight).rpartition("/")[2] for weight in getattr(cell, "weights", ())}
    if len(known) == count == len({*known} - _TAKEN - words) and all(map(str.isidentifier, known)):
        return known
    numbered = tuple(f"state_{k}" for k in range(count))
    # Keras' own cells, with a `call` of somebody else's, emit their first state.
    return ("hidden", *numbered[1:]) if count == 1 or is_a(cell, *_KINDS) else numbered


def sizes_of_states(cell: Layer) -> list[object]:
    """Return the size of each state, a number or a shape."""
    size = cell.state_size
    return leaves(size) if isinstance(size, (list, tuple)) else [size]


def gate_names(cell: Layer) -> tuple[str, ...]:
    """Gates in the schema's order; empty where the cell is not one of Keras'."""
    kind = standard_kind(cell)
    return _ORDERS[kind].gates if kind else ()


def gates_by_activation(cell: Layer) -> dict[str, tuple[str, ...]]:
    """Gates by the attribute that holds their activation; empty where the cell is not one of Keras'."""
    order = _ORDERS.get(standard_kind(cell), _Order((), (), ()))
    plain = tuple(place for place in order.plain if place != CELL)
    by_attribute = {"activation": plain, "recurrent_activation": order.recurrent}
    return {attribute: gates for attribute, gates in by_attribute.items() if gates}


@dataclass(frozen=True)
class Stepped:
    """The result of one step of one cell; `output_state` is the position of the state that is its output."""

    output: Tensor
    states: list[Tensor]
    gates: list[Tensor]

    @property
    def output_state(self) -> int | None:
        """Position of the state that the cell handed out; None for none."""
        return next((place for place, state in enumerate(self.states) if state is self.output), None)


def step(
    keras: Dialect,
    cell: Layer,
    x: object,
    states: Sequence[Tensor],
    taps: Mapping[str, Tensor] | None = None,
    *,
    training: bool,
) -> Stepped:
    """Run a cell once; with taps, gates and the cell state's way to the output are tapped."""
    kind = "" if taps is None else standard_kind(cell)
    if taps is None or not kind:
        return Stepped(*_called(keras, cell, x, states, training), [])
    seen: dict[str, Tensor] = {}
    order = _ORDERS[kind]
    with ExitStack() as stack:
        for attribute, places in (("activation", order.plain), ("recurrent_activation", order.recurrent)):
            if places:
                tapped = _tapped(getattr(cell, attribute), places, taps, seen)
                stack.enter_context(replaced(cell, attribute, tapped))
        output, after = _called(keras, cell, x, states, training)
    return Stepped(output, after, [seen[name] for name in order.gates])


def _tapped(
    activation: Call, places: Sequence[str], taps: Mapping[str, Tensor], seen: dict[str, Tensor]
) -> Call:
    """Wrap an activation: each application gets the tap of its place and leaves its value there."""
    coming = iter(places)

    def call(value: Tensor, *args: object, **kwargs: object) -> Tensor:
        place = next(coming)
        seen[place] = activation(value + taps[place] if place in taps else value, *args, **kwargs)
        return seen[place]

    return call


def _called(
    keras: Dialect, cell: Layer, x: object, states: Sequence[Tensor], training: bool
) -> tuple[Tensor, list[Tensor]]:
    """Call a cell as Keras' loop does; return its output and its states."""
    given: object = list(states)
    if isinstance(cell.state_size, (list, tuple)):
        given = keras.tree.pack_sequence_as([_places(keras, size) for size in cell.state_size], given)
    takes_training = getattr(cell, "_call_has_training_arg", None)  # known to Keras 3
    if takes_training is None:
        takes_training = hasattr(cell, "call") and "training" in inspect.signature(cell.call).parameters
    keywords = {"training": training} if takes_training else {}
    output, after = (cell if callable(cell) else cell.call)(x, given, **keywords)
    return output, keras.tree.flatten(after)


def _places(keras: Dialect, size: object) -> object:
    """Put a number in the place of each state, whose size may be a shape."""
    return keras.tree.map_structure(lambda _: 0, size) if isinstance(size, (list, tuple, dict)) else 0


def why_not(layer: Layer) -> str:
    """Return the reason for which a layer cannot be looked into, empty if it can."""
    if not is_recurrent(layer):
        return "only recurrent layers have states and gates"
    return next(filter(None, (_why_not(half) for half in halves(layer))), "")


def _why_not(layer: Layer) -> str:
    name, cell = type(layer).__name__, getattr(layer, "cell", None)
    if is_a(layer, "_CuDNNRNN"):
        return f"{name} is a single cuDNN kernel; keras.layers.LSTM and GRU can load its weights"
    for method in ("call", "inner_loop"):
        function = getattr(type(layer), method, None)
        if function is not None and not is_own(inspect.unwrap(function), layer):
            return (
                f"{name} overrides {method}, so its loop over time is unknown; move that code into the cell "
                "or into a separate layer"
            )
    if hasattr(cell, "_is_tf_rnn_cell"):
        return f"{type(cell).__name__} is a cell of tf.compat.v1.nn, not of Keras"
    return "it takes constants besides its states" if getattr(layer, "_num_constants", 0) else ""


def is_closed(keras: Dialect, layer: Layer, training: bool, activations: frozenset[str]) -> bool:
    """Whether the layer keeps its kernel and `cells` solves it: quicker where the loop is Python's."""
    cell = layer.cell
    is_slow = keras.BACKEND == "torch"
    return is_slow and has_closed_form(keras, cell, activations) and not drops(cell, training)


def drops(cell: Layer, training: bool) -> bool:
    """Whether a standard cell drops inputs or states in this pass."""
    return training and any(getattr(cell, name, None) for name in ("dropout", "recurrent_dropout"))


def has_closed_form(keras: Dialect, cell: Layer, activations: frozenset[str]) -> bool:
    """Whether `cells` knows the derivatives of a cell; `activations` are those that it knows."""
    if standard_kind(cell) not in PRODUCTS:
        return False
    functions = [getattr(cell, name, None) for name in ("activation", "recurrent_activation")]
    return all(keras.activation_name(cell, each) in activations for each in functions if each is not None)
