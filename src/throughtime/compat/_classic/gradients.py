"""`get_rnn_gradients`: one layer's output gradient as a plain array, exactly as the framework returns it.

It calls `_capture.Probe`; the `show_features` functions draw its result.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from throughtime._capture.probe import Probe
from throughtime._errors import AmbiguousLayerError, LayerNotFoundError, NoGradientError
from throughtime._inputs import takes
from throughtime._inputs.rules import text, whole
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

    This is ∂L/∂out_t with the output tensor as a leaf: the gradient that the layers above send to step t. It
    excludes the recurrence inside this layer, so with `return_sequences=False` it is one vector per sample,
    without time.

    Parameters
    ----------
    model : built model of Keras 3, tf_keras or Keras 2, or torch.nn.Module
    input_data, labels : as `model.fit`, or the torch module and its loss, accept them
        `labels` may be None if `input_data` is a dataset that contains them.
    layer_idx : int, optional
        Index into `model.layers`, or a torch module's children. Negative counts from the end.
    layer_name : str, optional
        Name or path, `encoder/lstm`: an exact match, or else a unique part of a name. Without index and name,
        the model's only recurrent layer is used.
    sample_weights : array (batch,), optional
    loss : callable returning a scalar or one value per sample
        For a Keras model `(y_true, y_pred)`, a Keras loss or its name; the default is the loss of the
        compiled model. For a torch module `(output, y)`; required.
    training : bool
        Run the pass as in training, with dropout.

    Returns
    -------
    ndarray (batch, timesteps, units), or (batch, units) with `return_sequences=False`
        In units of the loss per unit of output, including the mean over the batch: divide by
        `tree[...]["reduction_factor"]` to get `output_gradient` of `capture`. Steps are in the order in which
        the layer returns them: a layer with `go_backwards=True` returns the last step first. Both halves of
        a Bidirectional are in input time; a TimeDistributed adds its steps as second axis. For a torch layer
        samples come first, regardless of `batch_first`, and packed sequences are padded with 0. float16 and
        bfloat16 become float32.

    Raises
    ------
    LayerNotFoundError, AmbiguousLayerError
        No layer, or several layers, match. The message lists all layers with their index.
    LossError, NoGradientError, UnbuiltModelError, UnsupportedModelError, BatchError
        See `capture`.

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
            f"layer_idx={layer_idx} and layer_name={layer_name!r} were both passed. Pass only one of them."
        )
    wanted = next((given for given in (layer_idx, layer_name) if given is not None), "recurrent")
    probe = Probe(model, loss=loss, layers=wanted, quantities="output_gradient", training=training)
    probe.expect_one_layer()
    record, _ = probe.record(input_data, labels, sample_weights)
    return _restore_order(record.layers)


def _restore_order(leaves: tuple[LayerRecord, ...]) -> npt.NDArray[np.floating[Any]]:
    """Restore the framework's order of steps, and convert half precision to float32."""
    # With stacked cells, only the output of the last one is the layer's.
    calls = [
        leaf
        for leaf in leaves
        if "output_gradient" in leaf.arrays and (len(leaves) == 1 or leaf.flags.get("is_last", 1))
    ]
    if len(calls) != 1:
        paths = ", ".join(call.path for call in calls)
        raise NoGradientError(
            f"The layer is called {len(calls)} times and has a gradient for each call: {paths}. Use "
            "tt.capture(...), which has one leaf per call."
        )
    gradient = cast("npt.NDArray[np.floating[Any]]", calls[0].arrays["output_gradient"])
    if calls[0].flags["output_reversed"]:
        gradient = gradient[:, ::-1]
    if calls[0].outer_steps:
        gradient = gradient.reshape(-1, calls[0].outer_steps, *gradient.shape[1:])
    return gradient.astype(np.float32) if gradient.dtype == np.float16 else gradient
