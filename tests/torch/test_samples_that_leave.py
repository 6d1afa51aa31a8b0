"""Loops whose batch shrinks: samples that are done leave.

The oracle is the same loop without leaving: every call has all samples, and those that are done keep
their state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from tests.torch.comparison import difference
from tests.torch.rows import normal, seeded
from tests.torch.test_recurrences import LeakyRNN, MinGRU, Noting, WrittenLSTM, expected
from torch import nn

import throughtime as tt

B, T, M, N, K = 5, 6, 2, 4, 1
MSE = nn.MSELoss()
LENGTHS = torch.tensor([3, 6, 1, 4, 6])
VALID = (torch.arange(T) < LENGTHS[:, None]).numpy()
X, Y = normal(B, T, M) * torch.from_numpy(VALID)[..., None], normal(B, T, K, seed=7)


class Loop(nn.Module):
    """Runs a cell over samples of several lengths, by `how`; a state is a tensor or a pair of them."""

    def __init__(self, cell: nn.Module, how: str, *, pairs: bool = False) -> None:
        super().__init__()
        self.cell, self.head, self.how, self.pairs = cell, nn.Linear(N, K), how, pairs

    def call(self, x: torch.Tensor, states: list[torch.Tensor]) -> list[torch.Tensor]:
        return list(self.cell(x, tuple(states))) if self.pairs else [self.cell(x, states[0])]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.lengths = (x[..., 0] != 0).sum(1)
        states = [x.new_zeros(len(x), N) for _ in range(1 + self.pairs)]
        return getattr(self, self.how)(x, states)

    def masked(self, x: torch.Tensor, states: Any) -> torch.Tensor:
        outputs = []
        for step, entering in enumerate(x.unbind(1)):
            runs = (step < self.lengths)[:, None]
            pairs = zip(self.call(entering, states), states, strict=True)
            states = [torch.where(runs, new, old) for new, old in pairs]
            outputs.append(torch.where(runs, self.head(states[0]), 0))
        return torch.stack(outputs, 1)

    def dropped(self, x: torch.Tensor, states: Any) -> torch.Tensor:
        """Keep the states of those that run."""
        rows, outputs = torch.arange(len(x)), []
        for step in range(T):
            runs = self.lengths[rows] > step
            rows, states = rows[runs], [state[runs] for state in states]
            states = self.call(x[rows, step], states)
            outputs.append(x.new_zeros(len(x), K).index_copy(0, rows, self.head(states[0])))
        return torch.stack(outputs, 1)

    def written_back(self, x: torch.Tensor, states: Any) -> torch.Tensor:
        """Keep the states of all, and write those that run."""
        outputs = []
        for step in range(T):
            rows = (step < self.lengths).nonzero().flatten()
            new = self.call(x[rows, step], [state[rows] for state in states])
            states = [old.index_copy(0, rows, one) for old, one in zip(states, new, strict=True)]
            outputs.append(x.new_zeros(len(x), K).index_copy(0, rows, self.head(new[0])))
        return torch.stack(outputs, 1)

    def prefix(self, x: torch.Tensor, states: Any) -> torch.Tensor:
        """The longest first, as packed sequences have them."""
        order = self.lengths.argsort(descending=True)
        packed = nn.utils.rnn.pack_padded_sequence(x[order], self.lengths[order], batch_first=True)
        outputs, start = [], 0
        for size in packed.batch_sizes.tolist():
            entering, start = packed.data[start : start + size], start + size
            states = self.call(entering, [state[:size] for state in states])
            outputs.append(nn.functional.pad(self.head(states[0]), (0, 0, 0, len(x) - size)))
        return torch.stack(outputs, 1)[order.argsort()]


CELLS: dict[str, tuple[Callable[[], Noting], tuple[str, ...]]] = {
    "leaky": (LeakyRNN, ("hidden",)),
    "min_gru": (MinGRU, ("hidden",)),
    "written_lstm": (WrittenLSTM, ("hidden", "cell")),
}
WAYS = ("dropped", "written_back", "prefix")


def model(name: str, how: str) -> Loop:
    build, states = CELLS[name]
    return seeded(Loop(build(), how, pairs=len(states) > 1))


def capture(model: nn.Module, **options: Any) -> Any:
    return tt.capture(model, X, Y, loss=MSE, **options)


def in_order(how: str, values: np.ndarray) -> np.ndarray:
    """Bring what the masked loop has to the order of the leaf's samples."""
    return values[LENGTHS.argsort(descending=True).numpy()] if how == "prefix" else values


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("name", CELLS)
class TestSamplesThatLeave:
    def test_all_calls_are_one_leaf_with_a_certificate(self, name: str, how: str) -> None:
        tree = capture(model(name, how))
        assert [leaf.path for leaf in tree.leaves] == ["/cell"]
        assert "ends" not in tree["cell"].attrs
        assert float(tree["cell"]["certificate_time"]) <= 1e-12
        assert np.array_equal(tree["cell"]["valid"].values, in_order(how, VALID))

    def test_states_and_gradients_are_those_of_the_loop_in_which_nobody_leaves(
        self, name: str, how: str
    ) -> None:
        leaf, valid = capture(model(name, how))["cell"], in_order(how, VALID)
        found = expected(model(name, "masked"), CELLS[name][1], X, Y)
        for variable, values in found.items():
            ours = leaf[variable].values
            assert np.isnan(ours[~valid]).all(), variable
            assert difference(ours[valid], in_order(how, values)[valid]) <= 1e-12, variable

    def test_what_enters_and_leaves_is_that_of_each_sample(self, name: str, how: str) -> None:
        leaf, valid = capture(model(name, how))["cell"], in_order(how, VALID)
        x = X.clone().requires_grad_()
        (of_input,) = torch.autograd.grad(MSE(model(name, "masked")(x), Y) * B, x)
        for variable, values in (("input", X.numpy()), ("input_gradient", of_input.numpy())):
            assert np.isnan(leaf[variable].values[~valid]).all()
            assert difference(leaf[variable].values[valid], in_order(how, values)[valid]) <= 1e-12
        network, outputs = model(name, how), torch.from_numpy(leaf["output"].values).requires_grad_()
        read = torch.where(torch.from_numpy(valid)[..., None], network.head(outputs), 0)
        loss = MSE(read, torch.from_numpy(in_order(how, Y.numpy()))) * B
        (asked,) = torch.autograd.grad(loss, outputs)
        assert difference(leaf["output_gradient"].values[valid], asked.numpy()[valid]) <= 1e-12

    def test_gradient_is_carried_where_a_sample_goes_on(self, name: str, how: str) -> None:
        leaf, valid = capture(model(name, how))["cell"], in_order(how, VALID)
        goes_on = np.concatenate([valid[:, 1:], np.zeros((B, 1), bool)], 1)
        carried = leaf["carried_gradient"].values
        assert np.isnan(carried[~valid]).all()
        assert np.array_equal(carried > 0, goes_on)
        assert not leaf["reset"].values.any()


@pytest.mark.parametrize(("sample", "time"), [(0, 1), (1, 4), (3, 0)])
def test_finite_differences_agree(sample: int, time: int) -> None:
    network, step = model("leaky", "dropped"), 1e-5
    found = capture(network)["cell"]["hidden_gradient"].values[sample, time].sum()
    row, losses = int(VALID[:sample, time].sum()), []
    for nudge in (step, -step):
        calls: list[torch.Tensor] = []

        def note(_: str, value: torch.Tensor, nudge: float = nudge, calls: Any = calls) -> torch.Tensor:
            calls.append(value)
            here = (torch.arange(len(value)) == row)[:, None] & (len(calls) == time + 1)
            return torch.where(here, value + nudge, value)

        network.cell.note = note
        losses.append(float(MSE(network(X), Y).detach()) * B)
    assert abs(found - (losses[0] - losses[1]) / (2 * step)) <= 1e-8


def test_measures_and_plots_skip_samples_that_have_left() -> None:
    tree = capture(model("written_lstm", "dropped"))
    leaf = tree["cell"]
    assert tt.diagnostics.first_nonfinite(tree) is None
    horizon = tt.diagnostics.memory_horizon(leaf)
    assert (horizon.values < LENGTHS.numpy()).all()
    padded = capture(model("written_lstm", "masked"))["cell"].to_dataset()
    padded = padded.assign(valid=leaf["valid"])
    assert np.array_equal(tt.diagnostics.memory_horizon(padded).values, horizon.values)
    tt.diagnose(tree)
    for plot in (tt.plots.heatmap, tt.plots.histogram, tt.plots.lag_profile, tt.plots.gradient_flow):
        assert plot(tree) is not None


def test_the_jacobian_of_a_step_is_that_of_each_sample() -> None:
    quantities = ["all", "state_jacobian"]
    leaf = capture(model("leaky", "dropped"), quantities=quantities)["cell"]
    padded = capture(model("leaky", "masked"), quantities=quantities)["cell"]
    ours, others = leaf["state_jacobian"].values, padded["state_jacobian"].values
    assert np.isnan(ours[~VALID]).all()
    assert difference(ours[VALID], others[VALID]) <= 1e-12


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("cell", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_torchs_cells_are_one_leaf_too(cell: type[nn.Module], how: str) -> None:
    def build(how: str) -> Loop:
        return seeded(Loop(cell(M, N), how, pairs=cell is nn.LSTMCell))

    tree, valid = capture(build(how)), in_order(how, VALID)
    assert [leaf.path for leaf in tree.leaves] == ["/cell"]
    leaf, padded = tree["cell"], capture(build("masked"))["cell"]
    assert np.array_equal(leaf["valid"].values, valid)
    for name in ("certificate_time", "certificate_weights"):
        assert float(leaf[name]) <= 1e-12
    for name in ("input", "input_gradient", "hidden", "hidden_gradient", "gate_activation", "gate_gradient"):
        if name in padded:
            found = in_order(how, padded[name].values)[valid]
            assert difference(leaf[name].values[valid], found) <= 1e-12, name
    for name in ("kernel_gradient", "recurrent_kernel_gradient", "bias_gradient"):
        assert difference(leaf[name], padded[name]) <= 1e-12, name
    assert tt.diagnostics.first_nonfinite(tree) is None


MEASURES = ("timescale", "lyapunov_spectrum", "recurrent_spectrum", "memory_horizon", "decay_rate")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("build", [nn.RNNCell, nn.GRUCell, nn.LSTMCell, LeakyRNN])
def test_measures_are_those_of_the_loop_in_which_nobody_leaves(build: Any, how: str) -> None:
    def captured(how: str) -> Any:
        cell = build() if build is LeakyRNN else build(M, N)
        network = seeded(Loop(cell, how, pairs=build is nn.LSTMCell))
        quantities = ["all", "state_jacobian"] if build is LeakyRNN else "all"
        return capture(network, quantities=quantities)["cell"].to_dataset()

    leaf, padded = captured(how), captured("masked")
    assert padded.attrs["states_changed"]
    padded = padded.isel(sample=np.argsort(-LENGTHS.numpy(), kind="stable")) if how == "prefix" else padded
    padded = padded.assign(valid=leaf["valid"], carried_gradient=leaf["carried_gradient"])
    padded.attrs["states_changed"] = 0
    for name in MEASURES:
        if name == "timescale" and build is nn.RNNCell:  # has no gate that keeps the state
            continue
        ours, others = (getattr(tt.diagnostics, name)(one) for one in (leaf, padded))
        xr.testing.assert_allclose(ours, others, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("build", [nn.LSTMCell, LeakyRNN])
def test_lags_verdict_and_report_are_those_of_the_loop_in_which_nobody_leaves(
    build: Any, tmp_path: Any
) -> None:
    def network(how: str) -> Loop:
        cell = build() if build is LeakyRNN else build(M, N)
        return seeded(Loop(cell, how, pairs=build is nn.LSTMCell))

    tree = capture(network("dropped"))
    assert tt.diagnostics.boundary_leak(tree["cell"]) == []
    ours, others = (
        tt.lag_matrix(network(how), X, Y, loss=MSE)["cell"]["lag_matrix"] for how in ("dropped", "masked")
    )
    both = (VALID[:, :, None] & VALID[:, None, :]).astype(bool)
    assert ours.dims[:3] == others.dims[:3] == ("sample", "loss_time", "time")
    assert difference(ours.values[both], others.values[both]) <= 1e-12
    assert np.isfinite(ours.values[both]).all()
    answer = tt.diagnose(tree)
    assert [name.strip("/") for name in answer.layers] == ["cell"]
    assert any("masked" in note for note in answer.notes)
    tt.report(tree, tmp_path / "report.html")
    assert "cell" in (tmp_path / "report.html").read_text()


def test_samples_mixed_on_their_way_are_not_matched() -> None:
    class Mixing(Loop):
        def dropped(self, x: torch.Tensor, states: Any) -> torch.Tensor:
            state, outputs = states[0], []
            for step in range(T):
                state = state[:3] + 0.1 * state[-3:] if step == 2 else state
                state = self.cell(x[: len(state), step], state)
                outputs.append(nn.functional.pad(self.head(state), (0, 0, 0, B - len(state))))
            return torch.stack(outputs, 1)

    tree = capture(seeded(Mixing(LeakyRNN(), "dropped")))
    assert [(leaf.path, leaf.sizes["time"], leaf.sizes["sample"]) for leaf in tree.leaves] == [
        ("/cell", 2, B),
        ("/cell@2", T - 2, 3),
    ]
    assert "which samples continue is not known" in tree["cell"].attrs["ends"]
