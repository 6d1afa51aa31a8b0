"""Step Jacobians of custom cells: against closed forms, finite differences and exponents known in advance."""

import numpy as np
import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime import diagnostics

WITH_JACOBIAN = ["all", "state_jacobian"]


class WrittenGRU(nn.Module):
    """The equations of nn.GRU as a module that somebody wrote."""

    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        self.input, self.state = nn.Linear(3, 15), nn.Linear(5, 15)
        for mine, theirs in zip(self.parameters(), _in_order(gru), strict=True):
            mine.data = theirs.data.clone()

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        (r, z, n), (r_h, z_h, n_h) = self.input(x).chunk(3, -1), self.state(h).chunk(3, -1)
        z = torch.sigmoid(z + z_h)
        return (1 - z) * torch.tanh(n + torch.sigmoid(r + r_h) * n_h) + z * h


def _in_order(gru: nn.GRU) -> list[nn.Parameter]:
    return [gru.weight_ih_l0, gru.bias_ih_l0, gru.weight_hh_l0, gru.bias_hh_l0]


class TwoStates(nn.Module):
    """States of unlike sizes that depend on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(2 + 3 + 2, 3), nn.Linear(2 + 3 + 2, 2)

    def forward(self, x: torch.Tensor, h: torch.Tensor, m: torch.Tensor) -> tuple[torch.Tensor, ...]:
        joined = torch.cat([x, h, m], -1)
        return torch.tanh(self.wide(joined)), torch.sigmoid(self.narrow(joined)) * m + h[:, :2]


class Loop(nn.Module):
    """Calls a cell step by step, from a state that is given to it."""

    def __init__(self, cell: nn.Module, *sizes: int) -> None:
        super().__init__()
        self.cell, self.sizes = cell, sizes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = tuple(torch.full((len(x), size), 0.1, dtype=x.dtype) for size in self.sizes)
        outputs = []
        for step in x.unbind(1):
            found = self.cell(step, *states)
            states = found if isinstance(found, tuple) else (found,)
            outputs.append(states[0])
        return torch.stack(outputs, 1)


class Fused(nn.Module):
    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        self.gru = gru

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gru(x, torch.full((1, len(x), 5), 0.1))[0]


@pytest.fixture
def grus():
    """The same layer as a custom module with its Jacobians, and as nn.GRU; a loss at every step."""
    torch.manual_seed(0)
    gru = nn.GRU(3, 5, batch_first=True)
    x, y = torch.randn(4, 9, 3), torch.randn(4, 9, 5)
    loop = Loop(WrittenGRU(gru), 5)
    written = tt.capture(loop, x, y, loss=nn.MSELoss(), quantities=WITH_JACOBIAN)["cell"]
    return written, tt.capture(Fused(gru), x, y, loss=nn.MSELoss())["gru"]


@pytest.mark.parametrize(
    "measure",
    [diagnostics.state_jacobian, diagnostics.lyapunov_spectrum],
    ids=lambda measure: measure.__name__,
)
def test_a_custom_gru_measures_as_the_closed_form(grus, measure):
    written, closed = map(measure, grus)
    assert written.dims == closed.dims
    np.testing.assert_allclose(written, closed, atol=1e-6)


def test_error_of_the_last_step_alone_goes_back_as_through_the_closed_form(grus):
    written, closed = (diagnostics.from_last_step(leaf)["hidden_gradient"].values for leaf in grus)
    np.testing.assert_allclose(written, closed, atol=1e-7)
    assert np.abs(written[:, 0]).max() < np.abs(grus[0]["hidden_gradient"][:, 0]).max()


def test_eigenvalues_of_each_step_multiply_to_its_determinant(grus):
    found = diagnostics.recurrent_spectrum(grus[0])
    product = found["eigenvalues"].prod("mode").values
    np.testing.assert_allclose(product, np.linalg.det(diagnostics.state_jacobian(grus[1]).values), rtol=1e-4)


def test_several_states_agree_with_finite_differences():
    torch.manual_seed(1)
    loop, x = Loop(TwoStates(), 3, 2).double(), torch.randn(2, 4, 2, dtype=torch.float64)
    tree = tt.capture(loop, x, torch.zeros(2, 4, 3), loss=nn.MSELoss(), quantities=WITH_JACOBIAN)
    leaf = tree["cell"]
    before = np.concatenate([leaf["hidden"].values[:, :-1], leaf["cell"].values[:, :-1]], axis=2)

    def stepped(states: np.ndarray) -> np.ndarray:
        flat = torch.from_numpy(states.reshape(-1, 5))
        with torch.no_grad():
            after = loop.cell(x[:, 1:].reshape(-1, 2), flat[:, :3], flat[:, 3:])
        return torch.cat(after, 1).numpy().reshape(states.shape)

    moved = [(stepped(before + 1e-6 * one) - stepped(before - 1e-6 * one)) / 2e-6 for one in np.eye(5)]
    np.testing.assert_allclose(leaf["state_jacobian"].values[:, 1:], np.stack(moved, -1), atol=1e-8)


def test_exponents_at_a_fixed_point_are_the_logarithms_of_the_eigenvalues():
    class Tanh(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(0.9 * torch.randn(6, 6, dtype=torch.float64) / 6**0.5)

        def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            return torch.tanh(h @ self.matrix.T + x)

    torch.manual_seed(3)
    loop = Loop(Tanh(), 6)
    x, y = torch.zeros(1, 900, 6, dtype=torch.float64), torch.zeros(1, 900, 6, dtype=torch.float64)
    leaf = tt.capture(loop, x, y, loss=nn.MSELoss(), quantities=["hidden", "valid", "state_jacobian"])["cell"]
    expected = np.sort(np.log(np.abs(np.linalg.eigvals(loop.cell.matrix.detach().numpy()))))[::-1]
    found = diagnostics.lyapunov_spectrum(leaf, transient=300).values[0]
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_a_leaky_unit_keeps_what_its_leak_keeps():
    class Leaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.keep = nn.Parameter(torch.tensor([0.5, 0.9, 0.99]))

        def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            return self.keep * h + x

    loop, x = Loop(Leaky(), 3), torch.randn(2, 6, 3)
    leaf = tt.capture(loop, x, torch.zeros(2, 6, 3), loss=nn.MSELoss(), quantities=WITH_JACOBIAN)["cell"]
    np.testing.assert_allclose(diagnostics.timescale(leaf), -1 / np.log([0.5, 0.9, 0.99]), rtol=1e-4)


def test_without_it_measures_name_what_to_capture(grus):
    leaf = grus[0].to_dataset().drop_vars("state_jacobian")
    for measure in (diagnostics.lyapunov_spectrum, diagnostics.timescale, diagnostics.from_last_step):
        with pytest.raises(tt.DiagnosticError, match="state_jacobian"):
            measure(leaf)


def test_a_step_without_a_batching_rule_gives_the_same(grus):
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(context, value):
            return value * 2

        @staticmethod
        def backward(context, gradient):
            if torch._C._functorch.is_batchedtensor(gradient):
                raise RuntimeError("not under vmap")
            return gradient * 2

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            return Doubled.apply(h) * self.own + x

    x = torch.randn(2, 4, 3)
    tree = tt.capture(
        Loop(Cell(), 3), x, torch.zeros(2, 4, 3), loss=nn.MSELoss(), quantities="state_jacobian"
    )
    np.testing.assert_allclose(tree["cell"]["state_jacobian"], np.broadcast_to(2 * np.eye(3), (2, 4, 3, 3)))
