"""Every row of the support table against layers unrolled by hand; the certificates of all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.torch.comparison import captured, expected, node, worst
from tests.torch.rows import ROWS, Case, Row

FLAT = 1e-15  # what is 0 up to rounding has no relative error


def as_dtype(case: Case, dtype: torch.dtype) -> Case:
    """Bring a case to another precision; the oracle stays in float64, on the rounded values."""
    from dataclasses import replace

    def cast(value):
        if isinstance(value, torch.Tensor):
            return value.to(dtype) if value.is_floating_point() else value
        if isinstance(value, dict):
            return {name: cast(part) for name, part in value.items()}
        return tuple(cast(part) for part in value)

    return replace(case, model=case.model.to(dtype), x=cast(case.x), y=cast(case.y))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.filterwarnings("ignore:.*torch.nn.utils.weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row_agrees_with_layers_unrolled_by_hand(row: Row, dtype: torch.dtype) -> None:
    case = as_dtype(row.build(), dtype)
    tree, wanted = captured(case), expected(as_dtype(row.build(), dtype))
    assert tree.attrs["order_of_calls"] == ", ".join(case.paths)
    assert {leaf.path.strip("/") for leaf in tree.leaves} == set(case.paths)
    assert set(wanted) == set(case.paths)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for path, leaf in wanted.items():
        if (
            case.changed
        ):  # the state is halved on its way: half of what the next call hands back is not asked here
            handed_back = leaf["hidden_gradient"] - leaf["output_gradient"]
            leaf["output_gradient"] = leaf["hidden_gradient"] - handed_back / 2
        missing = set(leaf) - set(node(tree, path).data_vars)
        unreached = {name for name in missing if not np.abs(leaf[name]).max() > FLAT}
        assert missing == unreached, path
    error, place = worst(tree, wanted)
    assert error <= tolerance, place
    for path in case.paths:
        certificates = node(tree, path)[["certificate_weights", "certificate_time"]].to_array()
        assert float(certificates.max()) <= tolerance
        factor = float(node(tree, path)["reduction_factor"])
        assert factor == pytest.approx(case.factor or 1.0)
    assert tree.attrs["loss_reduction"].startswith("couples") == (case.factor is None)
