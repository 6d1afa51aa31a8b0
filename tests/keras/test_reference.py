"""The NumPy oracle itself: it predicts what Keras predicts and differentiates as the framework does."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from tests.keras import plain_gradients as plain
from tests.keras.comparison import difference, kept_states, plain_keywords
from tests.matrix import PAIRWISE, SPECIALS, Built, Row
from tests.reference import Layer, Network

NUMPY_ROWS = [row for row in (*PAIRWISE, *SPECIALS) if row.oracle == "numpy"]
# JAX compiles each row's gradient anew, 1 to 4 s: half of the rows say as much about the oracle.
CHECKED_ROWS = NUMPY_ROWS[::2] if plain.BACKEND == "jax" else NUMPY_ROWS


def ids(row: Row) -> str:
    return row.name


def check_against_keras(built: Built, tolerance: float) -> None:
    model, x, y, options = built
    network = options.network
    assert network is not None
    inputs, outputs, prediction = network.run()
    with kept_states(options):
        predicted = keras.ops.convert_to_numpy(plain.call(model, x)[0])
    assert difference(predicted, prediction) <= tolerance
    keywords = plain_keywords(built)
    for index, leaf in enumerate(options.leaves):
        with kept_states(options):
            seen = plain.values(model, leaf.layer, 1, x)
        assert difference(seen["input"], inputs[index]) <= tolerance
        assert difference(seen["output"], outputs[index]) <= tolerance
        with kept_states(options):
            found = plain.split_output_gradient(model, leaf.layer, x, y, **keywords)
        assert difference(found, network.gradient(index, "output")) <= tolerance


@pytest.mark.parametrize("reference_row", CHECKED_ROWS, ids=ids)
def test_reference_agrees_with_keras_in_float32(reference_row: Row) -> None:
    check_against_keras(reference_row.build("float32"), 1e-5)


if keras.backend.backend() == "tensorflow":  # elsewhere Keras' generic loop multiplies in float32

    @pytest.mark.parametrize("reference_row", PAIRWISE, ids=ids)
    def test_reference_agrees_with_keras_in_float64(reference_row: Row) -> None:
        check_against_keras(reference_row.build("float64"), 1e-12)


@pytest.mark.parametrize("reference_row", NUMPY_ROWS[::7], ids=ids)
def test_complex_step_agrees_with_the_eighth_order_stencil(reference_row: Row) -> None:
    network = reference_row.build("float32")[3].network
    assert network is not None
    places = ["input", "output", *(f"weight_{k}" for k in range(len(network.weights[0])))]
    for place in places:
        assert difference(network.stencil_gradient(0, place), network.gradient(0, place)) <= 1e-10


def test_a_network_at_rest_has_its_closed_form_gradient() -> None:
    """A tanh RNN at rest is linear: dL/dx_t is W Uᵀ^lag applied to the head's row."""
    rng = np.random.default_rng(0)
    kernel, recurrent, head = rng.normal(size=(2, 3)), rng.normal(size=(3, 3)) * 0.5, rng.normal(size=(3, 1))
    x, y = np.zeros((1, 5, 2)), np.full((1, 1), -0.5)  # dL/dprediction = 2·(0 + 0.5) = 1
    network = Network((Layer("simple_rnn"),), ((kernel, recurrent, np.zeros(3)),), (head, np.zeros(1)), x, y)
    delta = head[:, 0]
    expected = []
    for _ in range(5):
        expected.append(kernel @ delta)
        delta = recurrent @ delta
    assert difference(network.gradient(0, "input")[0], np.array(expected[::-1])) <= 1e-14
