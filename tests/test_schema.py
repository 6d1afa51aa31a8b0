"""How records become a labelled tree, and what is said when a name is none of the schema's."""

from __future__ import annotations

from urllib.parse import unquote

import numpy as np
import pytest
import xarray as xr

import throughtime as tt
from throughtime import _tree
from throughtime import _vocabulary as schema
from throughtime._capture.label import label
from throughtime._capture.solve import per_sample
from throughtime.adapters.records import LayerRecord, ModelRecord, escape

B, T, M, N = 2, 5, 3, 4


def labelled(kind="lstm", arrays=None, *, path="lstm", **more):
    leaf = LayerRecord(path, kind, arrays or {"output": np.zeros((B, T, N))}, **more)
    return label(ModelRecord((leaf,)))[path].to_dataset()


def recurrent_weights(gates=None, directions=0):
    gates, directions = (gates,) if gates else (), (directions,) if directions else ()
    return {
        "kernel": np.zeros((*directions, M, *gates, N)),
        "recurrent_kernel_gradient": np.zeros((*directions, N, *gates, N)),
        "bias": np.zeros((*directions, *gates, N)),
    }


class TestLabels:
    @pytest.mark.parametrize(("kind", "gates"), [("lstm", 4), ("gru", 3)])
    def test_gated_weights_have_a_gate_dim_with_names(self, kind, gates):
        layer = labelled(kind, recurrent_weights(gates))
        assert layer["kernel"].dims == ("feature", "gate", "unit")
        assert layer["recurrent_kernel_gradient"].dims == ("unit_from", "gate", "unit")
        assert layer["bias"].dims == ("gate", "unit")
        assert tuple(layer["gate"].values) == schema.GATES[kind]

    def test_weights_without_gates_have_no_gate_dim(self):
        layer = labelled("simple_rnn", recurrent_weights())
        assert layer["kernel"].dims == ("feature", "unit")
        assert layer["recurrent_kernel_gradient"].dims == ("unit_from", "unit")
        assert "gate" not in layer.sizes

    def test_bidirectional_weights_name_their_direction(self):
        layer = labelled("lstm", recurrent_weights(4, directions=2), directions=schema.DIRECTIONS)
        assert layer["kernel"].dims == ("direction", "feature", "gate", "unit")
        assert list(layer["direction"].values) == ["forward", "backward"]

    def test_labels_are_objects_so_that_a_longer_one_fits_later(self):
        layer = labelled("lstm", recurrent_weights(4, directions=2), directions=schema.DIRECTIONS)
        assert layer["gate"].dtype == layer["direction"].dtype == object

    @pytest.mark.parametrize("kind", ["rnn", "dense", "conv1d"])
    def test_weights_of_other_layers_have_axes_of_their_own(self, kind):
        arrays = {"kernel": np.zeros((2, M, N)), "kernel_gradient": np.zeros((2, M, N)), "gamma": np.zeros(N)}
        layer = labelled(kind, arrays)
        assert layer["kernel"].dims == ("kernel_axis_0", "kernel_axis_1", "kernel_axis_2")
        assert layer["kernel_gradient"].dims == ("kernel_axis_0", "kernel_axis_1", "kernel_axis_2")
        assert layer["gamma"].dims == ("gamma_axis_0",)

    def test_unmerged_directions_are_a_dim_of_the_output(self):
        layer = labelled(
            arrays={"output": np.zeros((B, T, 2, N)), "output_gradient": np.zeros((B, T, 2, N))},
            directions=schema.DIRECTIONS,
            flags={"merge_mode": "None"},
        )
        assert layer["output_gradient"].dims == ("sample", "time", "direction", "unit")
        assert list(layer["direction"].values) == ["forward", "backward"]

    def test_last_step_alone_has_no_time(self):
        layer = labelled(arrays={"output": np.zeros((B, N)), "output_gradient": np.zeros((B, N))})
        assert layer["output_gradient"].dims == ("sample", "output_unit")
        assert "time" not in layer.sizes

    def test_images_through_time_have_rows_and_columns(self):
        layer = labelled("conv_lstm2d", {"output": np.zeros((B, T, 6, 7, N))})
        assert layer["output"].dims == ("sample", "time", "row", "column", "output_unit")

    def test_input_and_output_may_differ_in_width(self):
        layer = labelled(arrays={"input": np.zeros((B, T, M)), "output": np.zeros((B, T, N))})
        assert dict(layer.sizes) == {"sample": B, "time": T, "feature": M, "output_unit": N}

    def test_every_variable_says_what_it_is(self):
        layer = labelled(arrays={"output_gradient": np.zeros((B, T, N)), **recurrent_weights(4)})
        assert all(variable.attrs["long_name"] for variable in layer.data_vars.values())


class TestTree:
    def test_loss_and_factor_are_variables_of_each_leaf(self):
        leaves = tuple(LayerRecord(path, "lstm", {"output": np.zeros((B, T, N))}) for path in ("a", "a@2"))
        tree = label(ModelRecord(leaves, {"framework": "keras"}, loss=0.5, reduction_factor=1 / B))
        assert [float(tree[path]["loss"]) for path in ("a", "a@2")] == [0.5, 0.5]
        assert float(tree["a"]["reduction_factor"]) == 1 / B
        assert tree.attrs["framework"] == "keras"

    def test_batch_mean_is_undone_for_samples_and_kept_for_weights(self):
        arrays = {
            name: np.ones((B, T, N), "float32") for name in ("output", "output_gradient", "input_gradient")
        }
        arrays |= {"kernel_gradient": np.ones((N, 4, N))}
        leaf = LayerRecord("lstm", "lstm", arrays)
        layer = label(ModelRecord((per_sample(leaf, 1 / B),)))["lstm"]
        means = {name: float(variable.mean()) for name, variable in layer.data_vars.items()}
        assert means["output_gradient"] == means["input_gradient"] == B
        assert means["output"] == means["kernel_gradient"] == 1
        assert layer["output_gradient"].dtype == np.float32

    def test_without_labels_there_is_no_loss(self):
        assert not {"loss", "reduction_factor"} & set(labelled().data_vars)

    def test_containers_hold_no_variables(self):
        tree = label(ModelRecord((LayerRecord("encoder/lstm", "lstm", {"output": np.zeros((B, T, N))}),)))
        assert not tree["encoder"].data_vars
        assert tree["encoder/lstm"].data_vars

    def test_layers_of_one_model_may_have_different_lengths(self):
        arrays = ({"output": np.zeros((B, steps, N))} for steps in (5, 7))
        leaves = tuple(LayerRecord(f"rnn_{steps}", "rnn", each) for steps, each in enumerate(arrays))
        assert [node.sizes["time"] for node in label(ModelRecord(leaves)).leaves] == [5, 7]

    def test_flags_and_reasons_are_attributes(self):
        layer = labelled(flags={"activation": "tanh"}, missing={"input_gradient": "its input is an integer"})
        assert layer.attrs["kind"] == layer.attrs["layer"] == "lstm"
        assert layer.attrs["activation"] == "tanh"
        assert layer.attrs["missing_input_gradient"] == "its input is an integer"

    @pytest.mark.parametrize("name", ["plain", "a/b", "a@2", "50%", "%2F", "a%2Fb@"])
    def test_escaped_name_is_one_step_and_can_be_told_back(self, name):
        assert not {"/", "@"} & set(escape(name))
        assert unquote(escape(name)) == name


class TestLayer:
    def test_takes_a_tree_with_one_leaf_a_leaf_or_a_dataset(self):
        tree = label(ModelRecord((LayerRecord("a/b", "lstm", {"output": np.ones((B, T, N))}),)))
        for given in (tree, tree["a"], tree["a/b"], tree["a/b"].to_dataset()):
            assert float(_tree.layer(given)["output"].mean()) == 1

    def test_several_leaves_are_listed(self):
        leaves = tuple(LayerRecord(path, "lstm", {"output": np.zeros((B, T, N))}) for path in ("a", "b"))
        with pytest.raises(tt.SchemaError, match="has 2: a, b"):
            _tree.layer(label(ModelRecord(leaves)))

    def test_empty_tree_has_none(self):
        with pytest.raises(tt.SchemaError, match="has 0: none"):
            _tree.layer(xr.DataTree())

    def test_other_object_is_named(self):
        with pytest.raises(tt.SchemaError, match=r"got ndarray.*tt\.capture"):
            _tree.layer(np.zeros(3))


class TestRequire:
    def test_gives_the_variable(self):
        assert _tree.require(labelled(), "output").dims == ("sample", "time", "output_unit")

    def test_says_what_there_is(self):
        with pytest.raises(tt.SchemaError, match=r"'output_gradient' for lstm.*It has: output"):
            _tree.require(labelled(), "output_gradient")

    def test_says_why_where_the_capture_knows(self):
        layer = labelled(missing={"input_gradient": "its input is an integer"})
        with pytest.raises(tt.SchemaError, match="its input is an integer"):
            _tree.require(layer, "input_gradient")


class TestQuantities:
    def test_all_are_all(self):
        assert schema.quantities("all") == frozenset(schema.QUANTITIES) - {"state_jacobian"}
        assert schema.quantities(["all", "state_jacobian"]) == frozenset(schema.QUANTITIES)

    def test_one_name_needs_no_list(self):
        assert schema.quantities("output") == {"output"}

    @pytest.mark.parametrize("weight", schema.WEIGHTS)
    def test_a_weight_stands_for_all(self, weight):
        assert schema.quantities([weight, f"{weight}_gradient"]) == {"weights", "weight_gradients"}

    def test_nothing_is_nothing(self):
        assert schema.quantities([]) == frozenset()

    @pytest.mark.parametrize("name", ["grads", "loss_gradient", "outputs", ""])
    def test_unknown_name_lists_those_there_are(self, name):
        with pytest.raises(tt.SchemaError, match=r"output_gradient.*kernel"):
            schema.quantities([name])

    def test_error_reads_as_text(self):
        assert str(tt.SchemaError("one\ntwo")) == "one\ntwo"
