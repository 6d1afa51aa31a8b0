"""Every row of the support table against its oracle: NumPy in float64, or the framework by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
from tests.keras import plain_gradients as plain
from tests.keras.comparison import difference, kept_states, plain_keywords
from tests.matrix import PAIRWISE, PRODUCT, SPECIALS, B, Built, Leaf, Row
from tests.reference import GATE_COUNT, Network

import throughtime as tt

BACKEND = keras.backend.backend()
# On TensorFlow the whole product runs in float64, below; JAX compiles for a second or more a row.
IN_FLOAT32 = PRODUCT if BACKEND == "torch" else PAIRWISE
IN_PAIRS = {row.name for row in PAIRWISE}
BY_NUMPY = [row for row in (*IN_FLOAT32, *SPECIALS) if row.oracle == "numpy"]
BY_HAND = [row for row in SPECIALS if row.oracle == "plain"]
BARS = {"float64": 1e-12, "float32": 1e-5}


def name_of(row: Row) -> str:
    return row.name


def in_input_time(leaf: Leaf, array: np.ndarray) -> np.ndarray:
    return array[:, ::-1] if leaf.is_reversed else array


def expected(network: Network, index: int, leaf: Leaf) -> dict[str, np.ndarray]:
    """What a leaf of the tree must hold, gradients as the loss gives them (batch mean not undone)."""
    inputs, outputs, _ = network.run()
    return {
        "input": inputs[index],
        "input_gradient": network.gradient(index, "input"),
        "output": in_input_time(leaf, outputs[index]),
        "output_gradient": in_input_time(leaf, network.gradient(index, "output")),
        **weights(network, index, ""),
        **weights(network, index, "_gradient"),
    }


def weights(network: Network, index: int, suffix: str) -> dict[str, np.ndarray]:
    """Weights of one layer, or their gradients, with gates and directions on axes of their own."""
    layer, own = network.layers[index], network.weights[index]
    arrays = [network.gradient(index, f"weight_{k}") for k in range(len(own))] if suffix else list(own)
    half = len(arrays) // layer.directions
    named = [_named(layer.kind, arrays[k : k + half], suffix) for k in range(0, len(arrays), half)]
    if layer.directions == 1:
        return named[0]
    return {name: np.stack([direction[name] for direction in named]) for name in named[0]}


def _named(kind: str, arrays: list[np.ndarray], suffix: str) -> dict[str, np.ndarray]:
    kernel, recurrent_kernel, bias = arrays
    named = {"kernel": kernel, "recurrent_kernel": recurrent_kernel, "bias": bias}
    if bias.ndim == 2:
        named["bias"], named["recurrent_bias"] = bias
    gates = GATE_COUNT[kind]
    split = {} if gates == 1 else {"shape": (gates, -1)}
    return {
        f"{name}{suffix}": array.reshape(*array.shape[:-1], *split["shape"]) if split else array
        for name, array in named.items()
    }


def capture(built: Built) -> Any:
    model, x, y, options = built
    return tt.capture(model, x, y, **options.capture)


def differences(dataset: Any, right: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Relative difference of every variable, output and input gradients scaled as the loss scales them."""
    factor = float(dataset["reduction_factor"])
    scales = {"output_gradient": factor, "input_gradient": factor}
    return {
        name: difference(dataset[name].values * scales.get(name, 1.0), array) for name, array in right.items()
    }


def check_against_numpy(built: Built, tolerance: float) -> None:
    network, options = built[3].network, built[3]
    assert network is not None
    tree = capture(built)
    assert [node.path for node in tree.leaves] == [f"/{leaf.path}" for leaf in options.leaves]
    for index, leaf in enumerate(options.leaves):
        dataset = tree[leaf.path].to_dataset()
        right = expected(network, index, leaf)
        if not has_bias(leaf.layer):
            right = {name: array for name, array in right.items() if "bias" not in name}
        assert dataset.attrs["trainable"] == (not options.frozen)
        found = differences(dataset, right)
        assert {name: value for name, value in found.items() if value > tolerance} == {}
        assert float(dataset["reduction_factor"]) == pytest.approx(options.reduction_factor)
        # Keras' CompileLoss rounds the loss to floatx, float32, whatever dtype it is computed in.
        assert difference(float(dataset["loss"]), network.loss()) <= max(tolerance, 6e-8)
        check_valid(dataset, network, index)
        check_certificate(leaf, dataset, BARS[dataset.attrs["dtype"]])


def has_bias(layer: Any) -> bool:
    cell = getattr(layer, "forward_layer", layer).cell
    return bool(cell.use_bias)


def check_valid(dataset: Any, network: Network, index: int) -> None:
    steps = dataset["valid"].shape
    right = np.ones(steps, bool) if network.mask is None else network.mask
    assert np.array_equal(dataset["valid"].values, right)


@pytest.mark.parametrize("row", BY_NUMPY, ids=name_of)
def test_tree_equals_the_numpy_reference(row: Row) -> None:
    check_against_numpy(row.build("float32"), 1e-5)


if BACKEND == "tensorflow":  # elsewhere Keras' generic loop multiplies in float32

    @pytest.mark.parametrize(
        "row",
        [pytest.param(row, marks=() if row.name in IN_PAIRS else pytest.mark.slow) for row in PRODUCT],
        ids=name_of,
    )
    def test_tree_equals_the_numpy_reference_in_float64(row: Row) -> None:
        check_against_numpy(row.build("float64"), 1e-10)


@pytest.mark.parametrize("row", BY_HAND, ids=name_of)
def test_tree_equals_gradients_by_hand(row: Row) -> None:
    built = row.build("float32")
    model, x, y, options = built
    tree = capture(built)
    calls = [(leaf.layer, leaf.call) for leaf in options.leaves]
    by_hand = plain.everything(model, calls, x, y, **plain_keywords(built))
    assert {node.path for node in tree.leaves} == {f"/{leaf.path}" for leaf in options.leaves}
    for leaf, arrays in zip(options.leaves, by_hand.calls, strict=True):
        dataset = tree[leaf.path].to_dataset()
        found = differences(dataset, shown(leaf, arrays))
        assert {name: value for name, value in found.items() if value > 1e-6} == {}
        assert all(np.any(dataset[name]) for name in found), "nothing was compared"
        for way, holder in enumerate(leaf.holders):
            own = dataset.isel(direction=way) if "direction" in dataset.dims else dataset
            for variable in holder.trainable_variables:
                check_weight_gradient(own, variable, by_hand.weights[id(variable)])
        check_certificate(leaf, dataset, BARS["float32"])


def shown(leaf: Leaf, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a leaf has of its layer's input and output, in input time."""
    right = {}
    for place in leaf.places:
        for name in (place, f"{place}_gradient"):
            # Samples and outer steps share an axis.
            array = (
                arrays[name].reshape(-1, *arrays[name].shape[2:]) if leaf.has_outer_steps else arrays[name]
            )
            right[name] = in_input_time(leaf, array) if place == "output" else array
    return right


def check_weight_gradient(dataset: Any, variable: Any, right: np.ndarray) -> None:
    if variable.name == "bias" and "recurrent_bias" in dataset:
        found = np.stack([dataset["bias_gradient"].values, dataset["recurrent_bias_gradient"].values])
    else:
        found = dataset[f"{variable.name}_gradient"].values
    assert difference(found.reshape(right.shape), right) <= 1e-6


def check_certificate(leaf: Leaf, dataset: Any, bar: float) -> None:
    """Both parts, for each direction: below the bar, and undefined only where nothing flows."""
    assert ("certificate_weights" in dataset) == leaf.has_inside
    for part in ("certificate_weights", "certificate_time") if leaf.has_inside else ():
        certificate = dataset[part]
        assert certificate.dims == (("direction",) if "direction" in dataset.dims else ())
        for way, value in enumerate(np.atleast_1d(certificate.values)):
            if np.isnan(value):
                # Cells above the lowest share its loop over time.
                above = part == "certificate_time" and "input" not in leaf.places
                assert above or not flowing(dataset, way, part).any()
            else:
                assert value <= bar, part


def flowing(dataset: Any, direction: int, part: str) -> np.ndarray:
    """What a part of the certificate compares, from inside the layer and from autodiff, in one row."""
    own = dataset.isel(direction=direction) if "direction" in dataset.dims else dataset
    names = ["kernel_gradient", "recurrent_kernel_gradient", "bias_gradient", "recurrent_bias_gradient"]
    by_autodiff = ["input_gradient"] if part == "certificate_time" else names
    compared = [own[name].values.ravel() for name in ("gate_gradient", *by_autodiff) if name in own]
    return np.concatenate(compared)


# Both ways by hand, wherever the model can be cut: half of the pairwise rows and all chains.
CUT = [row for row in (*PAIRWISE, *SPECIALS) if row.oracle == "numpy" or row.group == "states"]


@pytest.mark.parametrize("cut", CUT[::2], ids=name_of)
def test_get_rnn_gradients_is_the_frameworks_own_gradient(cut: Row) -> None:
    built = cut.build("float32")
    model, x, y, options = built
    keywords = plain_keywords(built)
    chosen = options.leaves[-1]
    with kept_states(options):
        right = plain.split_output_gradient(model, chosen.layer, x, y, **keywords)
    found = tt.get_rnn_gradients(
        model,
        x,
        y,
        layer_name=chosen.layer.name,
        sample_weights=keywords["sample_weight"],
        loss=options.capture.get("loss"),
    )
    assert isinstance(found, np.ndarray)
    assert difference(found, right) <= 1e-6


def test_get_rnn_gradients_is_the_output_gradient_times_the_reduction_factor() -> None:
    row = next(row for row in PRODUCT if row.name == "gru-sequences-go_backwards-mask_right")
    model, x, y, _ = row.build("float32")
    layer = tt.capture(model, x, y)["recurrent"].to_dataset()
    scaled = (layer["output_gradient"] * layer["reduction_factor"]).values[:, ::-1]
    assert difference(tt.get_rnn_gradients(model, x, y), scaled) <= 1e-6


def test_gradients_of_one_sample_do_not_depend_on_the_batch_size() -> None:
    """The batch mean is undone: a sample alone has the gradient it has in a batch."""
    row = next(row for row in PRODUCT if row.name == "lstm-sequences-plain-mask_none")
    model, x, y, _ = row.build("float32")
    whole = tt.capture(model, x, y)["recurrent"].to_dataset()
    alone = tt.capture(model, x[:1], y[:1])["recurrent"].to_dataset()
    for name in ("output_gradient", "input_gradient"):
        assert difference(alone[name].values, whole[name].values[:1]) <= 1e-5
    assert float(whole["reduction_factor"]) == pytest.approx(1 / B)


def test_without_labels_there_are_values_and_no_gradients() -> None:
    row = next(row for row in PRODUCT if row.name == "lstm-sequences-plain-mask_none")
    model, x, _, options = row.build("float32")
    tree = tt.capture(model, x)
    layer = tree["recurrent"].to_dataset()
    assert not [name for name in layer.data_vars if str(name).endswith("_gradient")]
    assert "loss" not in layer
    assert "without labels" in tree.attrs["gradients"]
    assert options.network is not None
    assert difference(layer["output"].values, options.network.run()[1][0]) <= 1e-5


def test_weights_have_named_gates_in_keras_order() -> None:
    for kind, gates in {
        "lstm": ["input", "forget", "candidate", "output"],
        "gru": ["update", "reset", "candidate"],
    }.items():
        row = next(row for row in PRODUCT if row.name == f"{kind}-last-concat-mask_none")
        model, x, y, options = row.build("float32")
        layer = tt.capture(model, x, y)["recurrent"].to_dataset()
        assert list(layer["gate"].values) == gates
        kernel = keras.ops.convert_to_numpy(options.leaves[0].layer.backward_layer.cell.kernel)
        columns = np.split(kernel, len(gates), axis=1)
        for gate, right in zip(gates, columns, strict=True):
            found = layer["kernel"].sel(gate=gate, direction="backward")
            assert found.dims == ("feature", "unit")
            assert np.array_equal(found.values, right)


def test_states_of_a_stateful_layer_do_not_move_over_two_batches() -> None:
    row = next(row for row in SPECIALS if row.name == "stateful")
    model, x, y, options = row.build("float32")
    layer = options.leaves[0].layer
    before = [keras.ops.convert_to_numpy(state).copy() for state in layer.states]
    assert np.abs(before[0]).max() > 0
    first = tt.capture(model, x, y)["recurrent"].to_dataset()
    second = tt.capture(model, x, y)["recurrent"].to_dataset()
    after = [keras.ops.convert_to_numpy(state) for state in layer.states]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert np.array_equal(first["output"].values, second["output"].values)
    assert np.array_equal(first["output_gradient"].values, second["output_gradient"].values)
