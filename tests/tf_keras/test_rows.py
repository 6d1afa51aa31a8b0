"""Every row of the support table against layers unrolled by hand, in eager mode; all certificates."""

from __future__ import annotations

import pytest
from tests.tf_keras.comparison import check
from tests.tf_keras.legacy import keras
from tests.tf_keras.rows import ROWS, Row, runs

# `tf_keras` runs all in float32; what differs in Keras 2.15 shows in float64.
IN_FLOAT32 = ROWS if keras.__name__ == "tf_keras" else ROWS[::3]


@pytest.mark.parametrize(("row", "dtype"), runs(ROWS, IN_FLOAT32))
def test_row_agrees_with_layers_unrolled_by_hand(row: Row, dtype: str) -> None:
    check(row, dtype)
