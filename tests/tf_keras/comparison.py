"""How a captured tree is compared with the oracle, in either mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.tf_keras import oracle
from tests.tf_keras.legacy import computing_in
from tests.tf_keras.rows import Case, Row

import throughtime as tt

BATCH_MEAN_STAYS = "weights"
TOLERANCES = {"float64": 1e-12, "float32": 1e-5}
NOT_PER_SAMPLE = (
    "kernel_gradient",
    "recurrent_kernel_gradient",
    "bias_gradient",
    "recurrent_bias_gradient",
    "rate_gradient",
)


def difference(a: Any, b: Any) -> float:
    """‖a − b‖ / ‖b‖ over the whole array; where b is zero, ‖a‖."""
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    assert a.shape == b.shape
    norm = np.linalg.norm(b)
    return float(np.linalg.norm(a - b) / (norm if norm else 1.0))


def expected(case: Case) -> dict[str, dict[str, np.ndarray]]:
    """What the tree has to hold: the oracle's gradients, batch mean undone."""
    found = oracle.gradients(case)
    factor = case.factor or 1.0
    return {
        path: {name: array if is_a_weights(name) else array / factor for name, array in leaf.items()}
        for path, leaf in found.items()
    }


def is_a_weights(name: str) -> bool:
    return not name.startswith(("input", "output", "hidden", "cell", "gate_gradient", "initial"))


def captured(case: Case, **options: Any) -> Any:
    return tt.capture(case.model, case.x, case.y, **{**case.options, **options})


def check(row: Row, dtype: str) -> None:
    """Hold a row's tree against the oracle, and its certificate against its bar."""
    with computing_in(dtype):
        case = row.build()
        tree, wanted = captured(case), expected(case)
    assert tree.attrs["order_of_calls"] == ", ".join(case.layers)
    assert {leaf.path.strip("/") for leaf in tree.leaves} == set(case.layers)
    for path, leaf in wanted.items():
        node = tree[path].to_dataset()
        for name, array in leaf.items():
            if name not in node:
                assert np.abs(array).max() < 1e-15, (path, name)
                continue
            assert difference(node[name], array) <= TOLERANCES[dtype], (path, name)
        certificates = node[["certificate_weights", "certificate_time"]].to_array()
        assert float(certificates.max()) <= TOLERANCES[dtype]
        assert float(node["reduction_factor"]) == pytest.approx(case.factor or 1.0)
    assert tree.attrs["loss_reduction"].startswith("couples") == (case.factor is None)
