"""The fast adjoint equals the textbook's, hands out what is asked for and rounds as little as the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.cells.cases import KINDS, MASKS, batch, difference, in_single_precision, layer, solved_case
from tests.cells.textbook import textbook

from throughtime import UnsupportedModelError
from throughtime._errors import SchemaError
from throughtime.cells import ACTIVATIONS, QUANTITIES, scan, solve


def assert_equal(case, tolerance=1e-13):
    found = solve(case.layer, case.passed, QUANTITIES)
    expected = textbook(case.layer, case.passed)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert difference(found[name], values) <= tolerance, name


@pytest.fixture(params=[1, 2**18], ids=["one_step_a_block", "one_block"])
def _blocks(request, monkeypatch):
    monkeypatch.setattr(scan, "BLOCK_BYTES", request.param)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_fast_equals_textbook(kind, masked):
    rng = np.random.default_rng(0)
    for gradient in ("all", "last", "final", "everything"):
        for runs_backward in (False, True):
            for zero_output in (False, True):
                passed = batch(
                    rng,
                    masked=masked,
                    gradient=gradient,
                    states=gradient != "all",
                    runs_backward=runs_backward,
                    zero_output=zero_output,
                )
                assert_equal(solved_case(layer(kind, rng), passed))


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_step_that_is_masked_copies_the_state(kind):
    rng = np.random.default_rng(0)
    passed = batch(rng, steps=1, states=True, gradient="everything")
    masked = replace(passed, valid=np.array([[False], [True], [True]]))
    assert_equal(solved_case(layer(kind, rng), masked))


@pytest.mark.parametrize("kind", ["lstm", "simple_rnn"])
def test_two_biases_count_as_their_sum_and_have_the_gradient_of_one(kind):
    rng = np.random.default_rng(2)
    one = layer(kind, rng)
    share = rng.normal(size=one.bias.shape)
    two = replace(one, bias=one.bias - share, recurrent_bias=share)
    case = solved_case(one, batch(rng, masked="random", states=True, gradient="everything"))
    for compute in (lambda built: solve(built, case.passed, QUANTITIES), lambda b: textbook(b, case.passed)):
        found, expected = compute(two), compute(one)
        np.testing.assert_array_equal(found.pop("recurrent_bias_gradient"), found["bias_gradient"])
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert difference(found[name], values) <= 1e-13, name


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_any_activation_of_the_table(kind, name):
    rng = np.random.default_rng(1)
    # The hidden states need not be consistent: both adjoints linearise around what was captured.
    built = layer(kind, rng, scale=0.3, activation=name, recurrent_activation=name)
    passed = replace(batch(rng, masked="random", states=True), hidden=rng.uniform(-1, 1, size=(3, 5, 3)))
    found, expected = solve(built, passed, QUANTITIES), textbook(built, passed)
    for quantity, values in expected.items():
        assert difference(found[quantity], values) <= 1e-12, quantity


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_stays_within_the_bar(kind):
    rng = np.random.default_rng(2)
    built = in_single_precision(layer(kind, rng, 8, 32, scale=0.25))
    passed = batch(rng, 16, 80, 8, 32, masked="right", gradient="everything")
    case = solved_case(built, in_single_precision(passed))
    single = in_single_precision(case.passed)
    found = solve(built, single, QUANTITIES)
    for name, expected in textbook(built, single).items():
        assert found[name].dtype == np.float32, name
        assert difference(found[name], expected) <= 1e-5, name


@pytest.mark.parametrize("kind", KINDS)
def test_each_quantity_alone_is_what_it_is_among_all(kind):
    rng = np.random.default_rng(3)
    case = solved_case(layer(kind, rng), batch(rng, masked="random", states=True))
    everything = solve(case.layer, case.passed, QUANTITIES)
    for name in QUANTITIES:
        alone = solve(case.layer, case.passed, frozenset({name}))
        assert alone.keys() == {name} & everything.keys()
        for values in alone.values():
            np.testing.assert_array_equal(values, everything[name])


def test_nothing_handed_in_is_changed():
    rng = np.random.default_rng(4)
    case = solved_case(layer("lstm", rng), batch(rng, masked="left", gradient="everything", states=True))
    arrays = [value for given in (case.layer, case.passed) for value in vars(given).values()]
    arrays += [*case.passed.initial, *case.passed.final_gradients]
    arrays = [value for value in arrays if isinstance(value, np.ndarray)]
    before = [value.copy() for value in arrays]
    for value in arrays:
        value.flags.writeable = False
    solve(case.layer, case.passed, QUANTITIES)
    for value, copied in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(value, copied)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_flows_out_of_a_masked_sample(kind):
    rng = np.random.default_rng(5)
    case = solved_case(layer(kind, rng), batch(rng, masked="one_sample", states=True))
    found = solve(case.layer, case.passed, QUANTITIES)
    for name in ("gate_gradient", "input_gradient", "step_contribution", "initial_hidden_gradient"):
        assert not found[name][0].any(), name


def test_garbage_on_padding_does_not_reach_valid_steps():
    rng = np.random.default_rng(6)
    for kind in KINDS:
        case = solved_case(layer(kind, rng), batch(rng, masked="right"))
        clean = solve(case.layer, case.passed, QUANTITIES)
        dirty = np.where(case.passed.valid[..., None], case.passed.hidden, np.nan)
        found = solve(case.layer, replace(case.passed, hidden=dirty), QUANTITIES)
        for name, values in clean.items():
            np.testing.assert_array_equal(found[name], values)


def test_half_precision_is_computed_in_single():
    rng = np.random.default_rng(7)
    case = solved_case(layer("gru", rng), batch(rng))
    passed = replace(case.passed, hidden=case.passed.hidden.astype(np.float16))
    assert solve(case.layer, passed, frozenset({"hidden_gradient"}))["hidden_gradient"].dtype == np.float32


def test_a_long_product_of_tiny_norms_does_not_underflow():
    rng = np.random.default_rng(8)
    case = solved_case(in_single_precision(layer("lstm", rng)), in_single_precision(batch(rng)))
    tiny = replace(in_single_precision(case.passed), output_gradient=np.full((3, 5, 3), 1e-25, np.float32))
    contribution = solve(case.layer, tiny, frozenset({"step_contribution"}))["step_contribution"]
    # The first step has h = 0.
    assert (contribution[:, 1:] > 1e-30).all()


def test_unknown_names_say_what_there_is():
    rng = np.random.default_rng(9)
    passed = batch(rng)
    with pytest.raises(SchemaError, match=r"gradients_of_hidden.*hidden_gradient"):
        solve(layer("gru", rng), passed, frozenset({"gradients_of_hidden"}))
    with pytest.raises(UnsupportedModelError, match=r"gelu.*tanh"):
        solve(layer("gru", rng, activation="gelu"), passed, QUANTITIES)
    with pytest.raises(UnsupportedModelError, match=r"conv_lstm.*lstm"):
        solve(replace(layer("gru", rng), kind="conv_lstm"), passed, QUANTITIES)
