"""The textbook adjoint equals exact derivatives of an independent forward pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cells.cases import KINDS, MASKS, batch, difference, layer, solved_case
from tests.cells.forward import FUNCTIONS, Case
from tests.cells.textbook import textbook

# What a tap in the forward pass is called, and the quantity that is its gradient.
TAPS = {
    "hidden": "hidden_gradient",
    "cell": "cell_gradient",
    "gate": "gate_gradient",
    "input": "input_gradient",
    "initial_hidden": "initial_hidden_gradient",
    "initial_cell": "initial_cell_gradient",
    "kernel": "kernel_gradient",
    "recurrent_kernel": "recurrent_kernel_gradient",
    "bias": "bias_gradient",
    "recurrent_bias": "recurrent_bias_gradient",
}


def assert_exact(case: Case, tolerance: float = 1e-10) -> None:
    found = textbook(case.layer, case.passed)
    compared = {tap: name for tap, name in TAPS.items() if name in found}
    assert len(compared) >= 6
    for tap, name in compared.items():
        expected = case.derivative(tap).reshape(found[name].shape)
        assert difference(found[name], expected) <= tolerance, name


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**16),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)),
    masked=st.sampled_from(MASKS),
    gradient=st.sampled_from(["all", "last", "final", "everything"]),
    flags=st.fixed_dictionaries(
        {"states": st.booleans(), "runs_backward": st.booleans(), "zero_output": st.booleans()}
    ),
)
def test_every_gradient_is_the_derivative_of_the_loss(kind, seed, shape, masked, gradient, flags):
    rng = np.random.default_rng(seed)
    samples, steps, features, units = shape
    passed = batch(rng, samples, steps, features, units, masked=masked, gradient=gradient, **flags)
    assert_exact(solved_case(layer(kind, rng, features, units), passed))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_activation_enters_through_its_slope(kind, name):
    rng = np.random.default_rng(3)
    recurrent = "hard_sigmoid" if name in ("relu", "exponential") else name
    options = {} if kind == "simple_rnn" else {"recurrent_activation": recurrent}
    built = layer(kind, rng, scale=0.3, activation=name, **options)
    assert_exact(solved_case(built, batch(rng, masked="random", gradient="everything")))


def test_a_layer_without_biases_has_no_bias_gradients():
    rng = np.random.default_rng(0)
    with_bias = layer("gru", rng)
    bare = type(with_bias)("gru", with_bias.kernel, with_bias.recurrent_kernel)
    case = solved_case(bare, batch(rng))
    assert not [name for name in textbook(case.layer, case.passed) if "bias" in name]
    assert_exact(case)


@pytest.mark.parametrize("kind", KINDS)
def test_states_and_gates_are_those_of_the_forward_pass(kind):
    rng = np.random.default_rng(1)
    case = solved_case(layer(kind, rng), batch(rng, masked="random", states=True, runs_backward=True))
    found, ran = textbook(case.layer, case.passed), case.run()
    assert difference(found["hidden"], ran["hidden"]) <= 1e-14
    if kind == "lstm":
        assert difference(found["cell"], ran["cell"]) <= 1e-14


def test_a_masked_step_hands_on_what_comes_from_later():
    """h_3 is copied from h_1 over the masked step 2, whose output repeats that of step 1."""
    rng = np.random.default_rng(4)
    passed = batch(rng, samples=1, steps=4)
    passed = type(passed)(**{**vars(passed), "valid": np.array([[True, True, False, True]])})
    case = solved_case(layer("simple_rnn", rng), passed)
    found = textbook(case.layer, case.passed)
    sent_back = found["hidden_gradient"][0, 2]
    gradient = case.passed.output_gradient
    assert gradient is not None
    np.testing.assert_allclose(found["hidden_gradient"][0, 1], sent_back + gradient[0, 1] + gradient[0, 2])
    assert not found["gate_gradient"][0, 2].any()
    assert not found["input_gradient"][0, 2].any()
