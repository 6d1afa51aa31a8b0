"""Step Jacobians of custom cells in Keras, on the backend under test."""

from __future__ import annotations

import keras
import pytest
from keras import ops
from tests import keras_jacobians as jacobians


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
def test_a_written_lstm_has_the_jacobians_of_the_closed_form(backwards: bool) -> None:
    jacobians.check_closed_form(keras, ops, backwards=backwards)


def test_finite_differences_give_the_same() -> None:
    jacobians.check_differences(keras, ops)


def test_stacked_cells_have_their_own() -> None:
    jacobians.check_stacked(keras, ops)
