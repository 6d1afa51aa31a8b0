"""One step of a cell of one's own, with everything that its functions return held against the protocol.

`own` calls these for every step of a capture, `testing.check_cell` for one; what does not fit is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from throughtime._cell import HIDDEN, Arrays, Cell, Given, Pair, StepAdjoint, WeightGradient
from throughtime._errors import CellError

from .layer import Floats, Mask
from .scan import where_valid

Shape = tuple[int, ...]


class _Named(dict[str, Any]):
    """Arrays by name, that tell which there are when one is asked for that is not there."""

    def __init__(self, cell: Cell, what: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._asker, self._what = cell.name, what

    def __missing__(self, name: str) -> Any:
        raise CellError(
            f"Cell {self._asker!r} reads {self._what}[{name!r}]; there is: {', '.join(self) or 'nothing'}."
        )


def given(cell: Cell, weights: Given) -> Given:
    """Weights in float64 and settings as they are, for the cell's functions."""
    prepared = {
        name: value if name in cell.settings else np.asarray(value, np.float64)
        for name, value in weights.items()
    }
    return _Named(cell, "weights", prepared)


def replay(cell: Cell, weights: Given, inputs: Floats, states: Arrays) -> tuple[Arrays, Arrays]:
    """Run one step: the states after it and the activated gates.

    Raises
    ------
    CellError
        The cell's replay returns something else.
    """
    result = cell.replay(weights, inputs, _Named(cell, "states", states))
    if not (isinstance(result, tuple) and len(result) == 2):
        raise CellError(
            f"The replay of cell {cell.name!r} returned a {type(result).__name__}; expected two dicts, "
            f"(states, gates) with the states {', '.join(cell.states)} and the gates "
            f"{', '.join(cell.gates) or 'none: {}'}."
        )
    shapes = {name: values.shape for name, values in states.items()}
    after, gates = result
    return (
        _fitting(cell, "replay", "states", after, shapes),
        _fitting(cell, "replay", "gates", gates, dict.fromkeys(cell.gates, shapes[HIDDEN])),
    )


def adjoint(cell: Cell, weights: Given, inputs: Floats, states: Arrays, gradients: Arrays) -> StepAdjoint:
    """Pull dL/d(states after one step) back to everything that the step reads.

    Raises
    ------
    CellError
        The cell's adjoint returns something else.
    """
    back = cell.adjoint(weights, inputs, _Named(cell, "states", states), _Named(cell, "gradients", gradients))
    if not isinstance(back, StepAdjoint):
        raise CellError(
            f"The adjoint of cell {cell.name!r} returned a {type(back).__name__}; expected a "
            "tt.StepAdjoint(inputs=…, states=…, gates=…, weights=…)."
        )
    shapes = {name: values.shape for name, values in states.items()}
    totals = {name: shape for name, shape in shapes.items() if name in _mapping(cell, "totals", back.totals)}
    return StepAdjoint(
        inputs=_fitting(cell, "adjoint", "inputs", {"inputs": back.inputs}, {"inputs": inputs.shape})[
            "inputs"
        ],
        states=_fitting(cell, "adjoint", "states", back.states, shapes),
        gates=_fitting(cell, "adjoint", "gates", back.gates, dict.fromkeys(cell.gates, shapes[HIDDEN])),
        weights=_weights(cell, weights, len(inputs), back.weights),
        totals=_fitting(cell, "adjoint", "totals", back.totals, totals),
    )


def jacobian(cell: Cell, weights: Given, inputs: Floats, states: Arrays) -> Floats:
    """d(states after one step) / d(states before), (sample, state, state), the states one after another.

    Raises
    ------
    CellError
        The cell has no Jacobian, or it returns something else.
    """
    if cell.jacobian is None:
        raise CellError(
            f"Cell {cell.name!r} has no Jacobian: pass jacobian= to its tt.Cell, a function "
            "(weights, inputs, states) -> ndarray (sample, state, state). tt.testing.check_cell checks it."
        )
    size = sum(values.shape[-1] for values in states.values())
    found = cell.jacobian(weights, inputs, _Named(cell, "states", states))
    expected = {"jacobian": (len(inputs), size, size)}
    return _fitting(cell, "jacobian", "result", {"jacobian": found}, expected)["jacobian"]


def size_of(gradient: WeightGradient) -> Floats:
    """Frobenius norm of each sample's weight gradient (sample,)."""
    if isinstance(gradient, (list, tuple)):  # of rank 1 each: products of lengths
        products = [_squares(left) * _squares(right) for left, right in _pairs(gradient)]
        size: Floats = np.sqrt(np.sum(products, axis=0))
        return size
    return np.sqrt(_squares(gradient.reshape(len(gradient), -1)))


def over_samples(gradient: WeightGradient, valid: Mask | None) -> Floats:
    """Sum each sample's weight gradient, nothing of those that are masked."""
    if isinstance(gradient, (list, tuple)):
        parts = [[where_valid(factor, 0, valid) for factor in pair] for pair in _pairs(gradient)]
        return np.concatenate([left.T @ right for left, right in parts], axis=1)
    total: Floats = where_valid(gradient, 0, valid).sum(axis=0)
    return total


def formed(gradient: WeightGradient) -> Floats:
    """Each sample's weight gradient as an array (sample, …)."""
    if isinstance(gradient, (list, tuple)):
        parts = [left[:, :, None] * right[:, None] for left, right in _pairs(gradient)]
        return np.concatenate(parts, axis=2)
    return gradient


def _pairs(gradient: list[Pair] | Pair) -> list[Pair]:
    return gradient if isinstance(gradient, list) else [gradient]


def _squares(rows: Floats) -> Floats:
    squares: Floats = np.square(rows, dtype=np.float64).sum(-1)
    return squares


def _mapping(cell: Cell, what: str, values: Any) -> Mapping[str, Any]:
    if isinstance(values, Mapping):
        return values
    raise CellError(
        f"{what} from cell {cell.name!r} is a {type(values).__name__}; expected a dict of arrays by name."
    )


def _fitting(
    cell: Cell, function: str, what: str, values: Any, shapes: Mapping[str, Shape]
) -> dict[str, Floats]:
    """Take the arrays that the protocol expects, in its order, or say what is wrong with them."""
    values = _mapping(cell, what, values)
    if values.keys() != shapes.keys():
        raise CellError(
            f"The {function} of cell {cell.name!r} returned {what} named {_list(values)}; expected "
            f"{_list(shapes)}. The names are those of {_declaration(what)} in its tt.Cell."
        )
    arrays = {name: np.asarray(values[name]) for name in shapes}
    for name, array in arrays.items():
        if array.shape != shapes[name] or array.dtype.kind not in "fiu":
            where = what if what in (name, "result") else f"{what}[{name!r}]"
            raise CellError(
                f"The {function} of cell {cell.name!r} returned {where} as {array.dtype} with shape "
                f"{array.shape}; expected floats with shape {shapes[name]}, samples first."
            )
    return arrays


def _declaration(what: str) -> str:
    return "gates" if what == "gates" else "states"


def _list(names: Any) -> str:
    return ", ".join(map(repr, names)) or "none"


def _weights(cell: Cell, weights: Given, samples: int, found: Any) -> dict[str, WeightGradient]:
    found = _mapping(cell, "weights", found)
    own = [name for name in weights if name not in cell.settings]
    unknown = [name for name in found if name not in own]
    if unknown:
        raise CellError(
            f"The adjoint of cell {cell.name!r} returned gradients of weights {_list(unknown)}; the layer "
            f"has {_list(own)}."
        )
    if cell.recurrent_weight is not None and cell.recurrent_weight not in found:
        raise CellError(
            f"recurrent_weight of cell {cell.name!r} is {cell.recurrent_weight!r}, of which its adjoint "
            f"returns no gradient. It returns {_list(found)}, and the layer has {_list(own)}."
        )
    return {name: _weight(cell, name, weights[name].shape, samples, found[name]) for name in found}


def _weight(cell: Cell, name: str, shape: Shape, samples: int, gradient: Any) -> WeightGradient:
    """One array with a sample axis, or outer products by their factors, always as a list."""
    if isinstance(gradient, (list, tuple)):
        pairs = [gradient] if isinstance(gradient, tuple) else gradient
        shapes = [tuple(np.shape(factor) for factor in pair) for pair in pairs]
        if len(shape) == 2 and _are_side_by_side(shapes, samples, shape):
            return [(np.asarray(left), np.asarray(right)) for left, right in pairs]
        raise _misshapen(cell, name, shape, samples, f"of its factors {shapes}")
    array = np.asarray(gradient)
    if array.shape != (samples, *shape):
        raise _misshapen(cell, name, shape, samples, str(array.shape))
    return array


def _are_side_by_side(shapes: Sequence[tuple[Shape, ...]], samples: int, shape: Shape) -> bool:
    """Whether pairs of factors make up a weight (rows, columns)."""
    if not all(len(pair) == 2 and len(pair[1]) == 2 for pair in shapes):
        return False
    rows = {pair[0] for pair in shapes} | {(samples, shape[0])}
    columns = {pair[1][0] for pair in shapes} | {samples}
    return len(rows) == len(columns) == 1 and sum(pair[1][1] for pair in shapes) == shape[1]


def _misshapen(cell: Cell, name: str, shape: Shape, samples: int, got: str) -> CellError:
    as_pair = f", or a pair {samples, shape[0]} and {samples, shape[1]}" if len(shape) == 2 else ""
    return CellError(
        f"The adjoint of cell {cell.name!r} returned weights[{name!r}] with shape {got}; expected "
        f"{(samples, *shape)}, each sample's share{as_pair}."
    )
