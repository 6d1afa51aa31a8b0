"""The Flax NNX twin of the Keras models: padded sequences come with their lengths."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx
from tests.agreement.cases import FEATURES, LENGTHS, SAMPLES, STEPS, UNITS, Case, head, weights

CELLS = {"lstm": nnx.OptimizedLSTMCell, "simple_rnn": nnx.SimpleCell}


class Reader(nnx.Module):
    def __init__(self, case: Case, dtype: str) -> None:
        self.case, width = case, case.steps_read * case.width
        options = {"dtype": jnp.dtype(dtype), "param_dtype": jnp.dtype(dtype), "rngs": nnx.Rngs(0)}
        self.head = nnx.Linear(width, 1, use_bias=False, **options)
        self.head.kernel[...] = jnp.asarray(head(case), dtype)
        halves = [weights(case).isel(direction=k) for k in (0, 1)] if case.bidirectional else [weights(case)]
        layers = [nnx.RNN(cell(case.kind, half, options), rngs=nnx.Rngs(0)) for half in halves]
        self.rnn = nnx.Bidirectional(*layers, rngs=nnx.Rngs(0)) if case.bidirectional else layers[0]

    def __call__(self, x: Any, lengths: Any) -> Any:
        states = self.rnn(x, seq_lengths=lengths)
        if self.case.return_sequences:
            kept = jnp.arange(STEPS) < lengths[:, None]
            return self.head((states * kept[..., None]).reshape(len(x), -1))
        # What each direction comes to last: the last valid step, and the first.
        last = states[jnp.arange(len(x)), lengths - 1, :UNITS]
        return self.head(jnp.concatenate([last, states[:, 0, UNITS:]], -1))


def cell(kind: str, of: xr.Dataset, options: dict[str, Any]) -> Any:
    made = CELLS[kind](FEATURES, UNITS, **options)
    for layer, name in ((made.dense_i, "kernel"), (made.dense_h, "recurrent_kernel")):
        layer.kernel[...] = jnp.asarray(of[name].values.reshape(len(of[name]), -1), options["dtype"])
    # An LSTM of NNX has its bias beside the recurrent product.
    biased = made.dense_h if kind == "lstm" else made.dense_i
    biased.bias[...] = jnp.asarray(of["bias"].values.reshape(-1), options["dtype"])
    return made


def lengths(case: Case) -> np.ndarray:
    return LENGTHS if case.masked else np.full(SAMPLES, STEPS)
