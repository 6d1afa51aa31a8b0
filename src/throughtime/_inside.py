"""Completes a layer's record by what `cells` solves: states, gates, their gradients, the certificate.

The adapter says what the layer's kernel computed, for each direction; nothing here knows a framework.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from throughtime import _schema, cells
from throughtime._errors import ThroughTimeWarning
from throughtime._record import Array, DirectionRecord, LayerRecord

_SOLVED = frozenset(_schema.INSIDE)
_LSTM_ONLY = frozenset({"cell", "cell_gradient", "initial_cell_gradient"})
_GATED_ONLY = frozenset({"gate_activation"})


def per_sample(leaf: LayerRecord, factor: float | None) -> LayerRecord:
    """Undo what the loss puts on each sample, 1/B for a mean, in all gradients but the weights'.

    What is solved from them is linear in them: scaling here is scaling everywhere.
    """
    if factor is None or factor == 1.0:
        return leaf
    arrays = {
        name: _scaled(array, factor) if name in _schema.PER_SAMPLE else array
        for name, array in leaf.arrays.items()
    }
    return replace(
        leaf, arrays=arrays, inside=tuple(_direction_per_sample(one, factor) for one in leaf.inside)
    )


def _direction_per_sample(direction: DirectionRecord, factor: float) -> DirectionRecord:
    gradients = direction.weight_gradients
    return replace(
        direction,
        weight_gradients={name: _scaled(array, factor) for name, array in gradients.items()},
        output_gradient=_scaled_or_none(direction.output_gradient, factor),
        input_gradient=_scaled_or_none(direction.input_gradient, factor),
        final_gradients=tuple(_scaled_or_none(array, factor) for array in direction.final_gradients),
    )


def _scaled(array: Array, factor: float) -> Array:
    scaled: Array = array * array.dtype.type(1.0 / factor)
    return scaled


def _scaled_or_none(array: Array | None, factor: float) -> Array | None:
    return None if array is None else _scaled(array, factor)


def with_inside(leaf: LayerRecord, wanted: frozenset[str]) -> LayerRecord:
    """Add what was asked for of a layer's inside; unchanged where there is none.

    Warns
    -----
    ThroughTimeWarning
        The certificate is above its bar: what was solved is not what the framework computed.
    """
    inside = wanted & (_SOLVED | {"certificate"})
    if not inside or not leaf.inside:
        return leaf
    unknown = _unknown_activation(leaf)
    if unknown:
        return replace(leaf, missing={**leaf.missing, "inside": unknown})
    possible = inside - _absent(leaf)
    absent = dict.fromkeys(inside - possible, f"a {leaf.kind} has none")
    solved = [_solve(leaf, direction, possible) for direction in leaf.inside]
    arrays = {
        name: np.stack([one[name] for one in solved], axis=_direction_axis(name))
        if leaf.directions
        else solved[0][name]
        for name in solved[0]
    }
    _warn_of_certificate(leaf, arrays)
    return replace(leaf, arrays={**leaf.arrays, **arrays}, missing={**leaf.missing, **absent})


def _unknown_activation(leaf: LayerRecord) -> str:
    names = [leaf.flags[key] for key in ("activation", "recurrent_activation") if key in leaf.flags]
    unknown = [str(name) for name in names if cells.activation(str(name)) is None]
    return f"there is no closed form for the activation {', '.join(unknown)}" if unknown else ""


def _absent(leaf: LayerRecord) -> frozenset[str]:
    if leaf.kind == "lstm":
        return frozenset()
    return _LSTM_ONLY if leaf.kind == "gru" else _LSTM_ONLY | _GATED_ONLY


def _direction_axis(name: str) -> int:
    return _schema.VARIABLES[name].dims.index("direction")


def _solve(leaf: LayerRecord, direction: DirectionRecord, wanted: frozenset[str]) -> dict[str, Array]:
    needed = wanted & _SOLVED
    if "certificate" in wanted:
        needed |= {"input_gradient", "step_contribution", *direction.weight_gradients}
    layer = cells.Layer(
        kind=leaf.kind,
        kernel=direction.weights["kernel"],
        recurrent_kernel=direction.weights["recurrent_kernel"],
        bias=direction.weights.get("bias"),
        recurrent_bias=direction.weights.get("recurrent_bias"),
        activation=str(leaf.flags["activation"]),
        recurrent_activation=str(leaf.flags.get("recurrent_activation", "sigmoid")),
        reset_after=bool(leaf.flags.get("reset_after", 1)),
    )
    hidden, cell = (*direction.initial, None)[:2]
    final_hidden, final_cell = (*direction.final_gradients, None)[:2]
    passed = cells.Pass(
        inputs=direction.inputs,
        hidden=direction.hidden,
        output_gradient=direction.output_gradient,
        valid=direction.valid,
        zero_output=direction.zero_output,
        runs_backward=direction.runs_backward,
        initial_hidden=hidden,
        initial_cell=cell,
        final_hidden_gradient=final_hidden,
        final_cell_gradient=final_cell,
    )
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is shown as it is
        solved = cells.solve(layer, passed, needed)
    arrays = {name: solved[name] for name in wanted & _SOLVED}
    if "certificate" in wanted:
        arrays.update(_certificate(leaf, direction, solved))
    return arrays


def _certificate(leaf: LayerRecord, direction: DirectionRecord, solved: dict[str, Array]) -> dict[str, Array]:
    dtype = str(leaf.flags["dtype"])
    weights = cells.certificate_weights(
        solved, direction.weight_gradients, contribution=solved["step_contribution"], dtype=dtype
    )
    time = np.nan
    if direction.input_gradient is not None:
        time = cells.certificate_time(solved["input_gradient"], direction.input_gradient, dtype=dtype)
    return {"certificate_weights": np.asarray(weights), "certificate_time": np.asarray(time)}


def _warn_of_certificate(leaf: LayerRecord, arrays: dict[str, Array]) -> None:
    bar = cells.bar(str(leaf.flags["dtype"]))
    parts = [arrays[name] for name in ("certificate_weights", "certificate_time") if name in arrays]
    worst = max((float(np.nanmax(part)) for part in parts if not np.isnan(part).all()), default=0.0)
    if worst > bar:
        warnings.warn(
            f"The certificate of {leaf.path} is {worst:.1e}, above {bar:.0e}: its gradients inside the layer "
            "do not reproduce what the framework computed, and diagnostics will refuse them.",
            ThroughTimeWarning,
            stacklevel=6,
        )
