"""Which layers a caller can name, how they are called in the tree, and what a wrong name says."""

import keras
import numpy as np
import pytest

import throughtime as tt
from throughtime.adapters.keras import find
from throughtime.adapters.keras.keras3 import dialect

layers = keras.layers
STEPS, FEATURES = 5, 2
X = np.random.default_rng(0).normal(size=(3, STEPS, FEATURES)).astype("float32")
Y = np.ones((3, 1), "float32")


def paths(tree):
    return [node.path for node in tree.subtree if node.data_vars]


def captured(model, selected="recurrent", x=X, **options):
    return paths(tt.capture(model, x, layers=selected, **options))


def two_layers(**names):
    inputs = keras.Input((STEPS, FEATURES))
    hidden = layers.LSTM(3, return_sequences=True, name=names.get("lower"))(inputs)
    return keras.Model(inputs, layers.Dense(1, name="head")(layers.LSTM(3, name=names.get("upper"))(hidden)))


def test_automatic_names_are_renumbered_for_each_model():
    two_layers()
    assert captured(two_layers()) == ["/lstm", "/lstm_1"]


def test_names_of_the_user_are_kept_also_in_keras_own_style():
    assert captured(two_layers(lower="encoder", upper="lstm_77")) == ["/encoder", "/lstm_77"]


def test_signs_with_a_meaning_in_paths_are_escaped():
    # Named, not run: TensorFlow refuses such names as scopes.
    named = find.walk(dialect, two_layers(lower="a@b", upper="50%"))
    assert [entry.path for entry in named][:2] == ["a%40b", "50%25"]


class Subclassed(keras.Model):
    """Layers as attributes, in a list and in a dict."""

    def __init__(self):
        super().__init__()
        self.encoder = layers.LSTM(3, return_sequences=True)
        self.blocks = [layers.GRU(3, return_sequences=True), layers.GRU(3, return_sequences=True)]
        self.by_name = {"last": layers.SimpleRNN(3, name="mine")}
        self.head = layers.Dense(1)

    def call(self, x):
        for layer in (self.encoder, *self.blocks, self.by_name["last"]):
            x = layer(x)
        return self.head(x)


def test_a_subclassed_model_gives_its_attributes_names():
    model = Subclassed()
    model(X)
    assert set(captured(model)) == {"/encoder", "/blocks/0", "/blocks/1", "/mine"}


def nested():
    inner = keras.Sequential(
        [keras.Input((STEPS, FEATURES)), layers.LSTM(3, return_sequences=True, name="l")], name="inner"
    )
    inputs = keras.Input((STEPS, FEATURES))
    middle = keras.Model(inputs, layers.GRU(3, name="g")(inner(inputs)), name="middle")
    outer = keras.Input((STEPS, FEATURES))
    return keras.Model(outer, layers.Dense(1)(middle(outer)))


def test_nested_models_are_addressed_by_path():
    model = nested()
    assert captured(model) == ["/middle/g", "/middle/inner/l"]
    assert captured(model, "middle/inner/l") == captured(model, "middle.inner.l") == ["/middle/inner/l"]


def test_a_container_asked_for_itself_stands_beside_its_content():
    assert captured(nested(), ["middle", "l"]) == ["/middle@1", "/middle/inner/l"]


def test_each_call_of_a_shared_layer_is_a_leaf():
    inputs = keras.Input((STEPS, FEATURES))
    shared = layers.LSTM(FEATURES, return_sequences=True, name="shared")
    model = keras.Model(inputs, layers.Dense(1)(shared(shared(inputs))))
    tree = tt.capture(model, X)
    assert paths(tree) == ["/shared", "/shared@2"]
    np.testing.assert_array_equal(tree["shared"]["output"].values, tree["shared@2"]["input"].values)


def test_two_layers_of_one_path_are_told_apart():
    a, b = (
        keras.Sequential([keras.Input((STEPS, FEATURES)), layers.GRU(2, name="gru")], name=name)
        for name in ("part", "other")
    )
    b.name = "part"
    inputs = keras.Input((STEPS, FEATURES))
    model = Holding([a, b])
    model(X)
    del inputs
    assert captured(model) == ["/part/gru", "/part/gru~2"]


class Holding(keras.Model):
    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def call(self, x):
        return self.parts[0](x) + self.parts[1](x)


@pytest.mark.parametrize(
    ("selected", "expected"),
    [
        (1, ["/lower"]),
        (-2, ["/upper"]),
        ("lower", ["/lower"]),
        ("upp", ["/upper"]),
        (["upper", 1, "lower"], ["/lower", "/upper"]),
        (lambda layer: isinstance(layer, keras.layers.Dense), ["/head"]),
        ("all", ["/lower", "/upper", "/head"]),
    ],
)
def test_layers_are_chosen_by(selected, expected):
    assert captured(two_layers(lower="lower", upper="upper"), selected) == expected


def test_a_layer_object_is_itself():
    model = two_layers()
    assert captured(model, model.layers[2]) == ["/lstm_1"]


def test_a_bidirectional_is_one_leaf():
    inputs = keras.Input((STEPS, FEATURES))
    model = keras.Model(inputs, layers.Bidirectional(layers.GRU(3), name="both")(inputs))
    tree = tt.capture(model, X, layers="all")
    assert paths(tree) == ["/both"]
    assert tree["both"]["kernel"].dims == ("direction", "feature", "gate", "unit")


@pytest.mark.parametrize(
    ("selected", "error", "says"),
    [
        ("nothing", tt.LayerNotFoundError, "no layer 'nothing'"),
        (9, tt.LayerNotFoundError, "no layer 9"),
        (0, tt.LayerNotFoundError, "input"),
        ("er", tt.AmbiguousLayerError, "'lower', 'upper'"),
        (lambda layer: False, tt.LayerNotFoundError, "predicate"),
        (3.5, tt.LayerNotFoundError, "got 3.5"),
    ],
)
def test_a_wrong_name_is_answered_with_what_there_is(selected, error, says):
    with pytest.raises(error, match=says) as caught:
        tt.capture(two_layers(lower="lower", upper="upper"), X, layers=selected)
    if selected != 3.5:
        assert "lower  (LSTM)  recurrent" in str(caught.value)


def test_a_layer_of_another_model_is_refused():
    with pytest.raises(tt.LayerNotFoundError, match="not part of the model"):
        tt.capture(two_layers(), X, layers=two_layers().layers[1])


def test_a_model_without_recurrence_says_so():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    with pytest.raises(tt.LayerNotFoundError, match="no recurrent layer"):
        tt.capture(model, np.ones((2, 3)))


def test_a_loop_within_a_layer_is_shown_as_the_error_advises():
    class Folding(layers.Layer):
        def __init__(self, **config):
            super().__init__(**config)
            self.cell = layers.SimpleRNNCell(4)

        def build(self, shape):
            self.cell.build((shape[0], shape[-1]))
            self.built = True

        def call(self, x):
            h = keras.ops.zeros((2, 4))
            for step in range(3):
                h = tt.mark(self.cell(x[:, step], [h])[0], "memory")
            return h

    model = keras.Sequential([keras.Input((3, 2), batch_size=2), Folding(name="folding")])
    x = np.random.default_rng(0).normal(size=(2, 3, 2))
    with pytest.raises(tt.LayerNotFoundError, match=r"tt\.mark\(h, 'memory'\) in that loop shows h"):
        tt.capture(model, x)
    states = tt.capture(model, x, layers="folding")["memory"]["output"]
    assert states.sizes["time"] == 3
    np.testing.assert_allclose(states[:, -1], keras.ops.convert_to_numpy(model(x)), rtol=1e-6)


def test_a_layer_inside_time_distributed_has_samples_by_outer_steps():
    inputs = keras.Input((4, STEPS, FEATURES))
    inner = layers.TimeDistributed(layers.LSTM(3, return_sequences=True), name="each")(inputs)
    model = keras.Model(inputs, layers.GRU(2, name="gru")(layers.Reshape((4, STEPS * 3))(inner)))
    model.compile(loss="mse")
    x, y = np.ones((2, 4, STEPS, FEATURES), "float32"), np.zeros((2, 2), "float32")
    tree = tt.capture(model, x, y)
    assert paths(tree) == ["/each", "/gru"]
    each = tree["each"]
    assert dict(each["hidden_gradient"].sizes) == {"sample": 8, "time": STEPS, "unit": 3}
    assert each["outer_sample"].values.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert each["outer_step"].values.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    gradients = tt.get_rnn_gradients(model, x, y, layer_name="each")
    assert gradients.shape == (2, 4, STEPS, 3)
    scaled = each["output_gradient"].values * float(each["reduction_factor"])
    np.testing.assert_allclose(gradients.reshape(8, STEPS, 3), scaled, rtol=1e-5, atol=1e-8)


def distributed(inner, *, outer=4):
    inputs = keras.Input((outer, STEPS, FEATURES))
    value = layers.TimeDistributed(inner, name="each")(inputs)
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(value)))
    return model, np.random.default_rng(0).normal(size=(2, outer, STEPS, FEATURES)).astype("float32")


def test_layers_of_a_model_inside_time_distributed_are_addressed_by_path():
    inner = keras.Sequential(
        [
            keras.Input((STEPS, FEATURES)),
            layers.LSTM(3, return_sequences=True, name="lower"),
            layers.GRU(3, name="upper"),
        ]
    )
    model, x = distributed(inner)
    assert captured(model, x=x) == ["/each/lower", "/each/upper"]
    assert captured(model, "each/upper", x=x) == captured(model, "upper", x=x) == ["/each/upper"]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({}, tt.AmbiguousLayerError, "2 recurrent layers"),
        ({"layer_idx": 1, "layer_name": "lower"}, tt.AmbiguousLayerError, "both passed"),
    ],
)
def test_get_rnn_gradients_wants_exactly_one_layer(arguments, error, says):
    model = two_layers(lower="lower", upper="upper")
    with pytest.raises(error, match=says):
        tt.get_rnn_gradients(model, X, Y, loss="mse", **arguments)


def test_get_rnn_gradients_takes_the_only_recurrent_layer():
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), layers.GRU(3), layers.Dense(1)])
    assert tt.get_rnn_gradients(model, X, Y, loss="mse").shape == (3, 3)


def test_the_listing_counts_as_layer_idx_does():
    model = two_layers(lower="lower", upper="upper")
    lines = find.selection(dialect, model).listing().splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["1", "lower"], ["2", "upper"], ["3", "head"]]


def used_alone_and_distributed():
    """A GRU that reads one sequence alone and several more within TimeDistributed."""
    shared = layers.GRU(3, name="gru")
    one, several = keras.Input((STEPS, FEATURES)), keras.Input((4, STEPS, FEATURES))
    each = layers.Flatten()(layers.TimeDistributed(shared, name="each")(several))
    model = keras.Model([one, several], layers.Dense(1)(layers.Concatenate()([shared(one), each])))
    model.compile(loss="mse")
    return model, shared


def test_a_layer_that_is_used_alone_and_distributed_is_both_paths():
    model, shared = used_alone_and_distributed()
    x = [X, np.random.default_rng(1).normal(size=(3, 4, STEPS, FEATURES)).astype("float32")]
    both = ["/each", "/gru"]
    place = model.layers.index(shared)
    for selected, expected in {
        "recurrent": both,
        shared: both,
        place: both,
        "gru": ["/gru"],
        "each": ["/each"],
        model.get_layer("each"): ["/each"],
    }.items():
        assert sorted(captured(model, selected, x)) == expected
    tree = tt.capture(model, x, Y)
    # Two layers with the same weights, each used once.
    alone, inputs = layers.GRU(3, name="gru"), [keras.Input(each.shape[1:]) for each in x]
    apart = layers.TimeDistributed(layers.GRU(3), name="each")
    head = layers.Dense(1)
    merged = layers.Concatenate()([alone(inputs[0]), layers.Flatten()(apart(inputs[1]))])
    other = keras.Model(inputs, head(merged))
    other.compile(loss="mse")
    for layer in (alone, apart.layer):
        layer.set_weights(shared.get_weights())
    head.set_weights(model.layers[-1].get_weights())
    expected = tt.capture(other, x, Y)
    for path in both:
        for name in ("hidden", "hidden_gradient", "gate_gradient", "input_gradient"):
            np.testing.assert_allclose(tree[path][name], expected[path][name], rtol=1e-4, atol=1e-7)
        assert tree[path].attrs.get("outer_steps") == expected[path].attrs.get("outer_steps")
