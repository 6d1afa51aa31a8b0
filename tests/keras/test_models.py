"""Rows of the support table whose oracle is another model, and what a capture says of unusual models."""

from __future__ import annotations

from typing import Any

import pytest
from tests.keras.comparison import difference
from tests.matrix import SPECIALS, Built, Row

import throughtime as tt
from throughtime import _schema
from throughtime.cells import bar

BY_TWIN = [row for row in SPECIALS if row.oracle == "twin"]


def name_of(row: Row) -> str:
    return row.name


def capture(built: Built) -> Any:
    model, x, y, options = built
    return tt.capture(model, x, y, **options.capture)


def differences(leaf: Any, twin: Any, scale: float) -> dict[str, float]:
    """Relative difference of every variable that measures something."""
    told = ("certificate", "loss", "reduction_factor", "underflow", "valid")
    names = [name for name in twin.data_vars if not str(name).startswith(told)]
    scales = dict.fromkeys(_schema.PER_SAMPLE, scale)
    return {name: difference(leaf[name].values, twin[name].values * scales.get(name, 1.0)) for name in names}


@pytest.mark.parametrize("row", BY_TWIN, ids=name_of)
def test_tree_equals_that_of_its_twin(row: Row) -> None:
    built = row.build("float32")
    options = built[3]
    tree, twin = capture(built), capture(options.twin)
    for expected in options.leaves:
        leaf = tree[expected.path].to_dataset()
        found = differences(leaf, twin[expected.path].to_dataset(), options.twin_scale)
        assert {"hidden_gradient", "output_gradient", "kernel_gradient"} <= found.keys()
        assert {name: value for name, value in found.items() if value > options.tolerance} == {}
        allowed = bar(leaf.attrs["dtype"])
        for part in ("certificate_weights", "certificate_time"):
            assert float(leaf[part].max()) <= allowed, part
