"""Completes the record of a layer with states, gates, their gradients and the certificate, solved by `cells`.

The adapter provides the results of the layer's kernel for each direction; nothing here knows a framework.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from throughtime import _vocabulary, cells
from throughtime._capture.certificate import along, certificate, with_sums
from throughtime._inputs.structures import mapped
from throughtime.adapters.records import Array, DirectionRecord, LayerRecord, ModelRecord, SolvedRecord

_SOLVED = frozenset(_vocabulary.INSIDE)
_LSTM_ONLY = frozenset({"cell", "cell_gradient", "initial_cell_gradient"})
_GATED_ONLY = frozenset({"gate_activation"})
_BESIDE = frozenset({"certificate", "carried_gradient"})
_FROM_WEIGHTS = "tt.diagnostics.state_jacobian computes it from the weights and the states"
_NOT_RETURNED = "the cell does not return it while it is unrolled"
_CARRYING = frozenset({"hidden_gradient", "cell_gradient", "gate_activation"})


@np.errstate(over="ignore")  # what overflows is found as such
def per_sample(leaf: LayerRecord, factor: float | None) -> LayerRecord:
    """Undo the factor of the loss on each sample, 1/B for a mean, in all gradients except those of weights.

    All solved gradients are linear in these and thus scaled as well.
    """
    if factor is None or factor == 1.0:
        return leaf
    scaled = _Scaled(1.0 / factor)
    arrays: dict[str, Any] = {
        name: scaled(one) if name in _vocabulary.PER_SAMPLE else one for name, one in leaf.arrays.items()
    }
    return replace(leaf, arrays=arrays, inside=tuple(_direction_scaled(one, scaled) for one in leaf.inside))


class _Scaled:
    """Multiplies arrays by a factor, each once: a layer and its directions share some."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._done: dict[Any, Array] = {}

    def __call__(self, array: Array | None) -> Array | None:
        if array is None:
            return None
        key = (array.__array_interface__["data"], array.shape, array.strides)
        if key not in self._done:
            self._done[key] = array * array.dtype.type(self._factor)
        return self._done[key]


def _direction_scaled(
    direction: DirectionRecord | SolvedRecord, scaled: _Scaled
) -> DirectionRecord | SolvedRecord:
    names = [each.name for each in fields(direction) if each.name.endswith(("_gradient", "_gradients"))]
    changed: dict[str, Any] = {name: mapped(scaled, getattr(direction, name)) for name in names}
    if isinstance(direction, SolvedRecord):
        arrays = direction.arrays.items()
        changed["arrays"] = {name: scaled(one) if name.endswith("_gradient") else one for name, one in arrays}
    return replace(direction, **changed)


def apart(record: ModelRecord) -> ModelRecord:
    """Copy the weights and the batch, which the model may change before layers are solved."""
    leaves = (replace(leaf, inside=tuple(map(_apart, leaf.inside))) for leaf in record.layers)
    return replace(record, layers=tuple(leaves))


def _apart(direction: DirectionRecord | SolvedRecord) -> DirectionRecord | SolvedRecord:
    if isinstance(direction, SolvedRecord):
        return direction
    weights = {name: array.copy() for name, array in direction.weights.items()}
    inputs = direction.inputs
    return replace(direction, weights=weights, inputs=inputs if inputs.flags.owndata else inputs.copy())


def with_inside(leaf: LayerRecord, wanted: frozenset[str]) -> LayerRecord:
    """Add the requested quantities of a recurrent layer; others are unchanged."""
    inside = wanted & (_SOLVED | _BESIDE)
    if not inside or not leaf.inside:
        return replace(leaf, inside=())
    if isinstance(leaf.inside[0], SolvedRecord):
        leaf = replace(leaf, gates=leaf.inside[0].gates, marks=leaf.inside[0].marks)
    absent = _absent(leaf)
    solved = [
        _taken(leaf, direction, inside)
        if isinstance(direction, SolvedRecord)
        else _solve(leaf, direction, inside.difference(absent))
        for direction in leaf.inside
    ]
    # Removed one by one: both directions and their join would need twice the memory.
    known = _vocabulary.words(leaf.states, leaf.marks)
    arrays = {
        name: np.stack([one.pop(name) for one in solved], axis=known[name].dims.index("direction"))
        if leaf.directions
        else solved[0].pop(name)
        for name in list(solved[0])
    }
    if "hidden" in wanted:
        arrays |= _initial_states(leaf)
    there = {_word(leaf, name) for name in arrays}
    missing = {name: absent.get(name, _NOT_RETURNED) for name in inside - there - _BESIDE}
    # Without the large arrays from which it was solved.
    return replace(leaf, arrays={**leaf.arrays, **arrays}, missing={**missing, **leaf.missing}, inside=())


def _absent(leaf: LayerRecord) -> dict[str, str]:
    """Return the quantities that a layer of this kind lacks, with reasons."""
    if leaf.kind in _vocabulary.STANDARD_KINDS:
        names = {"lstm": frozenset(), "gru": _LSTM_ONLY}.get(leaf.kind, _LSTM_ONLY | _GATED_ONLY)
        has = ", ".join(name for name in _vocabulary.INSIDE if name not in names | _vocabulary.ON_REQUEST)
        reasons = dict.fromkeys(names, f"a {leaf.kind} has none, only {has}")
        return {**reasons, "state_jacobian": _FROM_WEIGHTS}
    if leaf.kind == "conv_lstm":
        return {"step_contribution": "the step's share of a convolution's kernel is not kept apart"}
    cell, states = leaf.flags.get("cell_class", leaf.kind), ", ".join(leaf.states)
    reason = f"a {cell} shows its states, {states}, and what tt.mark names in it"
    return dict.fromkeys(_SOLVED, reason)


def _initial_states(leaf: LayerRecord) -> dict[str, Array]:
    """Return passed states before step 0 that are not 0."""
    names = leaf.states or ("hidden", "cell")
    arrays = {}
    for name, *given in zip(names, *map(_initial, leaf.inside), strict=False):
        known = [array for array in given if array is not None]
        if any(array.any() for array in known):
            filled = [np.zeros_like(known[0]) if array is None else array for array in given]
            arrays[f"initial_{name}"] = np.stack(filled, axis=1) if leaf.directions else filled[0]
    return arrays


def _taken(leaf: LayerRecord, direction: SolvedRecord, wanted: frozenset[str]) -> dict[str, Array]:
    """Select the wanted quantities that the framework has computed."""
    solved, sides = dict(direction.arrays), None
    if direction.hidden_before is not None and "gate_gradient" in solved:
        sides = cells.on_recurrent_side(
            direction.hidden_before,
            solved["gate_gradient"],
            solved.get("gate_activation"),
            kind=leaf.kind,
            reset_after=bool(leaf.flags.get("reset_after", 1)),
        )
        solved["step_contribution"] = cells.step_contribution(*sides)
    arrays = {name: array for name, array in solved.items() if _word(leaf, name) in wanted & _SOLVED}
    if "certificate" in wanted:
        arrays.update(certificate(leaf, *with_sums(direction, solved, sides)))
    return arrays


def _word(leaf: LayerRecord, name: str) -> str:
    """Return the quantity with which a variable is captured: marked tensors with the gates."""
    if name.removesuffix("_gradient") in leaf.marks:
        return "gate_gradient" if name.endswith("_gradient") else "gate_activation"
    return _vocabulary.as_known(name, leaf.states)


def _solve(leaf: LayerRecord, direction: DirectionRecord, wanted: frozenset[str]) -> dict[str, Array]:
    needed = kept = wanted & _SOLVED
    if "certificate" in wanted:
        needed |= {"input_gradient", "gate_gradient", "step_contribution", *direction.weight_gradients}
        needed |= {"hidden_gradient", "cell_gradient"}
    needed |= _carrying(leaf, direction).difference(_absent(leaf))
    direction = replace(along(direction), along_directions=True)
    layer = cells.Layer.of(direction.weights, {**leaf.flags, "kind": leaf.kind})
    with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite remain
        solved = cells.solve(layer, direction, needed)
    arrays = {name: solved[name] for name in kept} | _carried(leaf, direction, solved)
    for name, past in zip(("hidden", "cell"), direction.initial_gradients, strict=False):
        if past is not None and (initial := f"initial_{name}_gradient") in arrays:
            arrays[initial] = arrays[initial] + past
    if "certificate" in wanted:
        arrays.update(certificate(leaf, direction, solved))
    return arrays


def _carrying(leaf: LayerRecord, direction: DirectionRecord) -> frozenset[str]:
    """List the quantities that `carried` needs; none if no call has a second step."""
    has_calls = "carried_by_state" in leaf.arrays and max(direction.windows, default=1) > 1
    return _CARRYING if has_calls else frozenset()


def _carried(leaf: LayerRecord, direction: DirectionRecord, solved: Mapping[str, Array]) -> dict[str, Array]:
    """Add the gradient from step to step within each call, if a call has a second step.

    The leaf's `carried_by_state` (sample, time, state) is the gradient from call to call; `solved` has the
    quantities of `carrying`.
    """
    if not _carrying(leaf, direction):
        return {}
    across = leaf.arrays["carried_by_state"]
    back = solved["hidden_gradient"].copy()
    if direction.output_gradient is not None:
        back -= direction.output_gradient
    sizes = [np.sqrt(cells.squared_norm(back))]
    if "cell_gradient" in solved:
        forget = solved["gate_activation"][:, :, _vocabulary.GATES["lstm"].index("forget")]
        later = np.sqrt(cells.squared_norm(solved["cell_gradient"] * forget))
        sizes.append(np.concatenate([later[:, 1:], later[:, :1]], 1))
    found = np.stack(sizes, -1).astype(across.dtype)
    ends = np.cumsum(direction.windows) - 1
    found[:, ends] = across[:, ends]
    return {"carried_by_state": found, "carried_gradient": np.hypot.reduce(found, -1)}


def _initial(direction: DirectionRecord | SolvedRecord) -> tuple[Array | None, ...]:
    """Return the states before the first step."""
    if isinstance(direction, DirectionRecord) and direction.windows:
        return tuple(None if state is None else state[:, 0] for state in direction.initial)
    return direction.initial
