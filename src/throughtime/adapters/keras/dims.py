"""Axes of arrays that the schema has none for: convolutional states, and states that a cell names itself.

Shared by the adapters of every Keras.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from throughtime.adapters.marking import MarkedSteps
from throughtime.adapters.records import Array, LayerRecord, SolvedRecord

_SPACE = ("row", "column", "depth")
_OF_STATE = ("hidden", "cell")


def with_own_axes(leaf: LayerRecord, states: tuple[str, ...], channels_first: bool) -> LayerRecord:
    """Add the names and axes of states that are no plain vector, or have no name in the schema.

    Parameters
    ----------
    states : tuple of str
        As the cell names them; empty where the schema has words for them.
    channels_first : bool
        Of the images that a convolutional cell takes.
    """
    leaf = replace(leaf, states=states or leaf.states)
    own = [one.arrays for one in leaf.inside if isinstance(one, SolvedRecord)][:1]
    arrays = {**leaf.arrays, **(own[0] if own else {})}
    of_states = _of_states(arrays, leaf, channels_first)
    dims = {
        **of_states,
        **_of_marks(leaf, of_states),
        **_of_input_and_output(arrays, leaf, channels_first),
        **(_of_kernels(arrays, leaf) if leaf.kind == "conv_lstm" else {}),
    }
    return replace(leaf, dims=dims)


def axes_of_state(rank: int, *, channels_first: bool = False) -> tuple[str, ...]:
    """Name the axes of one state: `unit`, or row, column and depth with `channel`.

    Examples
    --------
    >>> axes_of_state(1), axes_of_state(3)
    (('unit',), ('row', 'column', 'channel'))
    """
    if rank == 1:
        return ("unit",)
    space = _SPACE[: rank - 1]
    return ("channel", *space) if channels_first else (*space, "channel")


def _of_states(arrays: Mapping[str, Array], leaf: LayerRecord, first: bool) -> dict[str, tuple[str, ...]]:
    direction = ("direction",) if leaf.directions else ()
    names = [name for name in dict.fromkeys((*_OF_STATE, *leaf.states)) if name in arrays]
    dims: dict[str, tuple[str, ...]] = {}
    sizes: dict[str, int] = {}
    for name in names:
        shape = arrays[name].shape[2:]
        axes = axes_of_state(len(shape), channels_first=first)
        # States of different widths cannot share an axis.
        axes = tuple(
            axis if sizes.setdefault(axis, size) == size else f"{name}_{axis}"
            for axis, size in zip(axes, shape, strict=True)
        )
        dims[name] = dims[f"{name}_gradient"] = ("sample", "time", *direction, *axes)
        dims[f"initial_{name}"] = dims[f"initial_{name}_gradient"] = ("sample", *direction, *axes)
    if "hidden" in dims:
        own = dims["hidden"][2 + len(direction) :]
        gate = () if leaf.kind == "simple_rnn" else ("gate",)
        dims["gate_activation"] = dims["gate_gradient"] = ("sample", "time", *direction, *gate, *own)
    return dims


def _of_marks(leaf: LayerRecord, states: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Name the axes of what `mark` has named in a cell."""
    own = next((one for one in leaf.inside if isinstance(one, SolvedRecord)), None)
    state = next((name for name in states if own is not None and name in own.arrays), None)
    if own is None or state is None or not (own.gates or own.marks):
        return {}
    start = 3 if leaf.directions else 2
    found = MarkedSteps(dict(own.arrays), own.gates, own.marks).dims(own.arrays[state], states[state][start:])
    return {name: (*states[state][:start], *axes) for name, axes in found.items()}


def _of_input_and_output(
    arrays: Mapping[str, Array], leaf: LayerRecord, first: bool
) -> dict[str, tuple[str, ...]]:
    dims = {}
    for name in ("input", "input_gradient"):
        if name in arrays and arrays[name].ndim > 3:
            axes = axes_of_state(arrays[name].ndim - 2, channels_first=first)
            # A convolution without padding makes the state smaller than its input.
            dims[name] = (
                "sample",
                "time",
                *("feature" if axis == "channel" else f"input_{axis}" for axis in axes),
            )
    for name in ("output", "output_gradient"):
        if leaf.kind == "conv_lstm" and name in arrays:
            time = ("time",) if leaf.flags.get("return_sequences") else ()
            axes = axes_of_state(arrays[name].ndim - 1 - len(time), channels_first=first)
            dims[name] = ("sample", *time, *axes)
    return dims


def _of_kernels(arrays: Mapping[str, Array], leaf: LayerRecord) -> dict[str, tuple[str, ...]]:
    direction = ("direction",) if leaf.directions else ()
    dims = {}
    for name, entering in (("kernel", "feature"), ("recurrent_kernel", "channel_from"), ("bias", None)):
        for variable in (name, f"{name}_gradient"):
            if variable in leaf.arrays:
                rank = leaf.arrays[variable].ndim - len(direction) - 2
                space = tuple(f"kernel_{axis}" for axis in _SPACE[: rank - 1])
                middle = (*space, entering) if entering else ()
                dims[variable] = (*direction, *middle, "gate", "channel")
    return dims
