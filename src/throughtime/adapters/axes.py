"""Axes of states, inputs and outputs that differ from the schema's; gates apart from units."""

from collections.abc import Sequence

from .records import Array

# Where torch, Flax and Equinox have the gates of the schema.
GATE_ORDER = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "simple_rnn": (0,)}
AXES = ("unit", "row", "column", "depth")


def of_state(name: str, own: tuple[int, ...], first: tuple[int, ...]) -> dict[str, tuple[str, ...]]:
    """Name the axes of a state and its gradient where they are not (unit), or not those of the first state.

    `own` and `first` are the shapes of this state and of the first one, without sample and time.
    """
    if len(own) == 1 and own == first:
        return {}
    prefix = "" if own == first else f"{name}_"
    axes = tuple(f"{prefix}{axis}" for axis in AXES[: len(own)])
    of_steps = dict.fromkeys((name, f"{name}_gradient"), ("sample", "time", *axes))
    return of_steps | {f"initial_{each}": ("sample", *axes) for each in of_steps}


def of_series(name: str, last: str, rank: int) -> dict[str, tuple[str, ...]]:
    """Name the axes of an input or output, and its gradient, that has more than (sample, time, `last`)."""
    if rank <= 3:
        return {}
    axes = ("sample", "time", last, *(f"{name}_{axis}" for axis in AXES[1 : rank - 2]))
    return dict.fromkeys((name, f"{name}_gradient"), axes)


def alignment(breaking: Sequence[str]) -> str:
    """Describe the time of a capture, given the layers that break the time axis of the model's input."""
    after = f"; not the model's input time after {', '.join(breaking)}" if breaking else ""
    return f"each layer's own input, in input order{after}"


def with_gates(kind: str, array: Array) -> Array:
    """(…, gate · unit) to (…, gate, unit) in the schema's order; a simple RNN has no gates."""
    order = GATE_ORDER[kind]
    if len(order) == 1:
        return array
    return array.reshape(*array.shape[:-1], len(order), -1)[..., list(order), :]
