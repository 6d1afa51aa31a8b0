"""Every row of the support table against layers unrolled by hand, in graph mode; all certificates."""

from __future__ import annotations

import pytest
from tests.tf_keras.comparison import check
from tests.tf_keras.rows import ROWS, Row, runs

IN_GRAPHS = [row for row in ROWS if not row.eager_only]


@pytest.mark.parametrize(("row", "dtype"), runs(IN_GRAPHS, IN_GRAPHS[::3]))
def test_row_agrees_with_layers_unrolled_by_hand(row: Row, dtype: str) -> None:
    check(row, dtype)
