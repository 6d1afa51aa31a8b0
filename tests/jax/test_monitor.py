"""A monitor in a JAX training loop, where each step returns a new model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tests.jax.programs import Folded, Reader, X, Y, rnn, squared

import throughtime as tt
from throughtime._monitor.provenance import weights_fingerprint

pytestmark = pytest.mark.filterwarnings("ignore:The certificate:throughtime.ThroughTimeWarning")


def loss_of(model: Any) -> Any:
    return jnp.mean(squared(jax.vmap(model)(X), Y))


def test_a_model_that_training_replaces_is_followed(tmp_path: Path) -> None:
    model = Folded(eqx.nn.GRUCell)
    monitor = tt.Monitor(tmp_path / "run.zarr", batch=(X, Y), every=1, vanishing_lag=None)
    losses = [float(loss_of(model))]
    with monitor.watch(model, loss=squared):
        for _ in range(3):
            gradient = eqx.filter_grad(loss_of)(model)
            model = eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, gradient))
            monitor.step(model)
            losses.append(float(loss_of(model)))
    run = tt.open_run(tmp_path / "run.zarr")
    assert run["cell"]["step"].values.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(run["cell"]["loss"], losses, rtol=1e-12)
    tt.Monitor(tmp_path / "run.zarr", batch=(X, Y)).watch(model, loss=squared).__enter__().end()


def test_a_module_that_changes_in_place_is_followed(tmp_path: Path) -> None:
    model = Reader(rnn(nnx.GRUCell))
    monitor = tt.Monitor(tmp_path / "run.zarr", batch=(X, Y), every=1, vanishing_lag=None, background=True)
    with monitor.watch(model, loss=squared):
        for _ in range(2):
            gradient = nnx.grad(lambda model: jnp.mean(squared(model(X), Y)))(model)
            nnx.update(model, jax.tree.map(lambda w, g: w - 0.1 * g, nnx.state(model, nnx.Param), gradient))
            monitor.step()
    losses = tt.open_run(tmp_path / "run.zarr")["layers/0"]["loss"].values
    assert len(losses) == 3
    assert (np.diff(losses) < 0).all()


def test_a_new_model_that_is_not_passed_is_noticed(tmp_path: Path) -> None:
    model = Folded(eqx.nn.GRUCell)
    monitor = tt.Monitor(tmp_path / "run.zarr", batch=(X, Y), every=1, vanishing_lag=None)
    with (
        pytest.warns(tt.ThroughTimeWarning, match=r"weights of the last record.*monitor\.step\(model\)"),
        monitor.watch(model, loss=squared),
    ):
        monitor.step()


def test_modules_in_a_tuple_or_a_dict_have_their_own_fingerprint() -> None:
    class Pair(NamedTuple):
        cell: Any
        activation: Any

    def of(seed: int) -> list[Any]:
        cell = eqx.nn.GRUCell(2, 3, key=jax.random.key(seed))
        return [cell, Pair(cell, lambda x: jnp.tanh(2 * x)), {"a": {"cell": cell, "name": "b"}}]

    one, same, other = ({weights_fingerprint(each) for each in of(seed)} for seed in (0, 0, 1))
    assert len(one) == 1
    assert one == same
    assert not one & {*other, 0}


def test_weights_of_half_precision_are_followed() -> None:
    cell = eqx.nn.GRUCell(2, 3, dtype=jnp.bfloat16, key=jax.random.key(0))
    changed = eqx.tree_at(lambda cell: cell.bias, cell, cell.bias + 1)
    assert len({0, weights_fingerprint(cell), weights_fingerprint(changed)}) == 3


def test_parameters_without_their_function_are_refused(tmp_path: Path) -> None:
    monitor = tt.Monitor(tmp_path / "run.zarr", batch=(X, Y))
    with pytest.raises(tt.MonitorError, match=r"Partial\(function, parameters\)"):
        monitor.step({"kernel": jnp.ones((2, 3))})


def test_another_torch_module_is_refused() -> None:
    torch = pytest.importorskip("torch")
    first, second = torch.nn.GRU(2, 3), torch.nn.GRU(2, 3)
    with pytest.raises(tt.UnsupportedModelError, match="replaces only models of JAX"):
        tt.Probe(first, loss=squared).follow(second)


def test_a_program_is_compiled_once_for_models_that_are_built_alike() -> None:
    model = Folded(eqx.nn.GRUCell)
    probe = tt.Probe(model, loss=squared)
    probe(X, Y)
    probe.follow(jax.tree.map(lambda leaf: leaf * 0.5 if eqx.is_inexact_array(leaf) else leaf, model))
    (leaf,) = probe(X, Y).leaves
    np.testing.assert_allclose(leaf["recurrent_bias"].sel(gate="candidate"), model.cell.bias_n / 2)
    assert len(probe._probe._known) == 1
