"""Rows of the support table for whole models: their losses, precisions, compilation and where they come from.

A `twin` row is compared with another model that must give the same tree, `logits` rows with p − y.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tests.custom_cells import DecayCell
from tests.matrix import (
    B,
    Built,
    K,
    Leaf,
    M,
    N,
    Options,
    T,
    batch,
    chain,
    dense,
    leaves_of,
    network,
    randomise,
    recurrent,
    special,
)

layers = keras.layers


def pair(*, as_dict: bool = False, **compiled: Any) -> tuple[Any, tuple[Leaf, ...]]:
    """An LSTM read at every step by `steps`, and through a GRU at the last step by `final`."""
    lower, upper = recurrent("lstm", return_sequences=True, name="lower"), recurrent("gru", name="upper")
    inputs = keras.Input((T, M))
    sequence = lower(inputs)
    steps, final = layers.Dense(K, name="steps")(sequence), layers.Dense(K, name="final")(upper(sequence))
    model = keras.Model(inputs, {"steps": steps, "final": final} if as_dict else [steps, final])
    randomise(model, 3)
    model.compile(**compiled)
    return model, leaves_of(lower, upper)


def mean_of(squares: Callable[[Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """Mean over all elements, weighed by sample or by step."""

    def value(y: Any, prediction: Any, weight: Any = None) -> Any:
        values = keras.ops.mean(squares(prediction - keras.ops.convert_to_tensor(y)), axis=-1)
        if weight is not None:
            values = values * keras.ops.convert_to_tensor(weight)
        return keras.ops.mean(values)

    return value


squared, absolute = mean_of(keras.ops.square), mean_of(keras.ops.absolute)


@special("loss", "plain")
def loss_list_with_weights(dtype: str = "float32") -> Built:
    """A list of losses with a list of weights, and metrics of both kinds."""
    metrics = {"metrics": [["mae"], ["mse"]], "weighted_metrics": [["mae"], []]}
    model, leaves = pair(loss=["mse", "mae"], loss_weights=[1.0, 0.3], **metrics)
    x, steps = batch(6, sequences=True)

    def objective(y: Any, prediction: Any, sample_weight: Any = None) -> Any:
        return squared(y[0], prediction[0]) + 0.3 * absolute(y[1], prediction[1])

    return model, x, [steps, batch(7, sequences=False)[1]], Options(leaves, objective=objective)


@special("loss", "plain")
def loss_list_with_sample_weights(dtype: str = "float32") -> Built:
    """Sample weights of each output's own, by step and by sample."""
    model, leaves = pair(loss=["mse", "mae"])
    x, steps = batch(6, sequences=True)
    by_step = np.random.default_rng(9).uniform(0.2, 2, (B, T)).astype("float32")
    weights = [by_step, np.array([3.0, 0.0, 1.0], "float32")]

    def objective(y: Any, prediction: Any, sample_weight: Any = None) -> Any:
        first, second = sample_weight
        return squared(y[0], prediction[0], first) + absolute(y[1], prediction[1], second)

    options = Options(leaves, objective=objective, capture={"sample_weight": weights})
    return model, x, [steps, batch(7, sequences=False)[1]], options


@special("loss", "plain")
def loss_for_one_output_of_two(dtype: str = "float32") -> Built:
    """A dict that names one output; the other one has no labels."""
    model, leaves = pair(as_dict=True, loss={"final": "mse"})

    def objective(y: Any, prediction: Any, sample_weight: Any = None) -> Any:
        return squared(y["final"], prediction["final"])

    x, final = batch(6, sequences=False)
    return model, x, {"final": final}, Options(leaves, objective=objective)


class Adding(layers.Layer):
    """Adds the mean square of what passes through to the loss."""

    def call(self, x: Any) -> Any:
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(x)))
        return x


def ending_in(layer: Any, *, before: Any = None, model_class: Any = keras.Model, **compiled: Any) -> Any:
    """Input → layer [→ `before`] → Dense, of any class, with the weights of every other such model."""
    inputs = keras.Input((T, M))
    value = layer(inputs)
    model = model_class(inputs, dense()(value if before is None else before(value)))
    randomise(model, 3)
    if compiled:
        model.compile(**compiled)
    return model


def sequence_layer(**config: Any) -> Any:
    return recurrent("lstm", return_sequences=True, name="recurrent", **config)


def with_hidden_as_output(*, head: bool = True, added: float = 0.1) -> tuple[Any, Any]:
    """The twin of models that add to the loss: what is added is the loss of an output of its own."""
    layer = sequence_layer()
    inputs = keras.Input((T, M))
    hidden = layer(inputs)
    whole = keras.Model(inputs, [dense()(hidden), hidden])
    randomise(whole, 3)
    zeros = np.zeros((B, T, N), "float32")
    losses = ["mse" if head else None, "mse"]
    whole.compile(loss=losses, loss_weights=[1.0, added])
    return whole, zeros


@special("loss", "twin", "add_loss_in_a_layer", compiled=True)
@special("loss", "twin", "add_loss_alone", compiled=False)
def add_loss(dtype: str = "float32", *, compiled: bool) -> Built:
    """A layer adds to the loss, beside a compiled one or without; then no labels are needed."""
    layer = sequence_layer()
    model = ending_in(layer, before=Adding(), optimizer="adam", loss="mse" if compiled else None)
    x, y = batch(6, sequences=True)
    whole, zeros = with_hidden_as_output(head=compiled)
    # An added loss alone says nothing of how it is reduced over samples: its mean is not undone.
    scale = 1.0 if compiled else 1 / B
    twin = (whole, x, [y, zeros], Options((), capture={"layers": "recurrent"}))
    return model, x, y if compiled else None, Options(leaves_of(layer), twin=twin, twin_scale=scale)


@special("loss", "twin")
def activity_regulariser(dtype: str = "float32") -> Built:
    """Of a recurrent layer; whether Keras divides it by the batch size depends on its version."""
    layer = sequence_layer(activity_regularizer=keras.regularizers.L2(0.01))
    model = ending_in(layer, loss="mse")
    x, y = batch(6, sequences=True)
    hidden = keras.Model(model.inputs[0], layer.output)(x)
    numbers = sum(layer.losses), keras.ops.mean(keras.ops.square(hidden))
    total, square = (float(keras.ops.convert_to_numpy(number)) for number in numbers)
    whole, zeros = with_hidden_as_output(added=total / square)
    return model, x, y, Options(leaves_of(layer), twin=(whole, x, [y, zeros], Options(())))


@special("loss", "plain")
def ctc(dtype: str = "float32") -> Built:
    """Labels of a length of their own."""
    layer = sequence_layer()
    loss = keras.losses.CTC()
    model = ending_in(layer, loss=loss)
    x, _ = batch(6, sequences=True)
    return model, x, np.ones((B, 2), "int32"), Options(leaves_of(layer), objective=loss)


class OwnLoss(keras.Model):
    """Computes its loss itself, keeps a metric of it, and adds what layers add."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.seen = keras.metrics.Mean(name="seen")

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        loss = keras.ops.mean(keras.ops.square(y - y_pred)) + sum(self.losses)
        self.seen.update_state(loss)
        return loss


@special("loss", "twin")
def compute_loss_overridden(dtype: str = "float32") -> Built:
    layer = sequence_layer()
    model = ending_in(layer, before=Adding(), model_class=OwnLoss, optimizer="adam")
    x, y = batch(6, sequences=True)
    whole, zeros = with_hidden_as_output()
    return model, x, y, Options(leaves_of(layer), twin=(whole, x, [y, zeros], Options(())))


class Reconstruction(keras.Model):
    """An autoencoder: its loss compares with the input and needs no labels."""

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        return keras.ops.mean(keras.ops.square(x[..., :K] - y_pred))


@special("loss", "twin")
def compute_loss_without_labels(dtype: str = "float32") -> Built:
    layer, same = sequence_layer(), sequence_layer()
    model = ending_in(layer, model_class=Reconstruction, optimizer="adam")
    x, _ = batch(6, sequences=True)
    twin = (ending_in(same, loss="mse"), x, x[..., :K].copy(), Options(()))
    return model, x, None, Options(leaves_of(layer), twin=twin)


def scaled_mse(factor: float) -> Callable[[Any, Any], Any]:
    def loss(y_true: Any, y_pred: Any) -> Any:
        return factor * keras.ops.mean(keras.ops.square(y_true - y_pred))

    return loss


@special("precision", "twin", "mixed_float16", policy="mixed_float16")
@special("precision", "twin", "mixed_float16_with_loss_scaling", policy="mixed_float16", scaled=True)
@special("precision", "twin", "mixed_float16_with_a_tiny_loss", policy="mixed_float16", factor=1e-6)
@special("precision", "twin", "mixed_float16_with_a_huge_loss", policy="mixed_float16", factor=1e4)
@special("precision", "twin", "mixed_bfloat16", policy="mixed_bfloat16")
@special("precision", "twin", "mixed_bfloat16_with_a_tiny_loss", policy="mixed_bfloat16", factor=1e-6)
@special("precision", "twin", "float16", policy="float16")
@special("precision", "twin", "bfloat16", policy="bfloat16")
def precision(dtype: str = "float32", *, policy: str, factor: float = 1.0, scaled: bool = False) -> Built:
    """A stack and a bidirectional layer in half precision; the twin computes in float32."""

    def stack(policy: str, optimizer: Any) -> tuple[Any, tuple[Leaf, ...]]:
        # Keras draws its orthogonal matrices in the layer's precision, for which LAPACK has none.
        config = {"dtype": policy, "recurrent_initializer": "zeros"}
        lower = recurrent("lstm", return_sequences=True, name="lower", **config)
        upper = layers.Bidirectional(recurrent("gru", **config), name="upper", dtype=policy)
        inputs = keras.Input((T, M))
        model = keras.Model(inputs, dense()(upper(lower(inputs))))
        randomise(model, 3)
        model.compile(optimizer, loss=scaled_mse(factor))
        return model, leaves_of(lower, upper)

    adam = keras.optimizers.Adam()
    model, leaves = stack(policy, keras.optimizers.LossScaleOptimizer(adam) if scaled else adam)
    x, y = batch(6, sequences=False)
    twin = (stack("float32", "adam")[0], x, y, Options(()))
    return model, x, y, Options(leaves, twin=twin, tolerance=5e-2 if "bfloat16" in policy else 1e-2)


def any_cell(kind: str, policy: str) -> tuple[Any, tuple[int, ...]]:
    """A layer whose cell goes through the framework's autodiff, and the shape of its input."""
    if kind == "stacked":
        cells = [layers.LSTMCell(N, dtype=policy), layers.GRUCell(N, dtype=policy)]
        # A list alone would be stacked in float32, whose states do not fit the cells.
        both = layers.StackedRNNCells(cells, dtype=policy)
        return layers.RNN(both, name="recurrent", dtype=policy), (T, M)
    if kind == "convolutional":
        return layers.ConvLSTM1D(2, 2, name="recurrent", dtype=policy), (T, 4, M)
    if kind == "distributed":
        inner = recurrent("gru", name="recurrent", dtype=policy)
        return layers.TimeDistributed(inner, name="outer", dtype=policy), (2, T, M)
    return layers.RNN(DecayCell(N, dtype=policy), name="recurrent", dtype=policy), (T, M)


@special("precision", "twin", "mixed_float16_stacked_cells", kind="stacked")
@special("precision", "twin", "mixed_float16_convolutional_cell", kind="convolutional")
@special("precision", "twin", "mixed_float16_custom_cell", kind="custom")
@special("precision", "twin", "mixed_float16_time_distributed", kind="distributed")
@special("precision", "twin", "mixed_bfloat16_custom_cell", kind="custom", policy="mixed_bfloat16")
def precision_of_any_cell(dtype: str = "float32", *, kind: str, policy: str = "mixed_float16") -> Built:
    """With a loss so small that it needs scaling."""

    def model_in(policy: str) -> tuple[Any, Any]:
        layer, shape = any_cell(kind, policy)
        inputs = keras.Input(shape)
        model = keras.Model(inputs, dense()(layers.Flatten()(layer(inputs))))
        randomise(model, 3)
        model.compile(loss=scaled_mse(1e-6))
        return model, layer

    model, layer = model_in(policy)
    shape = (B, *model.input_shape[1:])
    x = np.random.default_rng(6).normal(size=shape).astype("float32")
    y = batch(6, sequences=False)[1]
    path = {"stacked": "recurrent/0", "distributed": "outer"}.get(kind, "recurrent")
    twin = (model_in("float32")[0], x, y, Options(()))
    return model, x, y, Options((Leaf(path, layer),), twin=twin, tolerance=5e-2 if "b" in policy else 1e-2)


@special("compilation", "numpy", "jit_compile", jit_compile=True)
@special("compilation", "numpy", "jit_compile_off", jit_compile=False)
@special("compilation", "numpy", "jit_compile_auto", jit_compile="auto")
@special("compilation", "numpy", "run_eagerly", run_eagerly=True)
@special("compilation", "numpy", "steps_per_execution", steps_per_execution=4)
def compilation(dtype: str = "float32", **how: Any) -> Built:
    layer = sequence_layer()
    x, y = batch(6, sequences=True)
    model = chain([(layer, "lstm")], compiled=None)
    model.compile(loss="mse", **how)
    return model, x, y, Options(leaves_of(layer), network(model, [(layer, "lstm")], x, y))


@special("model", "numpy")
def fixed_batch_size(dtype: str = "float32") -> Built:
    layer = sequence_layer()
    inputs = keras.Input(batch_shape=(B, T, M))
    model = keras.Model(inputs, dense()(layer(inputs)))
    randomise(model, 3)
    model.compile(loss="mse")
    x, y = batch(6, sequences=True)
    return model, x, y, Options(leaves_of(layer), network(model, [(layer, "lstm")], x, y))


@special("model", "numpy")
def constraints(dtype: str = "float32") -> Built:
    """What is done to weights after a step changes no gradient."""
    config = {
        "kernel_constraint": "max_norm",
        "recurrent_constraint": "unit_norm",
        "bias_constraint": "non_neg",
    }
    layer = sequence_layer(**config)
    x, y = batch(6, sequences=True)
    model = chain([(layer, "lstm")])
    return model, x, y, Options(leaves_of(layer), network(model, [(layer, "lstm")], x, y))


def saved(model: Any, name: str) -> str:
    folder = Path(tempfile.mkdtemp(prefix="throughtime-"))
    path = str(folder / name)
    if name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    return path


@special("model", "twin", "loaded_from_keras_file", suffix=".keras")
@special("model", "twin", "loaded_from_h5_file", suffix=".h5")
@special("model", "twin", "loaded_weights", suffix=".weights.h5")
@special("model", "twin", "cloned", suffix="")
def copied(dtype: str = "float32", *, suffix: str) -> Built:
    """A model that was written and read again, or cloned, is captured like the first."""
    loss = keras.losses.MeanSquaredError()
    first = ending_in(sequence_layer(), optimizer="sgd", loss=loss)
    if suffix in (".keras", ".h5"):
        model = keras.saving.load_model(saved(first, f"model{suffix}"))
    else:
        model = keras.models.clone_model(first)
        if suffix:
            model.load_weights(saved(first, f"model{suffix}"))
        else:
            model.set_weights(first.get_weights())
        model.compile(loss=loss)
    x, y = batch(6, sequences=True)
    return model, x, y, Options(leaves_of(model.get_layer("recurrent")), twin=(first, x, y, Options(())))


@special("model", "plain")
def convolutions_over_time(dtype: str = "float32") -> Built:
    """A model of images inside a model inside TimeDistributed, before an LSTM."""
    image = keras.Input((4, 4, 1))
    inner = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(2, 3), layers.Flatten()], name="inner")
    encoder = keras.Model(image, layers.Dense(M)(inner(image)), name="encoder")
    layer = recurrent("lstm", name="recurrent")
    inputs = keras.Input((T, 4, 4, 1))
    model = keras.Model(inputs, dense()(layer(layers.TimeDistributed(encoder)(inputs))))
    randomise(model, 3)
    model.compile(loss="mse")
    x = np.random.default_rng(6).normal(size=(B, T, 4, 4, 1)).astype("float32")
    return model, x, batch(6, sequences=False)[1], Options(leaves_of(layer))


@special("model", "plain")
def frozen_submodel(dtype: str = "float32") -> Built:
    inner = recurrent("lstm", return_sequences=True, name="inner")
    normalised = layers.BatchNormalization()
    encoder = keras.Sequential([keras.Input((T, M)), inner, normalised], name="encoder")
    upper = recurrent("gru", name="upper")
    inputs = keras.Input((T, M))
    model = keras.Model(inputs, dense()(upper(encoder(inputs))))
    randomise(model, 3)
    normalised.moving_variance.assign(np.ones(N))
    encoder.trainable = False
    model.compile(loss="mse")
    x, y = batch(6, sequences=False)
    return model, x, y, Options((Leaf("encoder/inner", inner), Leaf("upper", upper)))


@special("model", "plain", "lora_head", change="lora")
@special("model", "plain", "quantised_int8", change="int8")
@special("model", "plain", "quantised_int4", change="int4")
def changed_kernels(dtype: str = "float32", *, change: str) -> Built:
    """Dense layers below and above a recurrent layer, quantised or with a LoRA kernel."""
    layer, head = sequence_layer(), dense()
    inputs = keras.Input((T, M))
    model = keras.Model(inputs, head(layer(layers.Dense(M, name="below")(inputs))))
    randomise(model, 3)
    if change == "lora":
        head.enable_lora(2)
        head.lora_kernel_b.assign(np.full(head.lora_kernel_b.shape, 0.3))
    else:
        for quantised in (head, model.get_layer("below")):
            quantised.quantize(change)
    model.compile(loss="mse")
    x, y = batch(6, sequences=True)
    return model, x, y, Options(leaves_of(layer))


def one_hot(classes: Any) -> np.ndarray:
    return np.eye(K, dtype="float32")[classes]


@special("logits", "logits", "softmax", sequences=False)
@special("logits", "logits", "softmax_at_every_step", sequences=True)
@special("logits", "logits", "softmax_of_a_mixed_float16_layer", sequences=True, policy="mixed_float16")
@special("logits", "logits", "softmax_layer", sequences=True, head="layer")
@special("logits", "logits", "softmax_activation_layer", sequences=True, head="activation")
@special("logits", "logits", "softmax_in_time_distributed", sequences=True, head="time_distributed")
@special("logits", "logits", "softmax_with_sparse_labels", sequences=True, sparse=True)
def softmax(
    dtype: str = "float32",
    *,
    sequences: bool,
    head: str = "dense",
    sparse: bool = False,
    policy: str = "float32",
) -> Built:
    layer = recurrent("gru", return_sequences=sequences, name="recurrent")
    plain = head in ("layer", "activation")
    projection = layers.Dense(K, activation=None if plain else "softmax", name="logits", dtype=policy)
    steps: list[Any] = [layer, projection]
    if head == "time_distributed":
        steps = [layer, layers.TimeDistributed(projection, name="head")]
    elif plain:
        after = layers.Softmax(name="head") if head == "layer" else layers.Activation("softmax", name="head")
        steps.append(after)
    model = keras.Sequential([keras.Input((T, M)), *steps])
    randomise(model, 3)
    model.compile(loss="sparse_categorical_crossentropy" if sparse else "categorical_crossentropy")
    x, _ = batch(6, sequences=False)
    classes = np.random.default_rng(9).integers(0, K, (B, T) if sequences else (B,))
    leaves = (Leaf(steps[-1].name, steps[-1]),)
    labels = classes.astype("int32") if sparse else one_hot(classes)
    tolerance = 1e-2 if policy != "float32" else 1e-5
    return (
        model,
        x,
        labels,
        Options(leaves, capture={"layers": "all"}, target=one_hot(classes), tolerance=tolerance),
    )


@special("logits", "logits", "sigmoid", sequences=False)
@special("logits", "logits", "sigmoid_at_every_step", sequences=True)
def sigmoid(dtype: str = "float32", *, sequences: bool) -> Built:
    layer, head = (
        recurrent("lstm", return_sequences=sequences, name="recurrent"),
        layers.Dense(1, name="head"),
    )
    head.activation = keras.activations.sigmoid
    model = keras.Sequential([keras.Input((T, M)), layer, head])
    randomise(model, 3)
    model.compile(loss="binary_crossentropy")
    x, _ = batch(6, sequences=False)
    shape = (B, T, 1) if sequences else (B, 1)
    target = np.random.default_rng(9).integers(0, 2, shape).astype("float32")
    return model, x, target, Options(leaves_of(head), target=target)
