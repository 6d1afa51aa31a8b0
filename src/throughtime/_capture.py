"""`capture`, the one core behind everything: a model and a batch become a labelled tree.

Chooses the adapter, takes the batch, lets the adapter record, and labels the result; `Probe` keeps the
choice for many batches.
"""

from __future__ import annotations

import warnings
from typing import Any

import xarray as xr

from throughtime import _schema, adapters
from throughtime._batch import Batch, take
from throughtime._errors import LossError, NoGradientError, ThroughTimeWarning
from throughtime._record import UNREACHED, LayerRecord, ModelRecord

_GROUPS = ("recurrent", "all")


class Probe:
    """Captures the same layers of one model on batch after batch; traced once per shape.

    Parameters
    ----------
    model, loss, layers, quantities, training, adapter
        See `capture`.

    Examples
    --------
    >>> import keras, numpy as np
    >>> layers = [keras.Input((5, 2)), keras.layers.GRU(3, name="gru"), keras.layers.Dense(1)]
    >>> model = keras.Sequential(layers)
    >>> probe = Probe(model, loss="mse", quantities="output_gradient")
    >>> x, y = np.ones((4, 5, 2), "float32"), np.zeros((4, 1), "float32")
    >>> probe(x, y)["gru"]["output_gradient"].shape
    (4, 3)
    """

    def __init__(
        self,
        model: Any,
        *,
        loss: Any = None,
        layers: Any = "recurrent",
        quantities: Any = "all",
        training: bool = False,
        adapter: Any = None,
    ) -> None:
        chosen = adapters.choose(model) if adapter is None else adapter
        self._named = frozenset() if quantities == "all" else _schema.quantities(quantities)
        self._is_group = isinstance(layers, str) and layers in _GROUPS
        self._probe = chosen.Probe(
            model,
            loss=loss,
            layers=layers,
            quantities=_schema.quantities(quantities),
            training=training,
        )

    def __call__(self, x: Any, y: Any = None, *, sample_weight: Any = None) -> xr.DataTree:
        """Capture one batch. See `capture` for the arguments and what is returned."""
        record, batch = self.record(x, y, sample_weight)
        tree = _schema.label(record)
        tree.attrs["batch"] = batch.origin
        return tree

    def expect_one_layer(self) -> None:
        """Refuse to go on when several layers answer to what was asked for.

        Raises
        ------
        AmbiguousLayerError
            With the indexed list of layers.
        """
        self._probe.expect_one_layer()

    def record(self, x: Any, y: Any, sample_weight: Any) -> tuple[ModelRecord, Batch]:
        """Capture one batch, unlabelled: gradients as the framework gives them."""
        batch = take(x, y, sample_weight)
        if batch.y is None and self._named & _schema.GRADIENT_QUANTITIES:
            names = ", ".join(sorted(self._named & _schema.GRADIENT_QUANTITIES))
            raise LossError(f"{names} cannot be captured without labels: pass y.")
        record = self._probe(batch.x, batch.y, batch.sample_weight)
        self._check_gradients(record)
        return record, batch

    def _check_gradients(self, record: ModelRecord) -> None:
        """Say which gradients do not exist: an error where they were asked for by name, else a warning."""
        self._check_reached(record)
        for quantity in sorted(self._named & _schema.GRADIENT_QUANTITIES):
            lacking = [leaf for leaf in record.layers if quantity in leaf.missing]
            if lacking and len(lacking) == len(record.layers):
                raise NoGradientError(
                    f"There is no {quantity} for {_paths(lacking)}: {lacking[0].missing[quantity]}."
                )

    def _check_reached(self, record: ModelRecord) -> None:
        unreached = [leaf for leaf in record.layers if leaf.missing.get("output_gradient") == UNREACHED]
        if not unreached:
            return
        text = (
            f"The loss does not depend on the output of {_paths(unreached)}: it has no gradient. Is that "
            "output used by the model, and not cut off by stop_gradient or argmax on its way to the loss?"
        )
        if not self._is_group or len(unreached) == len(record.layers):
            raise NoGradientError(text)
        warnings.warn(text, ThroughTimeWarning, stacklevel=5)


def _paths(leaves: list[LayerRecord]) -> str:
    return ", ".join(leaf.path for leaf in leaves)


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
) -> xr.DataTree:
    """Capture what flows through a model's layers on one batch.

    The model, its optimizer, random states and the data stay bit-identical, also when this raises.

    Parameters
    ----------
    model : Keras 3 model, built
        On the TensorFlow, JAX or torch backend.
    x : array, tensor, list, dict or tuple of those, or a dataset
        Samples first, then time. From a dataset (tf.data.Dataset, DataLoader, PyDataset, generator of
        pairs) one batch is taken; the tree's attribute `batch` says which.
    y : like x, optional
        Labels as `model.fit` takes them. Without them the tree holds no gradients and says so.
    sample_weight : array (sample,), optional
    loss : callable (y_true, y_pred) returning a scalar or one value per sample, Keras loss or its name
        Default: the loss the model was compiled with. Values per sample are averaged. What the model adds
        by itself (`add_loss`, regularisers) is part of the loss either way.
    layers : "recurrent", "all", int, name, path, layer, a list of those, or a predicate on a layer
        An int indexes `model.layers`; a name is matched exactly, then as a unique part.
    quantities : "all" or names from the schema
        `output`, `output_gradient`, `input`, `input_gradient`, `valid`, `weights`, `weight_gradients`.
        Ask for less, pay less.
    training : bool
        Run the pass as in training, with dropout; False by default.
    adapter : module, optional
        Looks into a model of another library; default: chosen by the model's class.

    Returns
    -------
    DataTree
        One leaf per layer call. Gradients of outputs and inputs are those of each sample's own loss: the
        mean over the batch is undone, so that `output_gradient × reduction_factor` is what
        `get_rnn_gradients` returns. Weight gradients are exactly what the optimizer receives. Axis
        `time` is the order of the layer's input, in either direction.

    Raises
    ------
    UnsupportedModelError, UnbuiltModelError, LayerNotFoundError, LossError, BatchError, SchemaError
    NoGradientError
        The loss does not depend on a layer named, or on any layer.

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
    """
    probe = Probe(model, loss=loss, layers=layers, quantities=quantities, training=training, adapter=adapter)
    return probe(x, y, sample_weight=sample_weight)
