"""Checkpoints of each format give what the weights themselves give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox
import jax
import jax.numpy as jnp
import keras
import numpy as np
import orbax.checkpoint as orbax
import pytest
import torch
from flax import nnx
from safetensors.torch import save_file
from tests.sweep.networks import Last, batch, made, mse

import throughtime as tt

NORM = "recurrent_kernel_norm"


def swept(model: Any, data: Any, checkpoints: Any, folder: Path, loss: Any = mse) -> list[float]:
    """Return the loss at each checkpoint."""
    tree = tt.sweep(model, data, loss=loss, checkpoints=checkpoints, to=folder)
    leaf = next(iter(tree.leaves))
    return [float(value) for value in leaf["loss"].values]


def test_torch(tmp_path: Path) -> None:
    other, data = Last(), batch()
    torch.save(other.state_dict(), tmp_path / "one.pt")
    torch.save({"state_dict": other.state_dict(), "epoch": 3}, tmp_path / "two.ckpt")
    save_file(other.state_dict(), tmp_path / "three.safetensors")
    files = [tmp_path / name for name in ("one.pt", "two.ckpt", "three.safetensors")]
    expected = mse(other(data[0]), data[1]).item()
    assert swept(made(), data, files, tmp_path / "sweep") == pytest.approx([expected] * 3, rel=1e-5)


def test_keras(tmp_path: Path) -> None:
    def net() -> Any:
        layers = [keras.Input((12, 2)), keras.layers.GRU(4, name="rnn"), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile(loss="mse")
        return model

    model, other = net(), net()
    x, y = (each.numpy() for each in batch())
    other.save(tmp_path / "one.keras")
    other.save_weights(tmp_path / "two.weights.h5")
    before = model.get_weights()
    files = {"one": tmp_path / "one.keras", "two": tmp_path / "two.weights.h5", "three": other.get_weights()}
    expected = float(np.mean((other.predict(x, verbose=0) - y) ** 2))
    assert swept(model, (x, y), files, tmp_path / "sweep", None) == pytest.approx([expected] * 3, rel=1e-5)
    assert all(np.array_equal(one, two) for one, two in zip(before, model.get_weights(), strict=True))


def mean_square(output: Any, y: Any) -> Any:
    return jnp.mean((output - y) ** 2)


class Tagger(nnx.Module):
    def __init__(self, seed: int) -> None:
        rngs = nnx.Rngs(seed)
        self.rnn = nnx.RNN(nnx.GRUCell(2, 4, rngs=rngs))
        self.head = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.head(self.rnn(x)[:, -1])


def test_flax(tmp_path: Path) -> None:
    model, other = Tagger(0), Tagger(1)
    x, y = (jnp.asarray(each.numpy()) for each in batch())
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save((tmp_path / "one").absolute(), nnx.to_pure_dict(nnx.state(other)))
    before = np.asarray(model.head.kernel[...])
    given = {"one": tmp_path / "one", "two": nnx.state(other), "three": other, "four": nnx.state(Tagger(2))}
    expected = [float(mean_square(other(x), y))] * 3 + [float(mean_square(Tagger(2)(x), y))]
    assert swept(model, (x, y), given, tmp_path / "sweep", mean_square) == pytest.approx(expected, rel=1e-5)
    assert np.array_equal(before, np.asarray(model.head.kernel[...]))


class Reader(equinox.Module):
    cell: equinox.nn.GRUCell
    head: equinox.nn.Linear

    def __init__(self, seed: int) -> None:
        one, two = jax.random.split(jax.random.key(seed))
        self.cell = equinox.nn.GRUCell(2, 4, key=one)
        self.head = equinox.nn.Linear(4, 1, key=two)

    def __call__(self, x: Any) -> Any:
        def step(h: Any, x_t: Any) -> Any:
            return self.cell(x_t, h), None

        def read(sequence: Any) -> Any:
            return self.head(jax.lax.scan(step, jnp.zeros(4), sequence)[0])

        return jax.vmap(read)(x)


def test_equinox(tmp_path: Path) -> None:
    model, other = Reader(0), Reader(1)
    x, y = (jnp.asarray(each.numpy()) for each in batch())
    equinox.tree_serialise_leaves(tmp_path / "one.eqx", other)
    given = {"one": tmp_path / "one.eqx", "two": other}
    expected = float(mean_square(other(x), y))
    assert swept(model, (x, y), given, tmp_path / "sweep", mean_square) == pytest.approx(
        [expected] * 2, rel=1e-5
    )


def test_a_file_without_weights(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(tt.SweepError, match="has no state dict"):
        tt.sweep(made(), batch(), loss=mse, checkpoints=[tmp_path / "list.pt"], to=tmp_path / "sweep")
