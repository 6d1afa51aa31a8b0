"""The classic function: one layer's output gradient as a plain array, exactly as the framework gives it.

A thin door to `_capture.Probe`; what it returns is what the `show_features` functions draw.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from throughtime._arguments import takes
from throughtime._arguments.rules import text, whole
from throughtime._capture.probe import Probe
from throughtime._errors import AmbiguousLayerError, LayerNotFoundError, NoGradientError
from throughtime.adapters.records import LayerRecord


@takes(
    layer_idx=replace(whole(), error=LayerNotFoundError), layer_name=replace(text, error=LayerNotFoundError)
)
def get_rnn_gradients(
    model: Any,
    input_data: Any,
    labels: Any,
    layer_idx: int | None = None,
    layer_name: str | None = None,
    sample_weights: Any = None,
    *,
    loss: Any = None,
    training: bool = False,
) -> npt.NDArray[np.floating[Any]]:
    """Return the gradient of the loss with respect to a layer's output, at each timestep.

    This is ∂L/∂out_t with the output tensor as a leaf: what the layers above ask of step t. It does not
    run back through the recurrence inside this layer, so that with `return_sequences=False` it is one
    vector per sample and says nothing about time.

    Parameters
    ----------
    model : model of Keras 3, tf_keras or Keras 2, built, or torch.nn.Module
    input_data, labels : as `model.fit` takes them, or the torch module and its loss
        `labels` may be None when `input_data` is a dataset that brings its own.
    layer_idx : int, optional
        Index into `model.layers`, or a torch module's children. Negative counts from the end.
    layer_name : str, optional
        Name or path, `encoder/lstm`: an exact match wins, then a unique part of a name. Without index
        and name the model's only recurrent layer is taken.
    sample_weights : array (batch,), optional
    loss : callable returning a scalar or one value per sample
        For a Keras model `(y_true, y_pred)`, a Keras loss or its name; default: the loss the model was
        compiled with. For a torch module `(output, y)`, needed.
    training : bool
        Run the pass as in training, with dropout.

    Returns
    -------
    ndarray (batch, timesteps, units), or (batch, units) with `return_sequences=False`
        In the units of the loss per unit of output, batch mean included: divide by
        `tree[...]["reduction_factor"]` to get `output_gradient` of `capture`. Steps are in the order the
        layer returns them: a layer with `go_backwards=True` returns the last step first. A
        Bidirectional's halves are both in input time; a TimeDistributed adds its steps as second axis.
        Of a torch layer samples come first whatever `batch_first` is, packed sequences padded with 0.
        float16 and bfloat16 come back as float32.

    Raises
    ------
    LayerNotFoundError, AmbiguousLayerError
        With the indexed list of layers.
    LossError, NoGradientError, UnbuiltModelError, UnsupportedModelError, BatchError
        See `capture`.
    ArgumentError
        An argument is not as described above.

    Examples
    --------
    >>> import keras, numpy as np
    >>> inputs = keras.Input((5, 2))
    >>> outputs = keras.layers.Dense(1)(keras.layers.LSTM(3, return_sequences=True)(inputs))
    >>> model = keras.Model(inputs, outputs)
    >>> model.compile(loss="mse")
    >>> x, y = np.ones((4, 5, 2), "float32"), np.zeros((4, 5, 1), "float32")
    >>> get_rnn_gradients(model, x, y, layer_idx=1).shape
    (4, 5, 3)
    """
    if layer_idx is not None and layer_name is not None:
        raise AmbiguousLayerError(
            f"layer_idx={layer_idx} and layer_name={layer_name!r} were both given: give one of them."
        )
    wanted = next((given for given in (layer_idx, layer_name) if given is not None), "recurrent")
    probe = Probe(model, loss=loss, layers=wanted, quantities="output_gradient", training=training)
    probe.expect_one_layer()
    record, _ = probe.record(input_data, labels, sample_weights)
    return _as_returned(record.layers)


def _is_last(leaf: LayerRecord, leaves: tuple[LayerRecord, ...]) -> bool:
    """Whether a leaf is no inner layer below another one of the same layer: its output is the layer's."""
    return len(leaves) == 1 or bool(leaf.flags.get("is_last", 1))


def _as_returned(leaves: tuple[LayerRecord, ...]) -> npt.NDArray[np.floating[Any]]:
    """Undo the record's input time order, and widen half precision."""
    # Of stacked cells only the last one's output is the layer's.
    calls = [leaf for leaf in leaves if "output_gradient" in leaf.arrays and _is_last(leaf, leaves)]
    if len(calls) != 1:
        paths = ", ".join(call.path for call in calls)
        raise NoGradientError(
            f"The layer is called {len(calls)} times, with a gradient each: {paths}. Take them from "
            "tt.capture(...), one leaf per call."
        )
    gradient = cast("npt.NDArray[np.floating[Any]]", calls[0].arrays["output_gradient"])
    if calls[0].flags["output_reversed"]:
        gradient = gradient[:, ::-1]
    if calls[0].outer_steps:
        gradient = gradient.reshape(-1, calls[0].outer_steps, *gradient.shape[1:])
    return gradient.astype(np.float32) if gradient.dtype == np.float16 else gradient
