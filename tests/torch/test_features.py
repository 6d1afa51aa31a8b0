"""The rest of the library on native torch modules: classic functions, Probe, lag matrix, diagnostics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.torch.comparison import difference
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import throughtime as tt

B, T, M, N = 3, 8, 2, 4
MSE = nn.MSELoss()
PER_VALUE = nn.MSELoss(reduction="none")
X = torch.randn(B, T, M, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randn(B, T, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Reader(nn.Module):
    def __init__(self, kind: Any = nn.LSTM, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        options = {"batch_first": True, **options}
        self.rnn = kind(M, N, **options)
        width = options.get("proj_size") or N
        self.head = nn.Linear(width * (2 if options.get("bidirectional") else 1), 1)
        self.double()

    def forward(self, x: Any) -> Any:
        output = self.rnn(x)[0]
        return self.head(output) if isinstance(x, torch.Tensor) else output


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = nn.LSTMCell(M, N), nn.Linear(N, 1)
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, outputs = None, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            outputs.append(self.head(state[0]))
        return torch.stack(outputs, 1)


class TestClassicFunctions:
    def test_the_gradient_is_torchs_own(self) -> None:
        model = Reader(num_layers=2)
        found = tt.get_rnn_gradients(model, X, Y, loss=MSE)
        sequence = model.rnn(X)[0].detach().requires_grad_()
        MSE(model.head(sequence), Y).backward()
        np.testing.assert_allclose(found, sequence.grad, rtol=0, atol=1e-15)
        leaf = tt.capture(model, X, Y, loss=MSE)["rnn/1"]
        np.testing.assert_allclose(found, leaf["output_gradient"] * leaf["reduction_factor"], atol=1e-15)

    def test_samples_come_first_whatever_the_layout(self) -> None:
        time_first = Reader(batch_first=False)
        swapped = tt.get_rnn_gradients(time_first, X.transpose(0, 1), Y.transpose(0, 1), loss=MSE)
        np.testing.assert_allclose(swapped, tt.get_rnn_gradients(Reader(), X, Y, loss=MSE), atol=1e-15)

    def test_one_inner_layer(self) -> None:
        model = Reader(num_layers=2)
        found = tt.get_rnn_gradients(model, X, Y, layer_name="rnn/0", loss=MSE)
        leaf = tt.capture(model, X, Y, loss=MSE)["rnn/0"]
        np.testing.assert_allclose(found, leaf["output_gradient"] * leaf["reduction_factor"], atol=1e-15)

    def test_a_layer_called_twice_is_told(self) -> None:
        class Twice(Reader):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x) + super().forward(2 * x)

        with pytest.raises(tt.NoGradientError, match="called 2 times"):
            tt.get_rnn_gradients(Twice(), X, Y, loss=MSE)

    def test_every_picture_draws_it(self) -> None:
        grads = tt.get_rnn_gradients(Reader(bidirectional=True), X, Y, loss=MSE)
        for show in (tt.show_features_1D, tt.show_features_2D, tt.show_features_hist):
            figure, _ = show(grads, n_rows=2)
            assert figure.axes
        figure, _ = tt.show_features_0D(grads[:, -1])
        assert figure.axes


class TestProbe:
    def test_a_probe_follows_the_training(self) -> None:
        model = Reader()
        probe = tt.Probe(model, loss=MSE, quantities=["hidden_gradient", "kernel_gradient"])
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        seen = []
        for _ in range(3):
            tree = probe(X, Y)
            assert "output" not in tree["rnn"]
            seen.append(float(np.abs(tree["rnn"]["kernel_gradient"]).sum()))
            optimizer.zero_grad()
            MSE(model(X), Y).backward()
            kernel = model.rnn.weight_ih_l0.grad
            assert seen[-1] == pytest.approx(float(kernel.abs().sum()), rel=1e-12)
            optimizer.step()
        assert len(set(seen)) == 3

    @pytest.mark.parametrize(
        "name",
        ["input_gradient", "output_gradient", "hidden", "gate_gradient", "certificate", "weights", "valid"],
    )
    @pytest.mark.parametrize("model", [Reader, Loop])
    def test_what_is_asked_for_alone_is_what_all_would_give(self, name: str, model: Any) -> None:
        every = next(iter(tt.capture(model(), X, Y, loss=MSE).leaves))
        alone = next(iter(tt.capture(model(), X, Y, loss=MSE, quantities=name).leaves))
        extra = set(alone.data_vars) - {"loss", "reduction_factor"}
        assert extra
        assert len(extra) <= 4
        for each in extra:
            assert difference(alone[each], every[each]) <= 1e-12


class TestLagMatrix:
    @pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
    @pytest.mark.parametrize(
        "model", [Reader, Loop, lambda: Reader(nn.GRU, bidirectional=True), lambda: Reader(proj_size=2)]
    )
    def test_its_rows_are_the_gradients_of_single_steps(self, model: Any) -> None:
        network = model()
        path = "cell" if isinstance(network, Loop) else "rnn"
        matrix = tt.lag_matrix(network, X, Y, loss=PER_VALUE)[path]["lag_matrix"]

        def of_step(s: int) -> Any:
            return tt.capture(network, X, Y, loss=lambda o, y: (o - y)[:, s].square().sum() / T)[path]

        for s in (0, T - 1):
            leaf = of_step(s)
            states = [leaf[name] for name in ("hidden_gradient", "cell_gradient") if name in leaf]
            norms = np.sqrt(sum((state**2).sum(state.dims[-1]) for state in states))
            np.testing.assert_allclose(matrix.sel(loss_time=s).transpose(*norms.dims), norms, atol=1e-12)
        if "direction" not in matrix.dims:
            assert float(matrix.sel(loss_time=2).isel(time=slice(3, None)).max()) == 0.0

    def test_it_needs_samples_first_and_a_loss_per_step(self) -> None:
        with pytest.raises(tt.LossError, match="batch_first=True"):
            tt.lag_matrix(Reader(batch_first=False), X.transpose(0, 1), Y.transpose(0, 1), loss=PER_VALUE)
        with pytest.raises(tt.LossError, match='reduction="none"'):
            tt.lag_matrix(Reader(), X, Y, loss=lambda output, y: ((output - y) ** 2).max())
        packed, y = pack_sequence([X[0]]), torch.zeros(1, T, N, dtype=torch.float64)
        with pytest.raises(tt.BatchError, match="PackedSequence has no axis"):
            tt.lag_matrix(Reader(), packed, y, loss=lambda o, y: PER_VALUE(o.data[None], y).mean(-1))


class TestDiagnostics:
    @pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
    def test_they_read_a_torch_layer(self, kind: Any) -> None:
        leaf = tt.capture(Reader(kind), X, Y, loss=MSE)["rnn"]
        measures = (
            tt.diagnostics.lag_profile,
            tt.diagnostics.memory_horizon,
            tt.diagnostics.effective_steps,
            tt.diagnostics.lyapunov_spectrum,
            tt.diagnostics.recurrent_spectrum,
            tt.diagnostics.temporal_coherence,
        )
        for measure in measures:
            assert measure(leaf) is not None

    def test_the_exponents_take_both_biases(self) -> None:
        """A layer whose two biases are merged into one is the same layer."""
        model, merged = Reader(), Reader()
        with torch.no_grad():
            merged.rnn.bias_ih_l0 += merged.rnn.bias_hh_l0
            merged.rnn.bias_hh_l0.zero_()
        both = [tt.capture(each, X, Y, loss=MSE)["rnn"] for each in (model, merged)]
        found = [tt.diagnostics.lyapunov_spectrum(leaf).values for leaf in both]
        np.testing.assert_allclose(found[0], found[1], rtol=1e-10)

    @pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
    def test_a_projected_layer_has_a_profile_and_no_square_matrix(self) -> None:
        leaf = tt.capture(Reader(proj_size=2), X, Y, loss=MSE)["rnn"]
        assert leaf["hidden"].dims == ("sample", "time", "unit")
        assert leaf["cell"].dims == ("sample", "time", "cell_unit")
        assert leaf["projection"].dims == ("cell_unit", "unit")
        assert np.isfinite(tt.diagnostics.lag_profile(leaf)["ratio"]).all()
        for measure in (tt.diagnostics.recurrent_spectrum, tt.diagnostics.lyapunov_spectrum):
            with pytest.raises(tt.DiagnosticError, match="projection"):
                measure(leaf)

    def test_a_cell_whose_state_is_changed_between_calls(self) -> None:
        class Changing(Loop):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                state = None
                for step in x.unbind(1):
                    state = tuple(0.9 * part for part in self.cell(step, state))
                return self.head(state[0])

        leaf = tt.capture(Changing(), X, Y[:, 0], loss=MSE)["cell"]
        assert np.isfinite(tt.diagnostics.lag_profile(leaf)["ratio"]).all()
        for name in ("lyapunov_spectrum", "temporal_coherence", "gradient_instability"):
            with pytest.raises(tt.DiagnosticError, match="changes its state between the calls"):
                getattr(tt.diagnostics, name)(leaf)

    def test_packed_sequences_count_their_valid_steps(self) -> None:
        packed = pack_sequence([X[0], X[1, :3], X[2, :5]], enforce_sorted=False)
        model = nn.LSTM(M, N).double()
        y = torch.zeros(16, N, dtype=torch.float64)
        tree = tt.capture(model, packed, y, loss=lambda output, y: MSE(output[0].data, y))
        horizon = tt.diagnostics.memory_horizon(tree["lstm"])
        assert (horizon.values < np.array([T, 3, 5])).all()
