"""Bad input: typed errors that name the line or the remedy, and a caller's objects that stay as they are."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from tests.jax.programs import DOUBLE, UNITS, Folded, Reader, X, Y, bare, rnn, squared

import throughtime as tt

# The statistics of Flax' BatchNorm are float32 in every precision.
pytestmark = pytest.mark.filterwarnings(
    "ignore:scatter inputs have incompatible types:FutureWarning",
    "ignore:Using 'Module.sow:DeprecationWarning",
)


def arrays(model: Any) -> list[bytes]:
    leaves = jax.tree.leaves(nnx.state(model) if isinstance(model, nnx.Module) else model)
    keys = [
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in leaves
    ]
    return [np.asarray(leaf).tobytes() for leaf in keys]


class Noisy(nnx.Module):
    """Everything that moves when it runs: random streams, statistics, intermediates."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.rnn = rnn(nnx.GRUCell)
        self.drop, self.norm = nnx.Dropout(0.5, rngs=rngs), nnx.BatchNorm(UNITS, rngs=rngs)
        self.head = nnx.Linear(UNITS, 1, rngs=rngs, **DOUBLE)

    def __call__(self, x: Any) -> Any:
        read = self.norm(self.drop(self.rnn(x)))
        self.sow(nnx.Intermediate, "read", read)
        return self.head(read[:, -1])


def broken(output: Any, y: Any) -> Any:
    raise RuntimeError("the loss is broken")


@pytest.mark.parametrize("loss", [squared, broken])
@pytest.mark.parametrize("training", [False, True])
def test_a_model_stays_as_it_was(loss: Any, training: bool) -> None:
    model = Noisy()
    before, graph = arrays(model), nnx.graphdef(model)
    if loss is broken:
        with pytest.raises(tt.LossError, match="the loss is broken"):
            tt.capture(model, X, Y, loss=loss, training=training)
    else:
        tt.capture(model, X, Y, loss=loss, training=training)
    assert arrays(model) == before
    assert nnx.graphdef(model) == graph


def test_dropout_follows_training() -> None:
    model = Noisy()
    first, again = (tt.capture(model, X, Y, loss=squared, training=True) for _ in range(2))
    still = tt.capture(model, X, Y, loss=squared)
    assert float(first["rnn"]["loss"]) == float(again["rnn"]["loss"]) != float(still["rnn"]["loss"])


@pytest.mark.parametrize("has_scan", [True, False])
def test_a_while_loop_is_refused_with_its_line(has_scan: bool) -> None:
    def model(x: Any) -> Any:
        state = bare(x) if has_scan else x[:, 0, :1], jnp.zeros((), int)
        return jax.lax.while_loop(lambda s: s[1] < 3, lambda s: (jnp.tanh(s[0]), s[1] + 1), state)[0]

    line = model.__code__.co_firstlineno + 2
    refused = tt.UnsupportedModelError if has_scan else tt.LayerNotFoundError
    with pytest.raises(refused, match=rf"test_errors\.py:{line} in model.*jax\.lax\.scan"):
        tt.capture(model, X, Y, loss=squared)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: jnp.sum(x, (1, 2))[:, None],
        lambda x: jax.lax.associative_scan(jnp.add, x, axis=1)[:, -1].sum(1, keepdims=True),
        lambda x: jax.lax.map(jnp.sum, x)[:, None],
    ],
    ids=["no loop", "associative_scan", "map"],
)
def test_what_carries_no_state_is_no_layer(model: Any) -> None:
    with pytest.raises(tt.LayerNotFoundError, match="associative_scan is no loop"):
        tt.capture(model, X, Y, loss=squared)


def test_models_and_losses_of_the_wrong_kind_are_refused_with_the_remedy() -> None:
    with pytest.raises(tt.UnsupportedModelError, match=r"Partial\(module.apply, variables\)"):
        tt.capture(linen.RNN(linen.GRUCell(UNITS)), X, Y, loss=squared)
    with pytest.raises(tt.LossError, match="A JAX model does not contain a loss"):
        tt.capture(bare, X, Y)
    with pytest.raises(tt.LossError, match="real floating-point"):
        tt.capture(bare, X, Y, loss=lambda output, y: output > y)
    with pytest.raises(tt.LossError, match="first axes must agree"):
        tt.capture(bare, X, Y, loss=lambda output, y: jnp.mean((output - y) ** 2), sample_weight=np.ones(3))
    with pytest.raises(tt.BatchError):
        tt.capture(Reader(rnn(nnx.GRUCell)), X[..., :1], Y, loss=squared)
    with pytest.raises(tt.BatchError):
        tt.capture(Folded(eqx.nn.GRUCell), X[..., :1], Y, loss=squared)


def test_keras_is_not_imported() -> None:
    code = (
        "import sys, jax, jax.numpy as jnp, throughtime as tt\n"
        "f = lambda x: jax.lax.scan(lambda h, v: (jnp.tanh(h + v),) * 2, jnp.zeros(x[:, 0].shape), "
        "jnp.swapaxes(x, 0, 1))[0]\n"
        "tt.capture(f, jnp.ones((2, 3, 4)), jnp.ones((2, 4)), loss=lambda o, y: (o - y) ** 2)\n"
        "assert not {'keras', 'torch', 'tensorflow'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_what_a_model_of_the_whole_batch_raises_is_in_the_error() -> None:
    def model(x: Any) -> Any:
        if x.ndim == 3 and x.shape[-1] != 2:
            raise ValueError(f"my own check of {x.shape}")
        return bare(x)

    with pytest.raises((ValueError, tt.BatchError)) as caught:
        tt.capture(model, X[..., :1], Y, loss=squared)
    found, texts = caught.value, ""
    while found is not None:
        texts, found = texts + str(found), found.__cause__
    assert "my own check" in texts
