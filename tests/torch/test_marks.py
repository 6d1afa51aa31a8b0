"""`tt.mark` in torch: against a loop written out in the test, whose tensors keep their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.torch.comparison import difference
from torch import nn
from torch.utils.checkpoint import checkpoint

import throughtime as tt

B, T, M, N = 3, 6, 2, 4
MSE = nn.MSELoss()
X = torch.randn(B, T, M, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randn(B, T, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class GatedUnit(nn.Module):
    """A minimal gated unit."""

    def __init__(self, features: int = M, mark: Any = None) -> None:
        super().__init__()
        self.forget, self.new = nn.Linear(features + N, N), nn.Linear(features + N, N)
        self.mark = mark or tt.mark

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        f = self.mark(torch.sigmoid(self.forget(torch.cat([x, h], -1))), "forget")
        z = self.mark(self.new(torch.cat([x, f * h], -1)), "drive")
        c = self.mark(torch.tanh(z), "candidate")
        self.mark(f.mean(-1), "openness")
        return (1 - f) * h + f * c


class Looped(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(N, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, out = x.new_zeros(len(x), N), []
        for step in x.unbind(1):
            h = self.cell(step, h)
            out.append(h)
        return self.head(torch.stack(out, 1))


def seeded(model: nn.Module) -> Any:
    torch.manual_seed(3)
    for weight in model.parameters():
        nn.init.normal_(weight, 0, 0.5)
    return model.double()


class Kept:
    """Stands in the place of `mark`, and keeps what it is given with its gradient."""

    def __init__(self) -> None:
        self.tensors: dict[str, list[torch.Tensor]] = {}

    def __call__(self, value: torch.Tensor, name: str) -> torch.Tensor:
        value.retain_grad()
        self.tensors.setdefault(name, []).append(value)
        return value

    def over_time(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Values and gradients (sample, time, …), the batch mean undone."""
        each = self.tensors[name]
        zeros = [torch.zeros_like(one) if one.grad is None else one.grad for one in each]
        return torch.stack(each, 1).detach().numpy(), B * torch.stack(zeros, 1).numpy()


def by_autodiff(make: Any) -> Kept:
    kept = Kept()
    model = seeded(make(kept))
    MSE(model(X), Y).backward()
    return kept


def test_gates_and_other_marks_of_a_cell_are_those_of_the_loop_written_out():
    leaf = tt.capture(seeded(Looped(GatedUnit())), X, Y, loss=MSE)["cell"].to_dataset()
    kept = by_autodiff(lambda mark: Looped(GatedUnit(mark=mark)))
    assert list(leaf["gate"].values) == ["forget", "candidate"]
    assert leaf["gate_gradient"].attrs["long_name"] == "dL/dgate_t"
    for gate in ("forget", "candidate"):
        value, gradient = kept.over_time(gate)
        assert difference(leaf["gate_activation"].sel(gate=gate), value) <= 1e-14
        assert difference(leaf["gate_gradient"].sel(gate=gate), gradient) <= 1e-12
    for name in ("drive", "openness"):
        value, gradient = kept.over_time(name)
        found = leaf[name].values.reshape(value.shape), leaf[f"{name}_gradient"].values.reshape(value.shape)
        assert difference(found[0], value) <= 1e-14
        assert difference(found[1], gradient) <= 1e-12
    assert leaf["drive"].dims == leaf["hidden"].dims == ("sample", "time", "unit")
    assert float(leaf["certificate_time"]) <= 1e-12


class Nested(nn.Module):
    """Two cells in one: both name their gates."""

    def __init__(self, mark: Any = None) -> None:
        super().__init__()
        self.lower, self.upper = GatedUnit(M, mark), GatedUnit(N, mark)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return self.upper(self.lower(x, h), h)


def test_nested_cells_that_mark_the_same_name_are_told_apart_by_number():
    leaf = tt.capture(seeded(Looped(Nested())), X, Y, loss=MSE)["cell"].to_dataset()
    kept = by_autodiff(lambda mark: Looped(Nested(mark)))
    assert list(leaf["gate"].values) == ["forget", "candidate"]
    for name, own in (("drive", 0), ("drive_2", 1), ("forget_2", 1)):
        value, gradient = (both[:, own::2] for both in kept.over_time(name.removesuffix("_2")))
        assert difference(leaf[name], value) <= 1e-14
        assert difference(leaf[f"{name}_gradient"], gradient) <= 1e-12


class Bare(nn.Module):
    """A loop without a module for its step."""

    def __init__(self, mark: Any = None) -> None:
        super().__init__()
        self.step, self.head = nn.Linear(M + N, N), nn.Linear(N, 1)
        self.mark = mark or tt.mark

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, out = x.new_zeros(len(x), N), []
        for now in x.unbind(1):
            h = self.mark(torch.tanh(self.step(torch.cat([now, h], -1))), "memory")
            out.append(h)
        return self.head(torch.stack(out, 1))


def test_a_bare_loop_has_a_leaf_with_the_total_derivative_at_every_step():
    tree = tt.capture(seeded(Bare()), X, Y, loss=MSE)
    value, gradient = by_autodiff(Bare).over_time("memory")
    leaf = tree["memory"].to_dataset()
    assert leaf["output"].dims == ("sample", "time", "output_unit")
    assert difference(leaf["output"], value) <= 1e-14
    assert difference(leaf["output_gradient"], gradient) <= 1e-12
    assert "memory: mark" in str(tt.summary(tree))


class Scanned(nn.Module):
    """All states at once, as an associative scan gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(M, N), nn.Linear(N, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(tt.mark(self.enter(x).cumsum(1), "states"))


def test_a_marked_sequence_is_a_leaf_with_output_gradient():
    model = seeded(Scanned())
    leaf = tt.capture(model, X, Y, loss=MSE)["states"].to_dataset()
    with torch.no_grad():
        expected = B * (2 / Y.numel()) * (model(X) - Y) * model.head.weight
    assert difference(leaf["output_gradient"], expected.numpy()) <= 1e-12
    assert {*tt.capture(model, X, quantities="output").children} == {"states"}


def test_without_a_recurrence_and_without_marks_there_is_nothing_to_capture():
    with pytest.raises(tt.LayerNotFoundError, match="no recurrent layer"):
        tt.capture(nn.Sequential(nn.Linear(M, 1)).double(), X, Y, loss=MSE)
    with pytest.raises(tt.LayerNotFoundError, match="no recurrent layer"):
        tt.summary(nn.Sequential(nn.Linear(M, 1)))


def test_only_what_is_asked_for_is_there():
    model = seeded(Looped(GatedUnit()))
    leaf = tt.capture(model, X, Y, loss=MSE, quantities=["hidden_gradient"])["cell"]
    assert {"drive", "drive_gradient", "gate_gradient"}.isdisjoint(leaf.data_vars)
    leaf = tt.capture(model, X, quantities=["gate_activation"])["cell"]
    assert {"drive", "gate_activation"} <= {*leaf.data_vars}
    assert not [name for name in leaf.data_vars if str(name).endswith("_gradient")]


class Sometimes(GatedUnit):
    """Marks at some steps, in modes that show no gradient, and within functions of torch's."""

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        if bool((x[0, 0] > 0).all()):
            tt.mark(x, "positive")
        with torch.no_grad():
            tt.mark(h, "silent")
        torch.func.vmap(lambda row: tt.mark(row * 2, "doubled"))(x)
        return checkpoint(super().forward, x, h, use_reentrant=False)


def test_what_is_not_marked_at_every_step_or_not_differentiated_costs_nothing_else():
    leaf = tt.capture(seeded(Looped(Sometimes())), X, Y, loss=MSE)["cell"].to_dataset()
    assert {"positive", "doubled"}.isdisjoint(leaf.data_vars)
    assert not leaf["silent_gradient"].any()
    kept = by_autodiff(lambda mark: Looped(GatedUnit(mark=mark)))
    assert difference(leaf["drive_gradient"], kept.over_time("drive")[1]) <= 1e-12


def test_the_identity_outside_of_a_capture_also_when_compiled():
    value = torch.ones(2, 3)
    assert tt.mark(value, "forget") is value

    def step(x: torch.Tensor) -> torch.Tensor:
        return tt.mark(2 * x, "forget") + 1

    compiled = torch.compile(step, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(value), step(value))


def test_a_capture_that_fails_hears_nothing_afterwards_and_leaves_the_module_as_it_was():
    class Failing(Bare):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            super().forward(x)
            raise ArithmeticError

    model = seeded(Failing())
    with pytest.raises(ArithmeticError):
        tt.capture(model, X, Y, loss=MSE)
    value = torch.ones(2)
    assert tt.mark(value, "forget") is value
    assert "forward" not in vars(model)


def test_measures_of_gates_and_of_gradients_take_the_cell():
    tree = tt.capture(seeded(Looped(GatedUnit())), X, Y, loss=MSE)
    shares = tt.diagnostics.saturation(tree)
    value = tree["cell"]["gate_activation"].sel(gate="forget").values
    np.testing.assert_allclose(shares["left"].sel(gate="forget"), (value < 0.1).mean((0, 1)))
    assert tt.diagnostics.memory_horizon(tree).sizes == {"sample": B}
    assert len(tt.plots.gates(tree).panels) == 6
    with pytest.raises(tt.DiagnosticError):
        tt.diagnostics.timescale(tree)
    with pytest.raises((tt.DiagnosticError, tt.SchemaError)):
        tt.diagnostics.lyapunov_spectrum(tree)
