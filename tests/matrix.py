"""The support table: one row per case, each building a small Keras model with seeded random weights.

A row names its oracle: `numpy` rows carry a `reference.Network` with the same weights, `plain` rows are
compared with the gradient that the framework itself gives (`tests/keras/plain_gradients.py`). Rows with
other oracles stand in `matrix_models.py` and `matrix_data.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import product
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend.common import masking
from tests import custom_cells, reference

from throughtime.cells import ACTIVATIONS

B, T, M, N, K = 3, 6, 2, 3, 2  # samples, steps, features, units, outputs
KINDS = ("lstm", "gru", "gru_reset_before", "simple_rnn", "rnn_cell")
WRAPPINGS = ("plain", "go_backwards", "concat", "sum")
MASKS = ("none", "right", "left", "random", "one_sample")


@dataclass(frozen=True)
class Leaf:
    """One layer call to look at: its path in the tree, the layer, which of its calls.

    A leaf that stands for a part of a layer says which of the layer's `places` it shows and whose weights
    it has; by default both, and those of the layer or of both its directions.
    """

    path: str
    layer: Any
    call: int = 1
    is_reversed: bool = False  # Keras gives its output in processing order
    places: tuple[str, ...] = ("input", "output")
    weights_of: tuple[Any, ...] | None = None
    has_outer_steps: bool = False
    has_inside: bool = True

    @property
    def holders(self) -> tuple[Any, ...]:
        """Layers or cells whose weights the leaf shows, one for each direction."""
        if self.weights_of is not None:
            return self.weights_of
        return halves(self.layer)


def halves(layer: Any) -> tuple[Any, ...]:
    both = isinstance(layer, keras.layers.Bidirectional)
    return (layer.forward_layer, layer.backward_layer) if both else (layer,)


@dataclass(frozen=True)
class Options:
    """What a test needs besides model and data; `network` only where the oracle is NumPy."""

    leaves: tuple[Leaf, ...]
    network: reference.Network | None = None
    capture: dict[str, Any] = field(default_factory=dict)
    objective: Callable[..., Any] | None = None
    reduction_factor: float = 1 / B
    frozen: bool = False
    tolerance: float = 1e-5
    twin: Any = None  # Built: another model that must give the same tree
    twin_scale: float = 1.0  # this tree's gradients ÷ the twin's
    target: Any = None  # labels as probabilities
    warns: str = ""  # what a capture must warn of


Built = tuple[Any, Any, Any, Options]


@dataclass(frozen=True)
class Row:
    """One case; `build(dtype)` returns (model, x, y, options)."""

    name: str
    group: str
    oracle: str
    build: Callable[[str], Built]


def randomise(model: Any, seed: int) -> None:
    """Give every weight, biases too, seeded values of order 0.5."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.weights])


def weights_of(layer: Any) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(w) for w in layer.weights]


def batch(seed: int, *, sequences: bool, dtype: str = "float32") -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    shape = (B, T, K) if sequences else (B, K)
    return rng.normal(size=(B, T, M)).astype(dtype), rng.normal(size=shape).astype(dtype)


def mask_of(name: str) -> np.ndarray | None:
    """(sample, time), True where valid."""
    mask = np.ones((B, T), bool)
    if name == "none":
        return None
    if name == "right":
        mask[0, 4:] = mask[1, 2:] = False
    elif name == "left":
        mask[0, :2] = mask[2, :3] = False
    elif name == "random":
        mask = np.random.default_rng(5).random((B, T)) < 0.6
        mask[:, 2] = (True, False, True)
    elif name == "one_sample":
        mask[1] = False
        mask[2, 5] = False
    return mask


def recurrent(kind: str, **config: Any) -> Any:
    """Keras layer of one kind; `rnn_cell` is an LSTMCell in the generic RNN."""
    dtype = config.get("dtype")
    if kind == "rnn_cell":
        return keras.layers.RNN(keras.layers.LSTMCell(N, dtype=dtype), **config)
    if kind == "gru_reset_before":
        return keras.layers.GRU(N, reset_after=False, **config)
    return {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "simple_rnn": keras.layers.SimpleRNN}[kind](
        N, **config
    )


def mse(dtype: str = "float32", **config: Any) -> Any:
    # A loss computes in floatx unless told otherwise.
    return keras.losses.MeanSquaredError(dtype=dtype, **config)


def full_weights(layer: Any) -> tuple[np.ndarray, ...]:
    """Keras' weights of a recurrent layer in float64, with a zero bias where there is none."""
    cells = [layer.forward_layer, layer.backward_layer] if hasattr(layer, "forward_layer") else [layer]
    arrays: list[np.ndarray] = []
    for cell in cells:
        own = [w.astype("float64") for w in weights_of(cell)]
        if len(own) == 2:
            columns = own[0].shape[1]
            after = isinstance(cell, keras.layers.GRU) and cell.reset_after
            own.append(np.zeros((2, columns) if after else (columns,)))
        arrays += own
    return tuple(arrays)


def spec(layer: Any, kind: str) -> reference.Layer:
    """The reference's description of a Keras layer."""
    merge = getattr(layer, "merge_mode", None)
    own = layer.forward_layer if merge else layer
    return reference.Layer(
        "lstm" if kind == "rnn_cell" else kind,
        own.return_sequences,
        bool(own.go_backwards),
        merge,
    )


def network(model: Any, layers: list[tuple[Any, str]], x: Any, y: Any, **changes: Any) -> reference.Network:
    """The NumPy twin of a chain ending in a Dense layer named `head`."""
    model_input = changes.pop("model_input", x)
    prediction = model(model_input, training=False)
    loss_mask = masking.get_keras_mask(prediction)  # whether masks reach the loss varies by version
    if loss_mask is not None:
        loss_mask = keras.ops.convert_to_numpy(loss_mask)
    return reference.Network(
        layers=tuple(spec(*pair) for pair in layers),
        weights=tuple(full_weights(layer) for layer, _ in layers),
        head=tuple(w.astype("float64") for w in weights_of(model.get_layer("head"))),
        x=np.asarray(x, "float64"),
        y=np.asarray(y, "float64"),
        loss_mask=loss_mask,
        **changes,
    )


def dense(dtype: str = "float32") -> Any:
    return keras.layers.Dense(K, name="head", dtype=dtype)


@lru_cache(maxsize=2)  # rows that differ in the mask only follow each other and share one trace
def product_model(kind: str, wrapping: str, dtype: str, *, sequences: bool, masked: bool) -> Any:
    """[Masking →] one recurrent layer → Dense, and its loss."""
    is_both = wrapping in ("concat", "sum")
    name = {} if is_both else {"name": "recurrent"}
    go_backwards = wrapping == "go_backwards"
    layer = recurrent(kind, return_sequences=sequences, go_backwards=go_backwards, dtype=dtype, **name)
    if is_both:
        layer = keras.layers.Bidirectional(layer, merge_mode=wrapping, name="recurrent", dtype=dtype)
    inputs = keras.Input((T, M), dtype=dtype)
    value = keras.layers.Masking(name="masking", dtype=dtype)(inputs) if masked else inputs
    model = keras.Model(inputs, dense(dtype)(layer(value)))
    randomise(model, 2)
    model.compile(loss=mse(dtype))
    return model, layer


def build_product(
    kind: str, wrapping: str, mask_name: str, *, sequences: bool, dtype: str = "float32"
) -> Built:
    """One row of layer × return_sequences × wrapping × mask."""
    x, y = batch(1, sequences=sequences, dtype=dtype)
    mask = mask_of(mask_name)
    masked = mask is not None
    model, layer = product_model(kind, wrapping, dtype, sequences=sequences, masked=masked)
    if mask is not None:
        x = x * mask[:, :, None]
    twin = network(model, [(layer, kind)], x, y, mask=mask)
    leaf = Leaf("recurrent", layer, is_reversed=wrapping == "go_backwards" and sequences)
    return model, x, y, Options((leaf,), twin)


def _product_row(kind: str, sequences: bool, wrapping: str, mask: str) -> Row:
    name = f"{kind}-{'sequences' if sequences else 'last'}-{wrapping}-mask_{mask}"

    def build(dtype: str = "float32") -> Built:
        return build_product(kind, wrapping, mask, sequences=sequences, dtype=dtype)

    return Row(name, "product", "numpy", build)


PRODUCT = tuple(
    _product_row(kind, sequences, wrapping, mask)
    for kind, sequences, wrapping, mask in product(KINDS, (True, False), WRAPPINGS, MASKS)
)
# Every pair of values of any two of the four factors occurs.
PAIRWISE = tuple(
    _product_row(kind, (i // 2 + j) % 2 == 0, WRAPPINGS[(i + j) % 4], mask)
    for (i, kind), (j, mask) in product(enumerate(KINDS), enumerate(MASKS))
)

SPECIAL: list[Row] = []


def special(
    group: str, oracle: str, name: str | None = None, **arguments: Any
) -> Callable[[Callable[..., Built]], Callable[..., Built]]:
    """Add a builder to the table under its own name, or several times with other arguments."""

    def register(build: Callable[..., Built]) -> Callable[..., Built]:
        SPECIAL.append(Row(name or build.__name__, group, oracle, partial(build, **arguments)))
        return build

    return register


def chain(
    layers: list[tuple[Any, str]],
    *,
    before: tuple[Any, ...] = (),
    after: tuple[Any, ...] = (),
    compiled: Any = "mse",
    sequential: bool = False,
) -> Any:
    """Input → before → recurrent layers → after → Dense, with random weights, compiled."""
    steps = [*before, *(layer for layer, _ in layers), *after, dense()]
    inputs = keras.Input((T, M))
    if sequential:
        model = keras.Sequential([inputs, *steps])
    else:
        value = inputs
        for step in steps:
            value = step(value)
        model = keras.Model(inputs, value)
    randomise(model, 3)
    if compiled is not None:
        model.compile(loss=compiled)
    return model


def leaves_of(*layers: Any) -> tuple[Leaf, ...]:
    return tuple(Leaf(layer.name, layer) for layer in layers)


@special("stack", "numpy", "stack_of_two", masked=False)
@special("stack", "numpy", "stack_of_two_masked", masked=True)
def stack_of_two(dtype: str = "float32", *, masked: bool) -> Built:
    layers = [
        (recurrent("lstm", return_sequences=True, name="first"), "lstm"),
        (recurrent("gru", return_sequences=True, name="second"), "gru"),
    ]
    x, y = batch(4, sequences=True)
    mask = mask_of("right") if masked else None
    if mask is not None:
        x = x * mask[:, :, None]
    model = chain(layers, before=(keras.layers.Masking(),) if masked else ())
    return model, x, y, Options(leaves_of(*(a for a, _ in layers)), network(model, layers, x, y, mask=mask))


@special("stack", "numpy")
def bidirectional_stack(dtype: str = "float32") -> Built:
    layers = [
        (keras.layers.Bidirectional(recurrent("gru", return_sequences=True), name="first"), "gru"),
        (keras.layers.Bidirectional(recurrent("lstm"), name="second"), "lstm"),
    ]
    x, y = batch(4, sequences=False)
    model = chain(layers)
    return model, x, y, Options(leaves_of(*(a for a, _ in layers)), network(model, layers, x, y))


@special("stack", "numpy")
def backwards_below_forwards(dtype: str = "float32") -> Built:
    first = recurrent("lstm", return_sequences=True, go_backwards=True, name="first")
    second = recurrent("simple_rnn", name="second")
    x, y = batch(4, sequences=False)
    layers = [(first, "lstm"), (second, "simple_rnn")]
    model = chain(layers)
    leaves = (Leaf("first", first, is_reversed=True), Leaf("second", second))
    return model, x, y, Options(leaves, network(model, layers, x, y))


@special("bidirectional", "numpy", "merge_ave", mode="ave")
@special("bidirectional", "numpy", "merge_mul", mode="mul")
def merge_mode(dtype: str = "float32", *, mode: str) -> Built:
    inner = recurrent("lstm", return_sequences=True)
    layer = keras.layers.Bidirectional(inner, merge_mode=mode, name="both")
    x, y = batch(4, sequences=True)
    model = chain([(layer, "lstm")])
    return model, x, y, Options(leaves_of(layer), network(model, [(layer, "lstm")], x, y))


def _single(layer: Any, kind: str, *, sequences: bool = False, **config: Any) -> tuple[Any, Any, Any, Any]:
    x, y = batch(6, sequences=sequences)
    model = chain([(layer, kind)], **config)
    return model, x, y, network(model, [(layer, kind)], x, y)


@special("layer", "numpy", "dropout_inactive_lstm", kind="lstm")
@special("layer", "numpy", "dropout_inactive_gru", kind="gru")
def dropout_inactive(dtype: str = "float32", *, kind: str) -> Built:
    layer = recurrent(kind, dropout=0.5, recurrent_dropout=0.3, name="recurrent")
    model, x, y, twin = _single(layer, kind, after=(keras.layers.Dropout(0.5),))
    return model, x, y, Options(leaves_of(layer), twin)


@special("layer", "numpy")
def unrolled(dtype: str = "float32") -> Built:
    layer = recurrent("lstm", unroll=True, return_sequences=True, name="recurrent")
    model, x, y, twin = _single(layer, "lstm", sequences=True)
    return model, x, y, Options(leaves_of(layer), twin)


@special("layer", "numpy", "without_bias_lstm", kind="lstm")
@special("layer", "numpy", "without_bias_gru", kind="gru")
@special("layer", "numpy", "without_bias_simple_rnn", kind="simple_rnn")
def without_bias(dtype: str = "float32", *, kind: str) -> Built:
    layer = recurrent(kind, use_bias=False, name="recurrent")
    model, x, y, twin = _single(layer, kind)
    return model, x, y, Options(leaves_of(layer), twin)


@special("layer", "numpy")
def frozen_layer(dtype: str = "float32") -> Built:
    layer = recurrent("lstm", name="recurrent", trainable=False)
    model, x, y, twin = _single(layer, "lstm")
    return model, x, y, Options(leaves_of(layer), twin, frozen=True)


@special("layer", "numpy")
def regularisers(dtype: str = "float32") -> Built:
    l2 = {f"{w}_regularizer": keras.regularizers.L2(0.1) for w in ("kernel", "recurrent", "bias")}
    layer = recurrent("gru", name="recurrent", **l2)
    x, y = batch(6, sequences=False)
    model = chain([(layer, "gru")])
    return model, x, y, Options(leaves_of(layer), network(model, [(layer, "gru")], x, y, penalty=0.1))


@special("layer", "numpy")
def stateful(dtype: str = "float32") -> Built:
    layer = recurrent("lstm", stateful=True, return_sequences=True, name="recurrent")
    x, y = batch(6, sequences=True)
    inputs = keras.Input(batch_shape=(B, T, M))
    model = keras.Model(inputs, dense()(layer(inputs)))
    randomise(model, 3)
    model.compile(loss="mse")
    # An earlier batch, so that the states are not zero; on JAX `predict` would not move them.
    model(x[::-1].copy())
    states = [keras.ops.convert_to_numpy(state).copy() for state in layer.states]
    float_states = tuple(state.astype("float64") for state in states)
    twin = network(model, [(layer, "lstm")], x, y, states=float_states)
    for state, value in zip(layer.states, states, strict=True):  # `network` has called the model
        state.assign(value)
    return model, x, y, Options(leaves_of(layer), twin)


@special("mask", "numpy")
def embedding_mask_zero(dtype: str = "float32") -> Built:
    embedding = keras.layers.Embedding(7, M, mask_zero=True, name="embedding")
    layer = recurrent("lstm", name="recurrent")
    ids = np.random.default_rng(8).integers(1, 7, (B, T)).astype("int32")
    ids[0, 4:] = 0
    _, y = batch(6, sequences=False)
    inputs = keras.Input((T,), dtype="int32")
    model = keras.Model(inputs, dense()(layer(embedding(inputs))))
    randomise(model, 3)
    model.compile(loss="mse")
    x = weights_of(embedding)[0][ids]
    twin = network(model, [(layer, "lstm")], x, y, mask=ids != 0, model_input=ids)
    return model, ids, y, Options(leaves_of(layer), twin)


@special("mask", "numpy", "mask_passed_last", sequences=False)
@special("mask", "numpy", "mask_passed_sequences", sequences=True)
def mask_passed(dtype: str = "float32", *, sequences: bool) -> Built:
    layer = recurrent("gru", return_sequences=sequences, name="recurrent")
    inputs, mask_input = keras.Input((T, M)), keras.Input((T,), dtype="bool")
    model = keras.Model([inputs, mask_input], dense()(layer(inputs, mask=mask_input)))
    randomise(model, 3)
    model.compile(loss="mse")
    x, y = batch(6, sequences=sequences)
    mask = mask_of("random")
    twin = network(model, [(layer, "gru")], x, y, mask=mask, model_input=[x, mask])
    return model, [x, mask], y, Options(leaves_of(layer), twin)


@special("loss", "numpy", "sample_weight", over_time=False)
@special("loss", "numpy", "sample_weight_over_time", over_time=True)
def sample_weight(dtype: str = "float32", *, over_time: bool) -> Built:
    layer = recurrent("lstm", return_sequences=over_time, name="recurrent")
    x, y = batch(6, sequences=over_time)
    weight = np.random.default_rng(9).uniform(0.2, 2, (B, T) if over_time else (B,)).astype("float32")
    model = chain([(layer, "lstm")])
    twin = network(model, [(layer, "lstm")], x, y, sample_weight=weight.astype("float64"))
    return model, x, y, Options(leaves_of(layer), twin, {"sample_weight": weight})


@special("loss", "numpy")
def sum_reduction(dtype: str = "float32") -> Built:
    layer = recurrent("lstm", return_sequences=True, name="recurrent")
    x, y = batch(6, sequences=True)
    loss = mse(reduction="sum")
    model = chain([(layer, "lstm")], compiled=loss)
    twin = network(model, [(layer, "lstm")], x, y, reduction="sum")
    return model, x, y, Options(leaves_of(layer), twin, objective=loss, reduction_factor=1.0)


@special("loss", "numpy")
def loss_callable(dtype: str = "float32") -> Built:
    """An uncompiled model and a loss `(y_true, y_pred)` that gives one scalar."""
    layer = recurrent("gru", name="recurrent")
    model, x, y, twin = _single(layer, "gru", compiled=None)

    def loss(y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean(keras.ops.square(y_pred - y_true))

    return model, x, y, Options(leaves_of(layer), twin, {"loss": loss})


@special("loss", "numpy")
def loss_per_sample(dtype: str = "float32") -> Built:
    """`loss=keras.losses.mean_squared_error` gives one value a sample; Keras takes the mean."""
    layer = recurrent("gru", name="recurrent")
    model, x, y, twin = _single(layer, "gru", compiled=None)
    return model, x, y, Options(leaves_of(layer), twin, {"loss": keras.losses.mean_squared_error})


@special("model", "numpy")
def sequential(dtype: str = "float32") -> Built:
    layer = recurrent("lstm", name="recurrent")
    model, x, y, twin = _single(layer, "lstm", sequential=True)
    return model, x, y, Options(leaves_of(layer), twin)


@special("model", "numpy")
def automatic_names(dtype: str = "float32") -> Built:
    """`lstm_37` and `lstm_38` of a long session are `lstm` and `lstm_1` in the tree."""
    recurrent("lstm")
    layers = [(recurrent("lstm", return_sequences=True), "lstm"), (recurrent("lstm"), "lstm")]
    x, y = batch(4, sequences=False)
    model = chain(layers)
    leaves = (Leaf("lstm", layers[0][0]), Leaf("lstm_1", layers[1][0]))
    return model, x, y, Options(leaves, network(model, layers, x, y))


@special("states", "plain", "return_state_last", sequences=False)
@special("states", "plain", "return_state_sequences", sequences=True)
def return_state(dtype: str = "float32", *, sequences: bool) -> Built:
    """The head reads the output and the final states."""
    layer = recurrent("lstm", return_state=True, return_sequences=sequences, name="recurrent")
    inputs = keras.Input((T, M))
    output, h, c = layer(inputs)
    states = keras.layers.Concatenate()([h, c])
    if sequences:
        states = keras.layers.RepeatVector(T)(states)
    model = keras.Model(inputs, dense()(keras.layers.Concatenate()([output, states])))
    randomise(model, 3)
    model.compile(loss="mse")
    x, y = batch(6, sequences=sequences)
    return model, x, y, Options(leaves_of(layer))


@special("states", "plain")
def initial_state(dtype: str = "float32") -> Built:
    """Encoder and decoder: the decoder starts from the encoder's final states."""
    encoder = recurrent("lstm", return_state=True, name="encoder")
    decoder = recurrent("lstm", return_sequences=True, name="decoder")
    source, target = keras.Input((T, M)), keras.Input((T, M))
    output, h, c = encoder(source)
    sequence = decoder(target, initial_state=[h, c])
    both = keras.layers.Concatenate()([sequence, keras.layers.RepeatVector(T)(output)])
    model = keras.Model([source, target], dense()(both))
    randomise(model, 3)
    model.compile(loss="mse")
    x, y = batch(6, sequences=True)
    return model, [x, x[:, ::-1].copy()], y, Options(leaves_of(encoder, decoder))


@special("model", "plain")
def shared_layer(dtype: str = "float32") -> Built:
    layer = recurrent("lstm", name="shared")
    left, right = keras.Input((T, M)), keras.Input((T, M))
    model = keras.Model([left, right], dense()(keras.layers.Concatenate()([layer(left), layer(right)])))
    randomise(model, 3)
    model.compile(loss="mse")
    x, y = batch(6, sequences=False)
    leaves = (Leaf("shared", layer, 1), Leaf("shared@2", layer, 2))
    return model, [x, x[::-1].copy()], y, Options(leaves)


@special("model", "plain", "several_inputs", as_dict=False)
@special("model", "plain", "dict_inputs", as_dict=True)
def several_inputs(dtype: str = "float32", *, as_dict: bool) -> Built:
    left, right = keras.Input((T, M), name="left"), keras.Input((T, M), name="right")
    a, b = recurrent("lstm", name="a"), recurrent("gru", name="b")
    outputs = dense()(keras.layers.Concatenate()([a(left), b(right)]))
    model = keras.Model({"left": left, "right": right} if as_dict else [left, right], outputs)
    randomise(model, 3)
    model.compile(loss="mse")
    x, y = batch(6, sequences=False)
    other = x[::-1].copy()
    return model, {"left": x, "right": other} if as_dict else [x, other], y, Options(leaves_of(a, b))


@special("model", "plain")
def nested_two_deep(dtype: str = "float32") -> Built:
    layer = recurrent("lstm", return_sequences=True, name="lstm")
    inner_input = keras.Input((T, M))
    inner = keras.Model(inner_input, layer(inner_input), name="inner")
    middle_input = keras.Input((T, M))
    middle = keras.Model(middle_input, keras.layers.Dense(N)(inner(middle_input)), name="encoder")
    inputs = keras.Input((T, M))
    model = keras.Model(inputs, dense()(middle(inputs)))
    randomise(model, 3)
    model.compile(loss="mse")
    x, y = batch(6, sequences=True)
    return model, x, y, Options((Leaf("encoder/inner/lstm", layer),))


@special("model", "plain")
def sequential_in_functional(dtype: str = "float32") -> Built:
    layer = recurrent("gru", name="gru")
    block = keras.Sequential([keras.Input((T, M)), layer, keras.layers.Dense(N)], name="block")
    inputs = keras.Input((T, M))
    model = keras.Model(inputs, dense()(block(inputs)))
    randomise(model, 3)
    model.compile(loss="mse")
    x, y = batch(6, sequences=False)
    return model, x, y, Options((Leaf("block/gru", layer),))


class Subclassed(keras.Model):
    """A model without a graph: its layers are known by attribute only."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = keras.layers.LSTM(N, return_sequences=True)
        self.summary_layer = keras.layers.GRU(N)
        self.readout = keras.layers.Dense(K)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.readout(self.summary_layer(self.memory(x)))


@special("model", "plain")
def subclassed(dtype: str = "float32") -> Built:
    model = Subclassed()
    x, y = batch(6, sequences=False)
    model(x)
    randomise(model, 3)
    model.compile(loss="mse")
    leaves = (Leaf("memory", model.memory), Leaf("summary_layer", model.summary_layer))
    return model, x, y, Options(leaves)


def own_model(inputs: Any, value: Any, **capture: Any) -> tuple[Any, Any, Any, dict[str, Any]]:
    """A head on all that was returned, side by side; a batch for it, and arguments of the capture."""
    flat = [ops.reshape(tensor, (B, -1)) for tensor in keras.tree.flatten(value)]
    # Plain operations: they take no mask along.
    model = keras.Model(inputs, dense()(ops.concatenate(flat, -1) if len(flat) > 1 else flat[0]))
    rng = np.random.default_rng(3)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    model.compile(loss="mse")
    x = rng.normal(size=inputs.shape).astype("float32")
    return model, x, rng.normal(size=(B, K)).astype("float32"), capture


def sequence_input(*shape: int) -> Any:
    return keras.Input(batch_shape=(B, *(shape or (T, M))))


def own_cell(dtype: str = "float32", *, cell: Any, masked: bool = False, **settings: Any) -> Built:
    layer = keras.layers.RNN(cell(N), name="recurrent", **settings)
    inputs = sequence_input()
    model, x, y, _ = own_model(inputs, layer(keras.layers.Masking()(inputs) if masked else inputs))
    x = x * mask_of("random")[:, :, None] if masked else x
    return model, x, y, Options(leaves_of(layer))


for name, cell in {
    "custom_cell": custom_cells.DecayCell,
    "custom_cell_of_two_states": custom_cells.TwoStateCell,
    "custom_cell_naming_its_states": custom_cells.NamedStatesCell,
    "layer_norm_lstm_cell": custom_cells.LayerNormLSTMCell,
}.items():
    special("cell", "plain", name, cell=cell, return_sequences=True)(own_cell)
special("cell", "plain", "custom_cell_masked", cell=custom_cells.DecayCell, masked=True, go_backwards=True)(
    own_cell
)


def cells_leaves(layer: Any, path: str = "recurrent") -> tuple[Leaf, ...]:
    """Leaves of stacked cells: the lowest shows the layer's input, the topmost its output."""
    by_place = list(zip(*(half.cell.cells for half in halves(layer)), strict=True))
    last = len(by_place) - 1
    ends = [("input",) * (place == 0) + ("output",) * (place == last) for place in range(last + 1)]
    return tuple(
        Leaf(f"{path}/{place}", layer, places=places, weights_of=cells)
        for place, (places, cells) in enumerate(zip(ends, by_place, strict=True))
    )


@special("stack", "plain", "stacked_cells", masked=False)
@special("stack", "plain", "stacked_cells_masked", masked=True)
def stacked_cells(dtype: str = "float32", *, masked: bool) -> Built:
    lstm, gru, simple = keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell
    cells = [gru(N), simple(N + 1), lstm(N)] if masked else [lstm(N), gru(N + 1)]
    layer = keras.layers.RNN(cells, return_sequences=not masked, name="recurrent")
    inputs = sequence_input()
    model, x, y, _ = own_model(inputs, layer(keras.layers.Masking()(inputs) if masked else inputs))
    x = x * mask_of("random")[:, :, None] if masked else x
    return model, x, y, Options(cells_leaves(layer))


@special("bidirectional", "plain")
def bidirectional_over_stacked_cells(dtype: str = "float32") -> Built:
    cells = [keras.layers.LSTMCell(N), keras.layers.GRUCell(N)]
    inner = keras.layers.RNN(cells, return_sequences=True)
    layer = keras.layers.Bidirectional(inner, name="recurrent")
    inputs = sequence_input()
    model, x, y, _ = own_model(inputs, layer(inputs))
    return model, x, y, Options(cells_leaves(layer))


@special("bidirectional", "plain")
def merge_none(dtype: str = "float32") -> Built:
    inner = recurrent("gru", return_sequences=True)
    layer = keras.layers.Bidirectional(inner, merge_mode=None, name="both")
    inputs = sequence_input()
    model, x, y, _ = own_model(inputs, layer(inputs))
    return model, x, y, Options(leaves_of(layer))


@special("bidirectional", "plain")
def two_different_halves(dtype: str = "float32") -> Built:
    backward = recurrent("gru", return_sequences=True, go_backwards=True)
    layer = keras.layers.Bidirectional(
        recurrent("lstm", return_sequences=True), backward_layer=backward, name="both"
    )
    inputs = sequence_input()
    model, x, y, _ = own_model(inputs, layer(inputs))
    each = [
        Leaf(f"both@{way}", layer, places=(), weights_of=(half,))
        for way, half in zip(("forward", "backward"), halves(layer), strict=True)
    ]
    return model, x, y, Options((Leaf("both", layer, weights_of=(), has_inside=False), *each))


@special("convolution", "plain", "conv_lstm_1d", of="ConvLSTM1D", space=(5,), return_sequences=True)
@special("convolution", "plain", "conv_lstm_2d", of="ConvLSTM2D", space=(3, 4), return_sequences=True)
@special("convolution", "plain", "conv_lstm_2d_last_step", of="ConvLSTM2D", space=(3, 4), padding="same")
@special("convolution", "plain", "conv_lstm_3d", of="ConvLSTM3D", space=(2, 3, 2), go_backwards=True)
def conv_lstm(dtype: str = "float32", *, of: str, space: tuple[int, ...], **settings: Any) -> Built:
    layer = getattr(keras.layers, of)(2, 2, name="recurrent", **settings)
    inputs = sequence_input(T, *space, M)
    model, x, y, _ = own_model(inputs, layer(inputs))
    return model, x, y, Options(leaves_of(layer))


OUTER = 2  # steps of a TimeDistributed


def outer_leaf(path: str, layer: Any, *places: str, weights_of: Any) -> Leaf:
    return Leaf(path, layer, places=places, weights_of=weights_of, has_outer_steps=True)


@special("outer steps", "plain", "time_distributed_lstm", both=False)
@special("outer steps", "plain", "time_distributed_bidirectional_gru", both=True)
def time_distributed(dtype: str = "float32", *, both: bool) -> Built:
    inner = recurrent("lstm", return_sequences=True)
    if both:
        inner = keras.layers.Bidirectional(recurrent("gru"))
    layer = keras.layers.TimeDistributed(inner, name="each")
    inputs = sequence_input(OUTER, T, M)
    model, x, y, _ = own_model(inputs, layer(inputs))
    leaf = outer_leaf("each", layer, "input", "output", weights_of=halves(layer.layer))
    return model, x, y, Options((leaf,))


@special("outer steps", "plain")
def time_distributed_before_lstm(dtype: str = "float32") -> Built:
    layer = keras.layers.TimeDistributed(keras.layers.RNN(custom_cells.DecayCell(N)), name="each")
    above = recurrent("lstm", name="recurrent")
    inputs = sequence_input(OUTER, T, M)
    model, x, y, _ = own_model(inputs, above(layer(inputs)))
    leaf = outer_leaf("each", layer, "input", "output", weights_of=(layer.layer,))
    return model, x, y, Options((leaf, *leaves_of(above)))


@special("outer steps", "plain")
def time_distributed_model(dtype: str = "float32") -> Built:
    lower, upper = recurrent("lstm", return_sequences=True, name="lower"), recurrent("gru", name="upper")
    inner = keras.Sequential([keras.Input((T, M)), lower, upper])
    layer = keras.layers.TimeDistributed(inner, name="each")
    inputs = sequence_input(OUTER, T, M)
    model, x, y, _ = own_model(inputs, layer(inputs))
    leaves = (
        outer_leaf("each/lower", layer, "input", weights_of=(lower,)),
        outer_leaf("each/upper", layer, "output", weights_of=(upper,)),
    )
    return model, x, y, Options(leaves)


def side_by_side(layers: list[Any], *, masked: bool = False, **capture: Any) -> Built:
    """Several layers on the same input, so that they share one compilation."""
    inputs = sequence_input()
    value = keras.layers.Masking()(inputs) if masked else inputs
    model, x, y, capture = own_model(inputs, [layer(value) for layer in layers], **capture)
    x = x * mask_of("random")[:, :, None] if masked else x
    return model, x, y, Options(leaves_of(*layers), capture=capture)


@special("dropout", "plain", "dropout_active", dropout=0.4)
@special("dropout", "plain", "recurrent_dropout_active", recurrent_dropout=0.4)
def dropout_active(dtype: str = "float32", **rates: float) -> Built:
    """All kinds in training."""
    # A seed: now and then a mask leaves nothing of so few numbers, and there is nothing to compare.
    layers = [recurrent(kind, return_sequences=True, name=kind, seed=3, **rates) for kind in KINDS[:4]]
    return side_by_side(layers, training=True)


@special("dropout", "plain")
def dropout_active_in_stacked_cells(dtype: str = "float32") -> Built:
    cells = [
        keras.layers.GRUCell(N, dropout=0.4, recurrent_dropout=0.4),
        keras.layers.LSTMCell(N, recurrent_dropout=0.4),
    ]
    layer = keras.layers.RNN(cells, return_sequences=True, name="recurrent")
    inputs = sequence_input()
    model, x, y, capture = own_model(inputs, layer(inputs), training=True)
    return model, x, y, Options(cells_leaves(layer), capture=capture)


@special("activation", "plain")
def known_activations(dtype: str = "float32") -> Built:
    """Each with a derivative in closed form, in an LSTM."""
    layers = [recurrent("lstm", activation=name, name=name) for name in ACTIVATIONS]
    model, *others = side_by_side(layers)
    # Some explode, and some are 0 around 0.
    for name, factor in {"exponential": 0.1, "soft_shrink": 3.0, "hard_shrink": 3.0}.items():
        layer = model.get_layer(name)
        layer.set_weights([factor * weight for weight in layer.get_weights()])
    return model, *others


@special("activation", "plain")
def other_activations(dtype: str = "float32") -> Built:
    layers = [
        recurrent("lstm", activation="gelu", return_sequences=True, name="gelu"),
        recurrent("gru", activation="softmax", return_sequences=True, name="softmax"),
        recurrent("simple_rnn", activation=lambda z: 2 * ops.sin(z), return_sequences=True, name="sine"),
    ]
    return side_by_side(layers)


@special("layer", "plain")
def settings_of_the_kernel(dtype: str = "float32") -> Built:
    """Without cuDNN, with the older implementation, unrolled, constrained: the same numbers."""
    constraints = {"kernel_constraint": keras.constraints.MaxNorm(1.0), "bias_constraint": "non_neg"}
    layers = [
        recurrent("lstm", use_cudnn=False, name="lstm_without_cudnn"),
        recurrent("gru", use_cudnn=False, name="gru_without_cudnn"),
        recurrent("lstm", implementation=1, name="lstm_implementation_1"),
        recurrent("gru", implementation=1, return_sequences=True, name="gru_implementation_1"),
        recurrent("gru", unroll=True, return_sequences=True, zero_output_for_mask=True, name="gru_unrolled"),
        recurrent("simple_rnn", name="simple_rnn_constrained", **constraints),
    ]
    return side_by_side(layers, masked=True)


@special("loss", "plain")
def several_outputs(dtype: str = "float32") -> Built:
    """Two outputs with loss weights 1 and 0.3."""
    layer = recurrent("lstm", return_sequences=True, name="recurrent")
    inputs = keras.Input((T, M))
    sequence = layer(inputs)
    last = keras.layers.GRU(N, name="last")(sequence)
    outputs = {
        "steps": keras.layers.Dense(K, name="steps")(sequence),
        "final": keras.layers.Dense(K, name="final")(last),
    }
    model = keras.Model(inputs, outputs)
    randomise(model, 3)
    model.compile(loss={"steps": "mse", "final": "mse"}, loss_weights={"steps": 1.0, "final": 0.3})
    x, steps = batch(6, sequences=True)
    final = batch(7, sequences=False)[1]

    def objective(y: Any, prediction: Any, sample_weight: Any = None) -> Any:
        error = keras.losses.MeanSquaredError()
        return error(y["steps"], prediction["steps"]) + 0.3 * error(y["final"], prediction["final"])

    leaves = leaves_of(layer, model.get_layer("last"))
    return model, x, {"steps": steps, "final": final}, Options(leaves, objective=objective)


from tests import matrix_data, matrix_models  # noqa: E402, F401 - add their rows to SPECIAL

SPECIALS = tuple(SPECIAL)
