"""Gradients, outputs and weights as plain arrays in the framework's layout; numbers and texts about them."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

import throughtime as tt
from throughtime._errors import ArgumentError
from throughtime._inputs import rules

from .arguments import EVERY, is_several, layers_of, mode_of, refuse

Function = Callable[[Any], Any]
_OF = {"outputs": "outputs", "activations": "outputs", "weights": "weights"}
MODES = {"weights": "weights", "grads": "grads", "gradients": "grads"}
_GRADIENT = "_gradient"


def get_gradients(  # noqa: PLR0913 - the names that people know
    model: Any,
    _id: Any,
    input_data: Any,
    labels: Any,
    *,
    sample_weight: Any = None,
    learning_phase: Any = 0,
    layer: Any = None,
    mode: str = "outputs",
    as_dict: bool = False,
    **options: Any,
) -> Any:
    """Return gradients of the loss. New code: `tt.get_rnn_gradients`, or `tt.capture` for all that flows.

    With respect to outputs, (batch, timesteps, channels) in the order in which the layer returns its steps,
    both directions in input time; with mode="weights" a list in the order of `layer.weights`. A list or "*"
    as `_id` names several layers, `as_dict` returns them by name, `learning_phase=1` runs as in training.
    """
    refuse("get_gradients", options)
    of_outputs = mode_of("get_gradients", mode, _OF) == "outputs"
    found: dict[str, Any] = {}
    run = {"sample_weight": sample_weight, "training": bool(learning_phase)}
    for each in layers_of(model, _id, layer):
        if of_outputs:
            options = {"sample_weights": sample_weight, "training": bool(learning_phase)}
            found[each.name] = tt.get_rnn_gradients(model, input_data, labels, None, each.name, **options)
        else:
            leaf = _capture_leaf(model, each, "weight_gradients", input_data, labels, **run)
            found.update(zip(_names(each), _in_keras_layout(leaf), strict=True))
    if as_dict:
        return found
    arrays = list(found.values())
    return arrays[0] if of_outputs and not is_several(_id) else arrays


def get_outputs(
    model: Any,
    _id: Any,
    input_data: Any,
    *,
    layer: Any = None,
    learning_phase: Any = 0,
    as_dict: bool = False,
    **options: Any,
) -> Any:
    """Return outputs of layers, as `get_gradients`. New code: `tt.capture(model, x, quantities="output")`."""
    refuse("get_outputs", options)
    found: dict[str, Any] = {}
    for each in layers_of(model, _id, layer):
        leaf = _capture_leaf(model, each, "output", input_data, training=bool(learning_phase))
        output = leaf["output"].values
        found[each.name] = output[:, ::-1] if leaf.attrs.get("output_reversed") else output
    if as_dict:
        return found
    return list(found.values()) if is_several(_id) else next(iter(found.values()))


def get_weights(  # noqa: PLR0913 - the names that people know
    model: Any,
    _id: Any,
    *,
    layer: Any = None,
    mode: str = "weights",
    input_data: Any = None,
    labels: Any = None,
    omit_names: str | Collection[str] | None = None,
    as_dict: bool = False,
    **options: Any,
) -> Any:
    """Return weights, or with mode="grads" their gradients. New code: `tt.weights(model, layer)`, labelled.

    In the order of `layer.weights`, one weight alone as an array; `omit_names` leaves out names with a part.
    """
    what = mode_of("get_weights", mode, MODES)
    if what == "weights":
        refuse("get_weights", options)
        pairs = [(_names(each), each.get_weights()) for each in layers_of(model, _id, layer)]
        found = {name: array for pair in pairs for name, array in zip(*pair, strict=True)}
    else:
        gradients = {"layer": layer, "mode": "weights", "as_dict": True, **options}
        found = get_gradients(model, _id, input_data, labels, **gradients)
    omitted = (omit_names,) if isinstance(omit_names, str) else tuple(omit_names or ())
    found = {name: found[name] for name in found if not any(part in name for part in omitted)}
    if as_dict:
        return found
    return next(iter(found.values())) if len(found) == 1 else list(found.values())


def get_rnn_weights(
    model: Any,
    _id: Any,
    *,
    layer: Any = None,
    as_tensors: bool = False,
    concat_gates: bool = True,
    **options: Any,
) -> list[Any]:
    """Return kernel, recurrent kernel and bias, forward first. New code: `tt.weights(model, layer)`.

    concat_gates=False gives a list by gate in the place of each array: input, forget, candidate, output of an
    LSTM; update, reset, candidate of a GRU. `as_tensors` can only be False.
    """
    refuse("get_rnn_weights", {**options, **({"as_tensors": 1} if as_tensors else {})})
    (each,) = layers_of(model, _id, layer)
    leaf = tt.weights(model, each)
    arrays, gates = tt.testing.keras_weights(leaf), leaf.sizes.get("gate", 1)
    return list(arrays) if concat_gates else [np.split(array, gates, axis=-1) for array in arrays]


def labelled_weights(model: Any, layer: Any, what: str, x: Any, y: Any) -> xr.Dataset:
    """Return labelled weights of a layer, or their gradients."""
    if what == "weights":
        return tt.weights(model, layer)
    leaf = _capture_leaf(model, layer, "weight_gradients", x, y)
    return leaf[[name for name in leaf.data_vars if str(name).endswith(_GRADIENT)]]


def _in_keras_layout(leaf: xr.Dataset) -> list[npt.NDArray[Any]]:
    """Return gradients as `layer.get_weights()` has weights."""
    names = {name: str(name).removesuffix(_GRADIENT) for name in leaf if str(name).endswith(_GRADIENT)}
    own = leaf[list(names)].rename(names)
    if leaf.attrs.get("kind") in ("lstm", "gru", "simple_rnn"):
        return list(tt.testing.keras_weights(own))
    return [array.values for array in own.values()]


def _capture_leaf(model: Any, layer: Any, quantity: str, x: Any, y: Any = None, **run: Any) -> xr.Dataset:
    tree = tt.capture(model, x, y, layers=[layer], quantities=quantity, **run)
    leaves = [leaf for leaf in tree.leaves if leaf.data_vars]
    if len(leaves) != 1:
        raise tt.AmbiguousLayerError(
            f"{layer.name} has {len(leaves)} calls or inner layers. Take them from tt.capture(model, x, y)."
        )
    return leaves[0].to_dataset()


def _names(layer: Any) -> list[str]:
    """Name a layer's weights as its framework does: by path in Keras 3, by name before."""
    return [str(getattr(weight, "path", weight.name)) for weight in layer.weights]


def weights_norm(
    model: Any,
    _id: Any = EVERY,
    *,
    layer: Any = None,
    norm_fn: Function | tuple[Function, Function] = (np.sqrt, np.square),
    omit_names: str | Collection[str] | None = None,
    **options: Any,
) -> dict[str, float]:
    """Return the norm of each weight by its name. New code: any statistic of `tt.weights(model, layer)`.

    `norm_fn` is a pair (outer, inner) for outer(Σ inner(w)), or one function f for Σ f(w); by default L2.
    """
    refuse("weights_norm", options)
    outer, inner = norm_fn if isinstance(norm_fn, tuple) and len(norm_fn) == 2 else (float, norm_fn)
    if not (callable(outer) and callable(inner)):
        raise ArgumentError(f"norm_fn={norm_fn!r}: expected a function, or a pair (outer, inner).")
    given = _id if layer is None else None
    weights = get_weights(model, given, layer=layer, omit_names=omit_names, as_dict=True)
    return {name: float(outer(np.sum(inner(np.asarray(array))))) for name, array in weights.items()}


def get_weight_penalties(model: Any, **options: Any) -> dict[str, float]:
    """Return what regularisers add to the loss, by layer and weight. New code: `tt.summary(model)`."""
    refuse("get_weight_penalties", options)
    layers_of(model, EVERY)
    table = tt.summary(model, layers="all").to_dataframe().dropna(subset="penalty")
    return {f"{row.layer}/{row.weight}": float(row.penalty) for row in table.itertuples()}


def weight_loss(model: Any, **options: Any) -> float:
    """Return the sum of all weight penalties. New code: the column `penalty` of `tt.summary(model)`."""
    refuse("weight_loss", options)
    return sum(get_weight_penalties(model).values())


def rnn_summary(model: Any, _id: Any = None, *, layer: Any = None, **options: Any) -> None:
    """Print gates, directions and weights of recurrent layers. New code: `print(tt.summary(model))`."""
    refuse("rnn_summary", options)
    is_open = _id is None and layer is None
    found = layers_of(model, EVERY if is_open else _id, layer)
    print(tt.summary(model, layers="recurrent" if is_open else found))  # noqa: T201 - what it is for


def detect_nans(data: Any, include_inf: bool = True, **options: Any) -> str | None:
    """Write the shares of NaN and Inf, or None. New code: `tt.diagnostics.first_nonfinite(tree)`."""
    refuse("detect_nans", options)
    values = rules.array()("data", data)
    counts = {"NaN": np.isnan(values), **({"Inf": np.isinf(values)} if include_inf else {})}
    shares = {name: count.sum() / max(values.size, 1) for name, count in counts.items()}
    return ", ".join(f"{100 * share:.3g}% {name}" for name, share in shares.items() if share) or None
