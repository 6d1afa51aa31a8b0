"""What a capture holds, which losses and data it takes, and what it says when it cannot."""

import keras
import numpy as np
import pytest

import throughtime as tt

layers = keras.layers
SAMPLES, STEPS, FEATURES = 4, 5, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(SAMPLES, STEPS, FEATURES)).astype("float32")
Y = RNG.normal(size=(SAMPLES, STEPS, 1)).astype("float32")


def per_step(*, loss=None, head=None, **lstm):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((STEPS, FEATURES))
    hidden = layers.LSTM(3, return_sequences=True, name="lstm", **lstm)(inputs)
    model = keras.Model(inputs, (head or layers.Dense(1))(hidden))
    if loss is not None:
        model.compile("adam", loss)
    return model


# What the tree holds


def test_without_labels_there_are_no_gradients_and_the_tree_says_so():
    tree = tt.capture(per_step(), X)
    assert not [name for name in tree["lstm"].data_vars if "gradient" in name or name == "loss"]
    assert "without labels" in tree.attrs["gradients"]


def test_gradients_asked_for_by_name_need_labels():
    with pytest.raises(tt.LossError, match="pass y"):
        tt.capture(per_step(loss="mse"), X, quantities=["output", "output_gradient"])


def test_only_what_was_asked_for_is_captured():
    tree = tt.capture(per_step(loss="mse"), X, Y, quantities=["output_gradient", "kernel"])
    assert {name for name in tree["lstm"].data_vars if "bias" not in name} == {
        "output_gradient",
        "kernel",
        "recurrent_kernel",
        "loss",
        "reduction_factor",
    }


def test_an_unknown_quantity_is_answered_with_the_known_ones():
    with pytest.raises(tt.SchemaError, match="output_gradient"):
        tt.capture(per_step(loss="mse"), X, Y, quantities="grads")


def test_attributes_are_plain_values():
    tree = tt.capture(per_step(loss="mse", kernel_regularizer="l2"), X, Y, layers="all")
    for node in tree.subtree:
        assert all(isinstance(value, (str, int, float)) for value in node.attrs.values())
    assert "kernel" in tree.attrs["regularised"]
    assert tree["lstm"].attrs["recurrent_activation"] == "sigmoid"


def test_regularisers_are_in_the_weight_gradients_alone():
    plain = tt.capture(per_step(loss="mse"), X, Y)["lstm"]
    penal = tt.capture(per_step(loss="mse", kernel_regularizer=keras.regularizers.L2(0.1)), X, Y)["lstm"]
    np.testing.assert_allclose(penal["output_gradient"], plain["output_gradient"], rtol=1e-6)
    difference = penal["kernel_gradient"] - plain["kernel_gradient"]
    np.testing.assert_allclose(difference, 0.2 * plain["kernel"], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        (layers.LSTM(3, return_sequences=True, go_backwards=True, name="back"), "after back"),
        (layers.Conv1D(3, 2, strides=2, name="strided"), "after strided"),
        (layers.MaxPooling1D(2, name="pooled"), "after pooled"),
        (layers.Conv1D(3, 3, padding="causal", name="causal"), None),
    ],
)
def test_the_root_says_where_an_upstream_layer_breaks_time(upstream, expected):
    inputs = keras.Input((6, FEATURES))
    model = keras.Model(inputs, layers.GRU(2, name="gru")(upstream(inputs)))
    said = tt.capture(model, np.ones((2, 6, FEATURES), "float32"), layers="gru").attrs["time"]
    assert expected in said if expected else "after" not in said


def test_half_precision_comes_back_as_the_documentation_says():
    for policy, stored in (("mixed_bfloat16", "float32"), ("mixed_float16", "float16")):
        model = per_step(dtype=policy)
        tree = tt.capture(model, X, Y, loss="mse", quantities=["output_gradient", "output"])
        assert tree["lstm"]["output"].dtype == stored
        assert tt.get_rnn_gradients(model, X, Y, loss="mse").dtype == np.float32


def test_an_unmerged_bidirectional_has_a_direction_axis():
    inputs = keras.Input((STEPS, FEATURES))
    both = layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode=None, name="both")
    forward, backward = both(inputs)
    model = keras.Model(inputs, layers.Dense(1)(2 * forward + backward))
    leaf = tt.capture(model, X, Y, loss="mse")["both"]
    assert leaf["output"].dims == ("sample", "time", "direction", "unit")
    forward_share, backward_share = leaf["output_gradient"].transpose("direction", ...).values
    np.testing.assert_allclose(forward_share, 2 * backward_share, rtol=1e-5)


def test_a_softmax_head_keeps_the_gradients_below_it_exact():
    def gradient(head, loss):
        return tt.get_rnn_gradients(per_step(loss=loss, head=head), X, np.ones((SAMPLES, STEPS), "int32"))

    keras.utils.set_random_seed(0)
    softmax = gradient(
        layers.Dense(4, activation="softmax", kernel_initializer="ones"), "sparse_categorical_crossentropy"
    )
    logits = gradient(
        layers.Dense(4, kernel_initializer="ones"),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    np.testing.assert_allclose(softmax, logits, rtol=1e-4, atol=1e-7)


def test_capturing_a_softmax_layer_itself_gives_a_gradient_or_the_reason():
    model = per_step(
        loss="sparse_categorical_crossentropy", head=layers.Dense(4, activation="softmax", name="p")
    )
    leaf = tt.capture(model, X, np.ones((SAMPLES, STEPS), "int32"), layers="all")["p"]
    if keras.backend.backend() == "tensorflow":
        assert "logits" in leaf.attrs["missing_output_gradient"]
    else:
        assert leaf["output_gradient"].shape == (SAMPLES, STEPS, 4)


# Losses


def squared(y_true, y_pred):
    return keras.ops.square(y_true - y_pred)


LOSSES = {
    "name": ("mse", 1 / SAMPLES),
    "Keras loss": (keras.losses.MeanSquaredError(), 1 / SAMPLES),
    "summed Keras loss": (keras.losses.MeanSquaredError(reduction="sum"), 1.0),
    "scalar mean": (lambda a, b: keras.ops.mean(squared(a, b)), 1 / SAMPLES),
    "scalar sum": (lambda a, b: keras.ops.sum(squared(a, b)), 1.0),
    "value per sample": (lambda a, b: keras.ops.mean(squared(a, b), axis=(1, 2)), 1 / SAMPLES),
    "couples samples": (lambda a, b: keras.ops.square(keras.ops.sum(squared(a, b))), 1.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_factor_of_each_samples_gradient_is_found(name):
    loss, factor = LOSSES[name]
    tree = tt.capture(per_step(), X, Y, loss=loss)
    assert float(tree["lstm"]["reduction_factor"]) == pytest.approx(factor)
    assert ("couples" in tree.attrs["loss_reduction"]) == (name == "couples samples")
    gradients = tt.get_rnn_gradients(per_step(), X, Y, loss=loss)
    leaf = tree["lstm"]
    np.testing.assert_allclose(leaf["output_gradient"] * leaf["reduction_factor"], gradients, rtol=1e-5)


@pytest.mark.parametrize("name", ["scalar mean", "value per sample", "summed Keras loss"])
def test_a_samples_gradient_does_not_depend_on_its_batch(name):
    loss, _ = LOSSES[name]
    whole = tt.capture(per_step(), X, Y, loss=loss)["lstm"]["output_gradient"]
    alone = tt.capture(per_step(), X[1:2], Y[1:2], loss=loss)["lstm"]["output_gradient"]
    np.testing.assert_allclose(whole[1], alone[0], rtol=1e-5, atol=1e-8)


def test_regularisers_do_not_disturb_the_search_for_the_factor():
    model = per_step(kernel_regularizer=keras.regularizers.L2(10.0))
    tree = tt.capture(model, X, Y, loss=LOSSES["scalar sum"][0])
    assert tree.attrs["loss_reduction"] == "sum over samples"


class OwnLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.sum(squared(y, y_pred)) + sum(self.losses)


def test_an_overridden_compute_loss_is_the_loss():
    inputs = keras.Input((STEPS, FEATURES))
    hidden = layers.GRU(3, return_sequences=True, kernel_regularizer="l2", name="gru")(inputs)
    model = OwnLoss(inputs, layers.Dense(1)(hidden))
    tree = tt.capture(model, X, Y)
    assert tree.attrs["loss_reduction"] == "sum over samples"
    expected = tt.get_rnn_gradients(model, X, Y, loss=LOSSES["scalar sum"][0])
    np.testing.assert_allclose(tree["gru"]["output_gradient"], expected, rtol=1e-5)


def test_sample_weights_weigh_each_samples_gradient():
    weights = np.array([0.0, 1.0, 2.0, 4.0], "float32")
    for loss in ("mse", LOSSES["value per sample"][0]):
        plain = tt.capture(per_step(), X, Y, loss=loss)["lstm"]["output_gradient"]
        weighed = tt.capture(per_step(), X, Y, loss=loss, sample_weight=weights)["lstm"]["output_gradient"]
        np.testing.assert_allclose(weighed, plain * weights[:, None, None], rtol=1e-5, atol=1e-8)


def test_sample_weights_need_a_value_per_sample():
    with pytest.raises(tt.LossError, match="one value per sample"):
        tt.capture(per_step(), X, Y, loss=LOSSES["scalar mean"][0], sample_weight=np.ones(SAMPLES))


@pytest.mark.parametrize(
    ("loss", "labels", "says"),
    [
        (None, Y, "no loss"),
        (7, Y, "loss=7"),
        ("mse", Y[:2], "4 samples"),
        ("mse", np.zeros((SAMPLES, 2, 3, 4), "float32"), "(4, 5, 1)"),
    ],
)
def test_a_loss_that_cannot_be_evaluated_says_what_to_give(loss, labels, says):
    with pytest.raises(tt.LossError) as caught:
        tt.capture(per_step(), X, labels, loss=loss)
    assert says in str(caught.value)


def test_labels_that_keras_would_broadcast_are_refused():
    with pytest.raises(tt.LossError, match="broadcast"):
        tt.capture(per_step(loss="mse"), X, Y[:, 0, 0])


# Layers that the loss does not reach


def with_unused_layer():
    inputs = keras.Input((STEPS, FEATURES))
    used = layers.Dense(1)(layers.GRU(3, name="used")(inputs))
    unused = layers.GRU(3, name="unused")(inputs)
    model = keras.Model(inputs, [used, unused])
    model.compile("adam", ["mse", None])
    return model, [Y[:, 0], np.zeros((SAMPLES, 3), "float32")]


def test_an_unreached_layer_is_named_in_a_warning_and_has_no_gradient():
    model, labels = with_unused_layer()
    with pytest.warns(tt.ThroughTimeWarning, match="unused"):
        tree = tt.capture(model, X, labels)
    assert "output_gradient" in tree["used"]
    assert "output_gradient" not in tree["unused"]
    assert "does not depend" in tree["unused"].attrs["missing_output_gradient"]


def test_an_unreached_layer_asked_for_is_an_error():
    model, labels = with_unused_layer()
    with pytest.raises(tt.NoGradientError, match="unused"):
        tt.get_rnn_gradients(model, X, labels, layer_name="unused")


def test_a_gradient_that_is_a_constant_is_not_taken_for_a_missing_one():
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), layers.GRU(3, name="gru")])
    gradients = tt.get_rnn_gradients(model, X, Y, loss=lambda y_true, y_pred: keras.ops.sum(y_pred))
    np.testing.assert_array_equal(gradients, np.ones((SAMPLES, 3)))


def test_a_gradient_that_happens_to_be_zero_is_zero():
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), layers.GRU(3, name="gru"), layers.Dense(1)])
    model.layers[-1].set_weights([np.zeros((3, 1)), np.zeros(1)])
    np.testing.assert_array_equal(tt.get_rnn_gradients(model, X, Y[:, 0], loss="mse"), np.zeros((SAMPLES, 3)))


def test_an_integer_input_has_no_gradient_and_says_so():
    inputs = keras.Input((STEPS,), dtype="int32")
    embedded = layers.Embedding(9, 4, name="embedding")(inputs)
    model = keras.Model(inputs, layers.Dense(1)(layers.LSTM(3, name="lstm")(embedded)))
    tokens = np.arange(SAMPLES * STEPS).reshape(SAMPLES, STEPS) % 9
    with pytest.raises(tt.NoGradientError, match="int"):
        tt.capture(model, tokens, Y[:, 0], loss="mse", layers="embedding", quantities="input_gradient")
    leaf = tt.capture(model, tokens, Y[:, 0], loss="mse")["lstm"]
    assert leaf["input_gradient"].shape == (SAMPLES, STEPS, 4)


# Models that cannot be captured


@pytest.mark.parametrize("thing", [None, 3, "model", np.ones(3), object()])
def test_what_is_no_model_is_told_what_is(thing):
    with pytest.raises(tt.UnsupportedModelError, match="Keras 3"):
        tt.capture(thing, X)


def test_an_unbuilt_model_is_told_how_to_be_built():
    with pytest.raises(tt.UnbuiltModelError, match=r"keras\.Input"):
        tt.capture(keras.Sequential([layers.LSTM(3)]), X)


# Data


def dataset_of(kind):
    if kind == "tf.data":
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)
    if kind == "DataLoader":
        import torch

        pairs = torch.utils.data.TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))
        return torch.utils.data.DataLoader(pairs, batch_size=3)
    return Pairs()


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return X[:3], Y[:3]


@pytest.mark.parametrize("kind", ["tf.data", "DataLoader", "PyDataset"])
def test_a_dataset_gives_its_first_batch_and_the_tree_says_so(kind):
    model = per_step(loss="mse")
    tree = tt.capture(model, dataset_of(kind))
    expected = tt.capture(model, X[:3], Y[:3])
    np.testing.assert_allclose(
        tree["lstm"]["output_gradient"], expected["lstm"]["output_gradient"], rtol=1e-6
    )
    assert "first batch" in tree.attrs["batch"]


def test_tensors_and_nested_lists_are_taken_like_arrays():
    model = per_step(loss="mse")
    expected = tt.get_rnn_gradients(model, X, Y)
    tensors = tt.get_rnn_gradients(model, keras.ops.convert_to_tensor(X), keras.ops.convert_to_tensor(Y))
    np.testing.assert_array_equal(tensors, expected)
    np.testing.assert_allclose(tt.get_rnn_gradients(model, X.tolist(), Y.tolist()), expected, rtol=1e-6)


def test_a_dataset_brings_its_own_labels():
    with pytest.raises(tt.BatchError, match="contains its labels"):
        tt.capture(per_step(loss="mse"), dataset_of("tf.data"), Y)


@pytest.mark.parametrize("empty", [X[:0], None, [], iter(()), {}])
def test_an_empty_batch_is_refused(empty):
    with pytest.raises(tt.BatchError):
        tt.capture(per_step(loss="mse"), empty)


def test_a_probe_sees_new_weights_and_new_batches():
    model = per_step(loss="mse")
    probe = tt.Probe(model, quantities=["output_gradient", "kernel"])
    first = probe(X, Y)
    model.train_on_batch(X, Y)
    second = probe(X[:2], Y[:2])
    assert first["lstm"].sizes["sample"] == 4
    assert second["lstm"].sizes["sample"] == 2
    assert np.abs(first["lstm"]["kernel"].values - second["lstm"]["kernel"].values).max() > 0


def test_a_model_that_runs_eagerly_is_run_eagerly():
    model = per_step()
    model.compile("adam", "mse", run_eagerly=True)
    eager = tt.get_rnn_gradients(model, X, Y)
    model.compile("adam", "mse")
    np.testing.assert_allclose(eager, tt.get_rnn_gradients(model, X, Y), rtol=1e-5, atol=1e-8)
