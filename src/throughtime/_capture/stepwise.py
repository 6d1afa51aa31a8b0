"""Gradients from call to call of a layer that a loop calls, and from step to step within each call."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from throughtime import _vocabulary
from throughtime.adapters.records import Array, DirectionRecord, LayerRecord, SolvedRecord

_CARRYING = frozenset({"hidden_gradient", "cell_gradient", "gate_activation"})


def carrying(leaf: LayerRecord, direction: DirectionRecord) -> frozenset[str]:
    """List the quantities that `carried` needs; none if no call has a second step."""
    has_calls = "carried_by_state" in leaf.arrays and max(direction.windows, default=1) > 1
    return _CARRYING if has_calls else frozenset()


def carried(leaf: LayerRecord, direction: DirectionRecord, solved: Mapping[str, Array]) -> dict[str, Array]:
    """Add the gradient from step to step within each call, if a call has a second step.

    The leaf's `carried_by_state` (sample, time, state) is the gradient from call to call; `solved` has the
    quantities of `carrying`.
    """
    if not carrying(leaf, direction):
        return {}
    across = leaf.arrays["carried_by_state"]
    back = solved["hidden_gradient"].copy()
    if direction.output_gradient is not None:
        back -= direction.output_gradient
    sizes = [np.linalg.norm(back, axis=-1)]
    if "cell_gradient" in solved:
        forget = solved["gate_activation"][:, :, _vocabulary.GATES["lstm"].index("forget")]
        later = np.linalg.norm(solved["cell_gradient"] * forget, axis=-1)
        sizes.append(np.concatenate([later[:, 1:], later[:, :1]], 1))
    found = np.stack(sizes, -1).astype(across.dtype)
    ends = np.cumsum(direction.windows) - 1
    found[:, ends] = across[:, ends]
    return {"carried_by_state": found, "carried_gradient": np.sqrt(np.square(found).sum(-1))}


def initial(direction: DirectionRecord | SolvedRecord) -> tuple[Array | None, ...]:
    """Return the states before the first step."""
    if isinstance(direction, DirectionRecord) and direction.windows:
        return tuple(None if state is None else state[:, 0] for state in direction.initial)
    return direction.initial
