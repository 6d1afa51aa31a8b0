"""The certificate of a captured layer: whether what was solved sums to the framework's own gradients.

`cells` compares and has the bars; this applies it to the record of a layer and notes where it fails.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from throughtime import _vocabulary, cells
from throughtime.adapters.records import Array, DirectionRecord, LayerRecord, ModelRecord, SolvedRecord

Warn = Callable[[str], object]
Direction = TypeVar("Direction", DirectionRecord, SolvedRecord)
_LETS_PASS = np.errstate(invalid="ignore", over="ignore")  # values that are not finite
_CONTINUES = (
    "more rounding than usual, as in chaotic networks and near saturated gates; diagnostics continue with a "
    "note up to {limit}"
)
_REFUSED = (
    "its gradients inside the layer do not reproduce what the framework computed, and beyond {limit} "
    "diagnostics will refuse them"
)
_NOT_FINITE = "values of the layer are not finite, and tt.diagnostics.first_nonfinite names the first one"


@_LETS_PASS
def certificate(
    leaf: LayerRecord, direction: DirectionRecord | SolvedRecord, solved: dict[str, Array]
) -> dict[str, Array]:
    """Return the errors of weights, of input gradients by step, and of the output where it was compared."""
    dtype = str(leaf.flags["dtype"])
    errors = _errors(direction, solved, dtype, None)
    has_terms = isinstance(direction, DirectionRecord) or direction.kernel is not None
    is_above = any(error > cells.bar(dtype) for error in errors)
    if is_above and has_terms and "gate_gradient" in solved and not leaf.gates:
        states = map(solved.get, ("hidden_gradient", "cell_gradient"))
        errors = _errors(direction, solved, dtype, cells.step_sizes(solved["gate_gradient"], *states))
    found = dict(zip(("certificate_weights", "certificate_time"), map(np.asarray, errors), strict=True))
    if isinstance(direction, SolvedRecord) and direction.output_error is not None:
        found["certificate_output"] = np.asarray(direction.output_error)
    return found


def _errors(
    direction: DirectionRecord | SolvedRecord, solved: dict[str, Array], dtype: str, sizes: Array | None
) -> tuple[float, float]:
    """Compare weights and time; with sizes of steps rounding counts by the terms that it comes from."""
    terms = _terms(direction, solved, sizes)
    weights = cells.certificate_weights(solved, direction.weight_gradients, terms=terms, dtype=dtype)
    if direction.input_gradient is None or "input_gradient" not in solved:
        return weights, np.nan
    kernel = direction.kernel if isinstance(direction, SolvedRecord) else direction.weights.get("kernel")
    of_time = 0.0 if kernel is None or sizes is None else cells.input_terms(sizes, kernel)
    back = solved["input_gradient"], direction.input_gradient
    return weights, cells.certificate_time(*back, terms=of_time, dtype=dtype)


def _terms(
    direction: DirectionRecord | SolvedRecord, solved: dict[str, Array], sizes: Array | None
) -> dict[str, float]:
    """Return the sizes of the terms in the gradient of a weight."""
    if "step_contribution" not in solved:
        return {}
    contribution = solved["step_contribution"]
    if sizes is None:
        return {"recurrent_kernel_gradient": float(contribution.sum())}
    if isinstance(direction, SolvedRecord):
        inputs, before = solved.get("input"), direction.hidden_before
    else:
        inputs = direction.inputs
        before = cells.states_before(direction.hidden, runs_backward=direction.runs_backward)
    if inputs is None or before is None:
        return {"recurrent_kernel_gradient": float(contribution.sum())}
    return cells.summed_terms(sizes, contribution, before, inputs)


def certified(record: ModelRecord, warn: Warn) -> ModelRecord:
    """Note certificates above their bars, with a warning."""
    return replace(record, layers=tuple(_certified(leaf, warn) for leaf in record.layers))


def _certified(leaf: LayerRecord, warn: Warn) -> LayerRecord:
    parts = [leaf.arrays[name] for name in _vocabulary.CERTIFICATES if name in leaf.arrays]
    values = (value for part in parts for value in part.ravel().tolist())
    worst = max((value for value in values if not np.isnan(value)), default=0.0)
    dtype = str(leaf.flags["dtype"]) if parts else "float32"
    if worst <= cells.bar(dtype):
        return leaf
    limit = cells.limit(dtype)
    end = _CONTINUES if worst <= limit else _REFUSED if _is_finite(leaf) else _NOT_FINITE
    note = f"{worst:.1e}, above {cells.bar(dtype):.0e}: {end.format(limit=f'{limit:.0e}')}"
    warn(f"The certificate of {leaf.path} is {note}.")
    return replace(leaf, flags={**leaf.flags, "certificate": note})


def _is_finite(leaf: LayerRecord) -> bool:
    """Whether nothing is infinite, and no weight or gradient of it NaN; masked steps are NaN."""
    for name, array in leaf.arrays.items():
        if array.dtype.kind == "f" and name not in _vocabulary.CERTIFICATES:
            is_weight = "kernel" in name or "bias" in name
            if np.isinf(array).any() or (is_weight and np.isnan(array).any()):
                return False
    return True


@_LETS_PASS
def with_sums(
    direction: SolvedRecord, solved: dict[str, Array], sides: tuple[Array, Array] | None
) -> tuple[SolvedRecord, dict[str, Array]]:
    """Add gradients of weights and input along directions, where they follow from those of gates."""
    if sides is None or direction.kernel is None or "kernel_gradient" in solved:
        return direction, solved
    return along(direction), {**solved, **cells.sums_along(solved, *sides, direction.kernel)}


@_LETS_PASS
def along(direction: Direction) -> Direction:
    """Sum the framework's gradients of kernels and inputs along directions."""
    given, weights = direction.input_gradient, direction.weight_gradients.items()
    return replace(
        direction,
        weight_gradients={
            name: cells.along_directions(one) if "kernel" in name else one for name, one in weights
        },
        input_gradient=None if given is None else cells.along_directions(given, 2),
    )
