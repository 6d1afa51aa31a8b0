"""Parts a layer into its leaves: one, or several where it holds stacked cells, or two unlike halves.

The cells of one layer share a loop; each gets a separate leaf, with the input and the output that pass
between them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from throughtime._vocabulary import DIRECTIONS
from throughtime.adapters.marking import MarkedSteps
from throughtime.adapters.records import Array, DirectionRecord, LayerRecord, SolvedRecord

from . import attributes, weights
from . import cell as cells
from .cell import GATED
from .contracts import Layer
from .dialect import Dialect
from .library import halves, is_a
from .weights import Readers

Inside = DirectionRecord | SolvedRecord
_OUTSIDE = ("input", "input_gradient", "output", "output_gradient", "underflow", "valid")
_BETWEEN = "it passes between the cells of one layer; ask for hidden_gradient as well, without Bidirectional"
_SPACE = ("row", "column", "depth")
_OF_STATE = ("hidden", "cell")


@dataclass(frozen=True)
class Whole:
    """A layer that is to be parted, if it is recurrent."""

    keras: Dialect
    layer: Layer
    record: LayerRecord  # the layer's, without its inside
    own: Readers  # readers of weights and their gradients
    # each half's cells, none where not looked into; None where nothing ran
    inside: Sequence[Sequence[Inside]] | None

    def leaves(self) -> tuple[LayerRecord, ...]:
        """Make the leaves."""
        whole, each, inside = self.record, halves(self.layer), self.inside or []
        first = each[0]
        if not is_a(first, "RNN"):
            return (whole,)
        stacks = [cells.inner_cells(half.cell) for half in each]
        if stacks[0][0] is not first.cell:
            return tuple(self._of_stack(first, *stack) for stack in enumerate(zip(*stacks, strict=True)))
        if len(each) > 1 and not whole.directions and self.inside != []:
            both = zip(DIRECTIONS, each, inside or [[], []], strict=True)
            return (whole, *(self._of_half(*half) for half in both))
        solved = replace(whole, inside=tuple(records[0] for records in inside))
        leaf = _with_own_axes(solved, first, first.cell, weights.kind(first))
        return (replace(leaf, dims={**leaf.dims, **whole.dims}),)

    def _of_half(self, name: str, half: Layer, inside: Sequence[Inside]) -> LayerRecord:
        """Make `both@forward` or `both@backward` of a Bidirectional over two different layers."""
        keras, whole = self.keras, self.record
        arrays = {"valid": whole.arrays["valid"]} if "valid" in whole.arrays else {}
        for suffix, read in self.own.items():
            arrays |= weights.named(half, read, suffix)
        flags = {**attributes.of_cell(keras, half.cell), "go_backwards": int(half.go_backwards)}
        kind = weights.kind(half)
        leaf = replace(
            whole,
            path=f"{whole.path}@{name}",
            kind=kind,
            arrays=arrays,
            flags={**whole.flags, **flags},
            missing={},
            inside=tuple(inside),
        )
        return _with_own_axes(leaf, half, half.cell, kind)

    def _of_stack(self, layer: Layer, place: int, parts: Sequence[Layer]) -> LayerRecord:
        """Make `rnn/<place>` of an RNN over stacked cells, one of each half of a Bidirectional."""
        keras, whole, inside = self.keras, self.record, self.inside or []
        arrays, missing = _outside(whole, inside, place, len(cells.inner_cells(layer.cell)))
        for suffix, read in self.own.items():
            first, *rest = (weights.of_cell(cell, read, suffix) for cell in parts)
            arrays |= {
                name: np.stack([array, *(other[name] for other in rest)]) if rest else array
                for name, array in first.items()
            }
        kind = cells.standard_kind(parts[0]) or "rnn"
        leaf = replace(
            whole,
            path=f"{whole.path}/{place}",
            kind=kind,
            arrays=arrays,
            directions=DIRECTIONS if len(parts) > 1 else (),
            flags={**whole.flags, **attributes.of_cell(keras, parts[0])},
            missing=missing,
            inside=tuple(records[place] for records in inside),
        )
        return _with_own_axes(leaf, layer, parts[0], kind)


def _outside(
    whole: LayerRecord, inside: Sequence[Sequence[Inside]], place: int, count: int
) -> tuple[dict[str, Array], dict[str, str]]:
    """Input and output of one cell: the layer's own at the ends, between them what the loop saw."""
    kept = {name: whole.arrays[name] for name in _OUTSIDE if name in whole.arrays}
    missing = {name: reason for name, reason in whole.missing.items() if name in (*_OUTSIDE, "inside")}
    if place + 1 < count:
        kept.pop("underflow", None)  # of the gradient of the layer's own output
    between = [("input", place)] * (place > 0) + [("output", place + 1)] * (place + 1 < count)
    for side, source in between:
        for suffix in ("", "_gradient"):
            name = side + suffix
            missing.pop(name, None)
            if kept.pop(name, None) is None and name not in whole.missing:
                continue
            record = inside[0][source] if len(inside) == 1 else None
            if isinstance(record, SolvedRecord) and f"input{suffix}" in record.arrays:
                kept[name] = record.arrays[f"input{suffix}"]
            else:
                missing[name] = _BETWEEN
    return kept, missing


def _with_own_axes(leaf: LayerRecord, layer: Layer, cell: Layer, kind: str) -> LayerRecord:
    """Add the names of states, and axes, for which the schema has no words, of a cell of this kind."""
    leaf = replace(leaf, states=() if kind in GATED else cells.state_names(cell))
    channels_first = str(getattr(layer, "data_format", "")) == "channels_first"
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


def _axes_of_state(rank: int, channels_first: bool) -> tuple[str, ...]:
    """Name the axes of one state: `unit`, or row, column and depth with `channel`."""
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
        axes = _axes_of_state(len(shape), first)
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
            axes = _axes_of_state(arrays[name].ndim - 2, first)
            # A convolution without padding makes the state smaller than its input.
            dims[name] = (
                "sample",
                "time",
                *("feature" if axis == "channel" else f"input_{axis}" for axis in axes),
            )
    for name in ("output", "output_gradient"):
        if leaf.kind == "conv_lstm" and name in arrays:
            time = ("time",) if leaf.flags.get("return_sequences") else ()
            axes = _axes_of_state(arrays[name].ndim - 1 - len(time), first)
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
