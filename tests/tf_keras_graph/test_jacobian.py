"""Step Jacobians of custom cells in graph mode: the tests of eager tf_keras."""

from tests.tf_keras.test_jacobian import (  # noqa: F401  pytest runs what a module imports
    test_a_written_lstm_has_the_jacobians_of_the_closed_form,
    test_finite_differences_give_the_same,
    test_stacked_cells_have_their_own,
)
