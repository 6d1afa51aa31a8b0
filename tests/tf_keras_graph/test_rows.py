"""Every row of the support table against layers unrolled by hand, in graph mode; all certificates."""

from __future__ import annotations

import pytest
from tests.tf_keras.comparison import check
from tests.tf_keras.rows import ROWS, Row

IN_GRAPHS = [row for row in ROWS if not row.eager_only]


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("row", IN_GRAPHS, ids=lambda row: row.name)
def test_row_agrees_with_layers_unrolled_by_hand(row: Row, dtype: str) -> None:
    check(row, dtype)
