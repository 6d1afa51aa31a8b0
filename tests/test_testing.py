"""The synthetic trees are what a capture is: labelled alike, and solved exactly.

The cells of `throughtime.cells` and finite differences are the independent word on the closed forms.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from throughtime import _tree, testing
from throughtime._errors import SchemaError, UnsupportedModelError
from throughtime.cells import QUANTITIES, Layer, Pass, solve

TREES = {
    "decaying": testing.decaying(rate=[0.5, 0.9], steps=12),
    "go_backwards": testing.decaying(rate=0.7, samples=2, steps=12, direction="backward"),
    "perfect_memory": testing.perfect_memory(samples=2, steps=12),
    "exploding": testing.exploding(samples=2, steps=12),
    "with_masks": testing.with_masks([12, 5, 0], steps=12),
    "bidirectional": testing.bidirectional(samples=2, steps=12),
    "lag_matrix_of": testing.lag_matrix_of(0.8, samples=2, steps=12),
    "lstm": testing.constant_gates(samples=2, steps=12),
    "gru": testing.constant_gates(kind="gru", samples=2, steps=12),
    "saturated_gates": testing.saturated_gates(samples=2, steps=12),
}


def leaf(name):
    return TREES[name]["rnn"].to_dataset()


def solved(dataset):
    """The same layer through the cells' own adjoint, one direction."""
    weights = {name: dataset[name].values for name in ("kernel", "recurrent_kernel", "bias")}
    names = {
        name: dataset.attrs[name] for name in ("activation", "recurrent_activation") if name in dataset.attrs
    }
    recurrent_bias = np.zeros_like(weights["bias"]) if dataset.attrs["kind"] == "gru" else None
    layer = Layer(dataset.attrs["kind"], **weights, recurrent_bias=recurrent_bias, **names)
    passed = Pass(
        dataset["input"].values,
        dataset["hidden"].values,
        dataset["output_gradient"].values,
        valid=dataset["valid"].values,
        runs_backward=bool(dataset.attrs["go_backwards"]),
    )
    return solve(layer, passed, frozenset(QUANTITIES))


@pytest.mark.parametrize("name", TREES)
def test_every_tree_is_one_leaf_in_the_words_of_the_schema(name):
    tree, dataset = TREES[name], leaf(name)
    assert _tree.layer(tree).identical(dataset)
    words = {
        "sample",
        "time",
        "unit",
        "output_unit",
        "direction",
        "gate",
        "feature",
        "unit_from",
        "loss_time",
    }
    assert {str(dim) for dim in dataset.dims} <= words
    assert 1 not in [size for dim, size in dataset.sizes.items() if dim in ("direction", "gate", "time")]
    assert all(isinstance(value, (str, int, float)) for value in dataset.attrs.values())


@pytest.mark.parametrize("name", [name for name in TREES if name not in ("bidirectional", "decaying")])
def test_gradients_are_those_of_the_cells(name):
    dataset = leaf(name)
    found = solved(dataset)
    for variable in ("hidden_gradient", "cell_gradient", "input_gradient", "step_contribution"):
        if variable not in dataset:
            continue
        expected = np.asarray(found[variable])
        np.testing.assert_allclose(
            dataset[variable].values, expected, rtol=1e-12, atol=1e-12, err_msg=variable
        )


@pytest.mark.parametrize("name", ["lstm", "gru", "saturated_gates"])
def test_gates_and_their_gradients_are_those_of_the_cells(name):
    dataset = leaf(name)
    found = solved(dataset)
    for variable in ("gate_activation", "gate_gradient"):
        np.testing.assert_allclose(
            dataset[variable].values, found[variable], rtol=1e-12, atol=1e-12, err_msg=variable
        )


def test_directions_are_two_layers_on_one_input():
    both = leaf("bidirectional")
    for direction, flag in (("forward", 0), ("backward", 1)):
        side = slice(0, 4) if direction == "forward" else slice(4, 8)
        half = both.sel(direction=direction).isel(output_unit=side).assign_attrs(go_backwards=flag)
        found = solved(half)
        np.testing.assert_allclose(half["hidden_gradient"].values, found["hidden_gradient"], atol=1e-13)
        np.testing.assert_allclose(half["step_contribution"].values, found["step_contribution"], atol=1e-13)


def test_contributions_add_up_to_the_weight_gradient():
    dataset = leaf("go_backwards")
    gradient = np.linalg.norm(dataset["recurrent_kernel_gradient"].values)
    # One direction in time for all: the sum of the rank-1 steps, not of their lengths.
    assert 0 < gradient <= float(dataset["step_contribution"].sum()) / 2


def test_nothing_is_shared_between_variables():
    tree = testing.decaying()
    before = tree["rnn"]["input_gradient"].copy(deep=True)
    tree["rnn"]["hidden_gradient"].values[:] = 7.0
    assert tree["rnn"]["input_gradient"].identical(before)


def test_dtype_is_that_of_every_number():
    dataset = testing.decaying(dtype="float16")["rnn"].to_dataset()
    assert {str(each.dtype) for each in dataset.values()} == {"float16", "float64", "bool"}
    assert str(dataset["hidden_gradient"].dtype) == dataset.attrs["dtype"] == "float16"


def test_broken_number_spoils_what_follows_only():
    dataset = testing.nonfinite("hidden", value=np.inf, sample=1, time=7, unit=2)["rnn"].to_dataset()
    hidden = dataset["hidden"]
    assert float(hidden[1, 7, 2]) == np.inf
    assert bool(np.isfinite(hidden[1, :7]).all())
    assert bool(np.isnan(hidden[1, 8:]).all())
    assert bool(np.isfinite(dataset.isel(sample=[0, 2])["hidden_gradient"]).all())


def test_trees_can_be_stacked_along_training_steps():
    run = xr.concat([leaf("decaying"), leaf("decaying")], "step")
    assert run.sizes["step"] == 2


class TestWeightsForOtherFrameworks:
    """A layer's weights as others keep them; that they mean the same there, tests/agreement shows."""

    def test_torch_has_reset_before_update_and_what_is_not_there_is_zero(self) -> None:
        leaf = testing.constant_gates(kind="gru", units=2)["rnn"].to_dataset()
        weights = testing.torch_weights(leaf, number=1)
        update, reset, candidate = leaf["kernel"].values.transpose(1, 2, 0)
        np.testing.assert_array_equal(weights["weight_ih_l1"], np.concatenate([reset, update, candidate]))
        assert weights["bias_ih_l1"].shape == (6,)
        assert not weights["bias_hh_l1"].any()

    def test_a_gru_of_keras_has_two_biases_and_an_lstm_one(self) -> None:
        shapes = {
            kind: testing.keras_weights(testing.constant_gates(kind=kind, units=2)["rnn"])[-1].shape
            for kind in ("lstm", "gru")
        }
        assert shapes == {"lstm": (8,), "gru": (2, 6)}

    def test_both_directions_one_after_the_other(self) -> None:
        leaf = TREES["bidirectional"]["rnn"].to_dataset()
        forward, backward = leaf["recurrent_kernel"].transpose("direction", ...).values
        weights = testing.torch_weights(leaf)
        np.testing.assert_array_equal(weights["weight_hh_l0"], forward.T)
        np.testing.assert_array_equal(weights["weight_hh_l0_reverse"], backward.T)
        given = testing.keras_weights(leaf)
        np.testing.assert_array_equal(given[1], forward)
        np.testing.assert_array_equal(given[len(given) // 2 + 1], backward)

    def test_what_has_no_twin_is_refused(self) -> None:
        leaf = testing.constant_gates(kind="gru")["rnn"].to_dataset()
        with pytest.raises(UnsupportedModelError, match="reset_after=False"):
            testing.torch_weights(leaf.assign_attrs(reset_after=0))
        with pytest.raises(SchemaError, match="'conv_lstm'"):
            testing.keras_weights(leaf.assign_attrs(kind="conv_lstm"))
        with pytest.raises(SchemaError, match="kernel"):
            testing.keras_weights(leaf.drop_vars("kernel"))
