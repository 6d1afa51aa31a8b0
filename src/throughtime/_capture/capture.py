"""`capture`: uses one `Probe` once, and adds the quantities that need further passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import xarray as xr

from throughtime import _vocabulary
from throughtime._capture.label import label_axes
from throughtime._capture.lag_matrix import lag_matrix
from throughtime._capture.probe import Probe
from throughtime._errors import SchemaError, warn
from throughtime._inputs import rules, takes
from throughtime._inputs.batch import take
from throughtime._vocabulary import LOSSES

_NO_LABELS = (
    "There are no labels, so this capture has no loss and no gradients (output_gradient, hidden_gradient, "
    "weight gradients, certificate). Pass y, or a dataset of (x, y); for states alone name them: "
    'quantities=["hidden", "gate_activation"].'
)


@takes(quantities=replace(rules.names, error=SchemaError))
def capture(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    loss: Any = None,
    layers: Any = "recurrent",
    quantities: Any = "all",
    training: bool = False,
    adapter: Any = None,
    budget: float | str | None = None,
    time: Any = None,
    features: Any = None,
    samples: Any = None,
) -> xr.DataTree:
    """Capture outputs, states, gates and gradients of the layers of a model on one batch.

    The model, its optimizer, random states and the data remain bit-identical, also if this raises an error.

    Parameters
    ----------
    model : model of Keras 3, tf_keras or Keras 2, built, torch.nn.Module, or JAX program
        Keras on the TensorFlow, JAX or torch backend.
    x : array, tensor, list, dict or tuple of those, or a dataset
        Samples first, then time; for a torch module in its layout. A tuple is several arguments, a dict
        arguments by name if the module's `forward` has them. From a dataset (tf.data.Dataset, DataLoader,
        PyDataset, generator of pairs) one batch is taken, which the attribute `batch` of the tree names.
    y : like x, optional
        Labels as for `model.fit` or `loss`. Without labels the tree has no gradients, with a warning, unless
        the loss of the model needs none (`add_loss`, `compute_loss`).
    sample_weight : array (sample,), optional
    loss : callable returning a scalar or one value per sample
        For a Keras model `(y_true, y_pred)`, a Keras loss or its name; the default is the loss with which
        the model was compiled. Losses that the model adds (`add_loss`, regularisers) are always included.
        For torch and JAX `(output, y)`, as losses of torch are called, without default. Values per sample
        are averaged.
    layers : "recurrent", "all", int, name, path, layer, a list of those, or a predicate on a layer
        An int indexes `model.layers`, or a torch module's children; a name is matched exactly, then as a
        unique part.
    quantities : "all" or names from the schema
        For all layers: `output`, `output_gradient`, `logits_gradient` of a layer that ends in softmax or
        sigmoid, `input`, `input_gradient`, `valid`, `weights`, `weight_gradients`. Inside
        recurrent layers: `hidden`, `hidden_gradient`, `cell`, `cell_gradient`, `gate_activation`,
        `gate_gradient`, `initial_hidden_gradient`, `initial_cell_gradient`, `step_contribution`,
        `certificate`; `hidden` and `cell` stand for all states of a custom cell. Fewer quantities cost less.
        "all" excludes `lag_matrix`, which needs many passes, `sample_loss`, the loss of each sample, which
        needs one more, and `state_jacobian`, ds_t/ds_{t-1} of a custom cell, with the square of its state at
        every step: add them by name, `["all", "sample_loss"]`.
    training : bool
        Run the pass as in training, with dropout; False by default.
    adapter : module, optional
        Adapter for a model of another library; by default chosen by the class of the model.
    budget : float, in bytes, or str such as "2 GB", optional
        Memory for the capture; by default the free memory. It is estimated before the capture runs. A batch
        that needs more is captured in as few parts as possible, which add up to the whole (attribute
        `chunks`), or refused.
    time, features, samples : sequence, optional
        Labels of timesteps (tokens or dates, possibly for each sample: (sample, time)), of input features and
        of samples. Layers with axes of the same length get them as coordinates `time_label`,
        `feature_label` and `sample_label`; plots write them beside their axes.

    Returns
    -------
    DataTree
        One leaf per layer call. Gradients of outputs and inputs are those of the loss of each sample: the
        mean over the batch is undone, so that `output_gradient × reduction_factor` equals the result of
        `get_rnn_gradients`. `hidden_gradient`, `cell_gradient` and `gate_gradient` are total derivatives
        through time, computed from the states of the layer's kernel; the certificate compares them with
        the framework's autodiff. Weight gradients are those that the optimizer receives. Axis `time` is the
        order of the layer's input in both directions. The attribute `loss_reduction` names what was undone
        and whether samples are coupled. float16 gradients come from a scaled loss, unscaled in float32;
        `underflow` is the share of a layer's gradients that training rounds to 0.

    Raises
    ------
    UnsupportedModelError, UnbuiltModelError, LayerNotFoundError, LossError, BatchError, SchemaError
    NoGradientError
        The loss does not depend on a named layer, or on any layer.
    TooLargeError
        The capture needs more memory than `budget`; the message names how much, and what would fit.

    Warns
    -----
    ThroughTimeWarning
        For example, there are no labels, or a certificate is above its bar.

    Examples
    --------
    >>> import keras, numpy as np
    >>> lstm = keras.layers.LSTM(3, return_sequences=True, name="lstm")
    >>> model = keras.Sequential([keras.Input((5, 2)), lstm, keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> tree = capture(model, np.ones((4, 5, 2), "float32"), np.zeros((4, 5, 1), "float32"))
    >>> tree["lstm"]["output_gradient"].dims
    ('sample', 'time', 'output_unit')
    >>> tree["lstm"]["kernel_gradient"].sel(gate="forget").shape
    (2, 3)

    A torch module brings no loss:

    >>> import torch
    >>> gru, x, y = torch.nn.GRU(2, 3, num_layers=2), torch.ones(5, 4, 2), torch.zeros(5, 4, 3)
    >>> tree = capture(gru, x, y, loss=lambda output, y: torch.nn.functional.mse_loss(output[0], y))
    >>> dict(tree["gru/0"]["hidden_gradient"].sizes)
    {'sample': 4, 'time': 5, 'unit': 3}
    """
    named, further = _apart(quantities)
    settings = {"loss": loss, "layers": layers, "training": training, "adapter": adapter, "budget": budget}
    probe = Probe(model, quantities=named, **settings)
    batch = take(x, y, sample_weight)
    tree = probe(batch.x, batch.y, sample_weight=batch.sample_weight)
    tree.attrs["batch"] = batch.origin
    if "all" in named and "gradients" in tree.attrs:
        warn(_NO_LABELS)
    if LOSSES in further:
        losses = probe.losses(batch.x, batch.y, sample_weight=batch.sample_weight).values
        label_axes(tree, {"sample": losses}, LOSSES)
    if _vocabulary.LAGS in further:
        lags = lag_matrix(model, batch.x, batch.y, sample_weight=batch.sample_weight, **settings)
        for node in lags.leaves:
            tree[node.path] = (
                tree[node.path]
                .to_dataset()
                .merge(node.to_dataset(), compat="override", combine_attrs="override")
            )
    labels = {"time": time, "feature": features, "sample": samples}
    label_axes(tree, {dim: each for dim, each in labels.items() if each is not None})
    return tree


def _apart(quantities: Any) -> tuple[list[str], set[str]]:
    """Separate the quantities that need further passes."""
    names = [quantities] if isinstance(quantities, str) else list(quantities)
    further = {name for name in names if name in (_vocabulary.LAGS, LOSSES)}
    left = [name for name in names if name not in further]
    return left or ["valid"], further
