"""Captures every case in one framework, in a process of its own.

`python -m tests.agreement.capture FRAMEWORK FILE DTYPE…` pickles a dict (case name, dtype) -> Dataset.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import xarray as xr
from tests.agreement.cases import CASES, FEATURES, STEPS, UNITS, Case, head, inputs, targets, valid, weights

import throughtime as tt
from throughtime.testing import keras_weights, torch_weights

KERAS_CLASSES = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "SimpleRNN"}


def keras_model(library: Any, case: Case, dtype: str) -> Any:
    """Build in Keras 3, tf_keras or Keras 2; padded steps are masked, and kept from the head."""
    layers = library.layers
    x, counts = library.Input((STEPS, FEATURES), dtype=dtype), library.Input((STEPS, 1), dtype=dtype)
    mask = library.Input((STEPS,), dtype="bool")
    options = {"reset_after": True} if case.kind == "gru" else {}
    kind = getattr(layers, KERAS_CLASSES[case.kind])
    layer = kind(UNITS, return_sequences=case.return_sequences, **options)
    layer = layers.Bidirectional(layer, name="rnn") if case.bidirectional else layer
    read = layer(x, mask=mask)
    if case.return_sequences:
        read = layers.Reshape((STEPS * case.width,))(layers.Multiply()([read, counts]))
    dense = layers.Dense(1, use_bias=False)
    model = library.Model([x, counts, mask], dense(read))
    layer.set_weights(keras_weights(weights(case)))
    dense.set_weights([head(case)])
    return model


def keras_leaf(library: Any, case: Case, dtype: str) -> xr.Dataset:
    library.backend.set_floatx(dtype)
    model = keras_model(library, case, dtype)
    model.compile("sgd", "mse")
    counts = valid(case)[..., None].astype(dtype)
    tree = tt.capture(model, [inputs(case, dtype), counts, valid(case)], targets(dtype))
    library.backend.clear_session()  # in graph mode all models would share one ever growing graph
    (leaf,) = (leaf for leaf in tree.leaves if "recurrent_kernel" in leaf)
    return leaf.to_dataset()


def torch_leaf(case: Case, dtype: str) -> xr.Dataset:
    import torch
    from tests.agreement.torch_model import Reader

    model = Reader(case).to(getattr(torch, dtype))
    model.rnn.load_state_dict({name: torch.as_tensor(w) for name, w in torch_weights(weights(case)).items()})
    with torch.no_grad():
        model.head.weight.copy_(torch.as_tensor(head(case).T))
    x, y = torch.as_tensor(inputs(case, dtype)), torch.as_tensor(targets(dtype))
    tree = tt.capture(model, x, y, loss=torch.nn.MSELoss())
    return tree["rnn"].to_dataset()


def nnx_leaf(case: Case, dtype: str) -> xr.Dataset:
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    from tests.agreement.nnx_model import Reader, lengths

    x, y = inputs(case, dtype), targets(dtype)
    tree = tt.capture(Reader(case, dtype), (x, lengths(case)), y, loss=lambda output, y: (output - y) ** 2)
    return tree["rnn"].to_dataset()


def capture_of(framework: str) -> Callable[[Case, str], xr.Dataset]:
    if framework == "torch":
        return torch_leaf
    if framework == "nnx":
        return nnx_leaf
    name, _, variant = framework.partition(" ")
    library = import_module(name)
    if variant == "graph":
        import_module("tensorflow").compat.v1.disable_eager_execution()
    return lambda case, dtype: keras_leaf(library, case, dtype)


def main(framework: str, file: str, *dtypes: str) -> None:
    capture = capture_of(framework)
    cases = [case for case in CASES if (framework, case.kind) != ("nnx", "gru")]
    found = {(case.name, dtype): plain(capture(case, dtype).load()) for dtype in dtypes for case in cases}
    with open(file, "wb") as out:
        pickle.dump(found, out)


def plain(leaf: xr.Dataset) -> xr.Dataset:
    """The same with NumPy's own dtypes only, which every version of NumPy reads."""
    return leaf.assign_coords({name: np.asarray(leaf[name].values, str) for name in leaf.indexes})


if __name__ == "__main__":
    main(*sys.argv[1:])
