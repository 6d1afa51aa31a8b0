"""The same weights and data give the same tree in JAX and in torch."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from flax import nnx
from tests.jax.programs import DOUBLE, FEATURES, UNITS, Folded, X, Y, squared

import throughtime as tt

torch = pytest.importorskip("torch")
# Of a torch layer whose last step alone is read the output is shown at every step, as here.
OWN = {"certificate_weights", "certificate_time", "recurrent_bias", "recurrent_bias_gradient"}


class Reader(torch.nn.Module):
    def __init__(self, kind: str, arrays: list[Any], head: Any) -> None:
        super().__init__()
        layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "simple_rnn": torch.nn.RNN}[kind]
        self.cell = layer(FEATURES, UNITS, batch_first=True, dtype=torch.float64)
        self.head = torch.nn.Linear(UNITS, 1, dtype=torch.float64)
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        for parameter, value in zip(
            [*(getattr(self.cell, name) for name in names), self.head.weight, self.head.bias],
            [*arrays, *head],
            strict=True,
        ):
            parameter.data = torch.tensor(np.asarray(value))

    def forward(self, x: Any) -> Any:
        return self.head(self.cell(x)[0][:, -1])


def in_torch(kind: str, arrays: list[Any], head: Any) -> xr.Dataset:
    model = Reader(kind, arrays, head)
    tree = tt.capture(model, torch.tensor(X), torch.tensor(Y), loss=squared)
    return tree["cell"].to_dataset()


def assert_same(found: xr.Dataset, wanted: xr.Dataset) -> None:
    for name in wanted.data_vars.keys() - OWN:
        assert found[name].dims == wanted[name].dims, name
        largest = np.abs(wanted[name]).max()
        np.testing.assert_allclose(
            found[name], wanted[name], rtol=0, atol=1e-12 * max(largest, 1e-3), err_msg=name
        )
    for name in ("kind", "activation", "recurrent_activation", "reset_after", "units"):
        assert found.attrs.get(name) == wanted.attrs.get(name)


@pytest.mark.parametrize("cell", [eqx.nn.LSTMCell, eqx.nn.GRUCell], ids=lambda cell: cell.__name__)
def test_an_equinox_cell_and_a_torch_layer_are_the_same_tree(cell: Any) -> None:
    model = Folded(cell)
    zeros = jnp.zeros_like(model.cell.bias)
    inner = zeros if cell is eqx.nn.LSTMCell else zeros.at[2 * UNITS :].set(model.cell.bias_n)
    arrays = [model.cell.weight_ih, model.cell.weight_hh, model.cell.bias, inner]
    wanted = in_torch(cell.__name__[:-4].lower(), arrays, (model.head.weight, model.head.bias))
    found = tt.capture(model, X, Y, loss=squared)["cell"].to_dataset()
    assert_same(found, wanted)
    if cell is eqx.nn.GRUCell:
        for name in ("recurrent_bias", "recurrent_bias_gradient"):
            candidate = {"gate": "candidate"}
            np.testing.assert_allclose(found[name].sel(candidate), wanted[name].sel(candidate), rtol=1e-10)


class Nnx(nnx.Module):
    def __init__(self, cell: Any) -> None:
        rngs = nnx.Rngs(0)
        self.rnn = nnx.RNN(cell(FEATURES, UNITS, rngs=rngs, **DOUBLE), rngs=rngs)
        self.head = nnx.Linear(UNITS, 1, rngs=rngs, **DOUBLE)

    def __call__(self, x: Any) -> Any:
        return self.head(self.rnn(x)[:, -1])


def of_torch(leaf: xr.Dataset, inner: Any = 0.0) -> list[Any]:
    """The weights of a captured layer in torch's order, with a bias inside a GRU's reset."""
    gates = {"lstm": ["input", "forget", "candidate", "output"], "gru": ["reset", "update", "candidate"]}
    ordered = leaf if leaf.attrs["kind"] == "simple_rnn" else leaf.sel(gate=gates[leaf.attrs["kind"]])
    kernels = [
        ordered[name].values.reshape(len(ordered[name]), -1).T for name in ("kernel", "recurrent_kernel")
    ]
    bias = ordered["bias"].values.reshape(-1)
    zeros = np.zeros_like(bias)
    zeros[-UNITS:] = inner
    return [*kernels, bias, zeros]


CELLS = [nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_an_nnx_cell_and_a_torch_layer_are_the_same_tree(cell: Any) -> None:
    model = Nnx(cell)
    found = tt.capture(model, X, Y, loss=squared)["rnn"].to_dataset()
    head = model.head.kernel[...].T, model.head.bias[...]
    assert_same(found, in_torch(found.attrs["kind"], of_torch(found), head))


def test_a_bias_inside_a_reset_shows_first_in_the_candidate() -> None:
    model = Nnx(nnx.GRUCell)
    found = tt.capture(model, X, Y, loss=squared)["rnn"].to_dataset()
    head = model.head.kernel[...].T, model.head.bias[...]
    wanted = in_torch("gru", of_torch(found, inner=0.5), head)
    differ = np.abs(found["gate_activation"] - wanted["gate_activation"]).max(("sample", "unit")) > 1e-12
    assert differ.isel(time=0).sel(gate=["update", "reset", "candidate"]).values.tolist() == [
        False,
        False,
        True,
    ]
    assert differ.isel(time=1).all()
    first = tt.diagnostics.first_difference(wanted, found)
    assert (first.variable, first.where["time"], first.where["gate"]) == ("gate_activation", 0, "candidate")
    assert first.weights == ("recurrent_bias",)
    assert "gate_activation" in str(first)
    assert "gate candidate" in str(first)


class BothWays(nnx.Module):
    def __init__(self, cell: Any) -> None:
        rngs = nnx.Rngs(0)
        halves = [nnx.RNN(cell(FEATURES, UNITS, rngs=rngs, **DOUBLE), rngs=rngs) for _ in range(2)]
        self.rnn = nnx.Bidirectional(*halves, rngs=rngs)
        self.head = nnx.Linear(2 * UNITS, 1, rngs=rngs, **DOUBLE)

    def __call__(self, x: Any) -> Any:
        return self.head(jnp.tanh(self.rnn(x)).sum(1))


class BothWaysInTorch(torch.nn.Module):
    def __init__(self, kind: str, halves: list[list[Any]], head: Any) -> None:
        super().__init__()
        layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "simple_rnn": torch.nn.RNN}[kind]
        self.cell = layer(FEATURES, UNITS, batch_first=True, bidirectional=True, dtype=torch.float64)
        self.head = torch.nn.Linear(2 * UNITS, 1, dtype=torch.float64)
        arrays = [*halves[0], *halves[1], *head]
        for parameter, value in zip(self.parameters(), arrays, strict=True):
            parameter.data = torch.tensor(np.array(value))

    def forward(self, x: Any) -> Any:
        return self.head(torch.tanh(self.cell(x)[0]).sum(1))


@pytest.mark.parametrize("cell", CELLS[1:], ids=lambda cell: cell.__name__)
def test_both_ways_of_nnx_and_of_torch_are_the_same_tree(cell: Any) -> None:
    model = BothWays(cell)
    found = tt.capture(model, X, Y, loss=squared)["rnn"].to_dataset()
    halves = [of_torch(found.sel(direction=direction)) for direction in ("forward", "backward")]
    head = model.head.kernel[...].T, model.head.bias[...]
    other = BothWaysInTorch(found.attrs["kind"], halves, head)
    wanted = tt.capture(other, torch.tensor(X), torch.tensor(Y), loss=squared)["cell"].to_dataset()
    assert_same(found, wanted)
    assert found.attrs["merge_mode"] == wanted.attrs["merge_mode"]
