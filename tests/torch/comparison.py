"""How a captured tree is compared with the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.torch import oracle
from tests.torch.rows import Case

import throughtime as tt

BATCH_MEAN_STAYS = ("kernel", "recurrent_kernel", "bias", "recurrent_bias", "projection")


def difference(a: Any, b: Any) -> float:
    """‖a − b‖ / ‖b‖ over the whole array; where b is zero, ‖a‖."""
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    assert a.shape == b.shape
    norm = np.linalg.norm(b)
    return float(np.linalg.norm(a - b) / (norm if norm else 1.0))


def expected(case: Case) -> dict[str, dict[str, np.ndarray]]:
    """What the tree has to hold: the oracle's gradients, batch mean undone. Changes the case's model."""
    found = oracle.gradients(case.model, case.x, case.y, case.loss)
    factor = case.factor or 1.0
    for leaf in found.values():
        for name in leaf:
            weight = name.removesuffix("_gradient")
            if name.endswith("_gradient") and weight not in BATCH_MEAN_STAYS:
                leaf[name] = leaf[name] / factor
    return found


def worst(tree: Any, wanted: dict[str, dict[str, np.ndarray]]) -> tuple[float, str]:
    """The largest difference, and where it is."""
    found = [
        (difference(at_valid_steps(node(tree, path), name), array), f"{path} {name}")
        for path, leaf in wanted.items()
        for name, array in leaf.items()
        if name in node(tree, path)
    ]
    return max(found)


CARRIED = ("hidden", "hidden_gradient", "cell", "cell_gradient", "gate_activation")


def at_valid_steps(leaf: Any, name: str) -> Any:
    """Take what a layer's inside has past the end of a sequence, where states are carried on, for 0."""
    return leaf[name].where(leaf["valid"], 0.0).transpose(*leaf[name].dims) if name in CARRIED else leaf[name]


def node(tree: Any, path: str) -> Any:
    return tree[path].to_dataset()


def captured(case: Case, **options: Any) -> Any:
    return tt.capture(case.model, case.x, case.y, loss=case.loss, **options)
