"""nn.LSTM, GRU and RNN called step by step or window by window: one leaf, as of one call on everything."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from tests.torch.comparison import difference
from tests.torch.rows import normal, seeded
from torch import nn

import throughtime as tt
from throughtime.diagnostics.lags import edges

B, T, M, N, K = 3, 8, 2, 4, 1
MSE = nn.MSELoss()
X, Y = normal(B, T, M), normal(B, T, K, seed=7)
KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "simple_rnn": nn.RNN}
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "simple_rnn": nn.RNNCell}


class InWindows(nn.Module):
    def __init__(self, kind: str = "lstm", length: int = T, **options: Any) -> None:
        super().__init__()
        self.rnn = KINDS[kind](M, N, batch_first=True, **options)
        self.head, self.length = nn.Linear(N, K), length

    def between(self, state: torch.Tensor, step: int) -> torch.Tensor:
        return state

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, outputs = None, []
        for number, window in enumerate(x.split(self.length, 1)):
            output, state = self.rnn(window, state)
            outputs.append(output)
            many = isinstance(state, tuple)
            each = [self.between(one, number) for one in (state if many else [state])]
            state = tuple(each) if many else each[0]
        return self.head(torch.cat(outputs, 1))


def capture(model: nn.Module, x: Any = X, y: Any = Y, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return tt.capture(model, x, y, loss=MSE, **options)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
class TestWindowsAreTheWhole:
    def test_every_variable(self, kind: str, length: int, layers: int) -> None:
        model = seeded(InWindows(kind, length, num_layers=layers))
        found = capture(model)
        model.length = T
        whole = capture(model)
        assert found.groups == whole.groups
        for leaf in whole.leaves:
            ours = found[leaf.path]
            for name, variable in leaf.data_vars.items():
                if not name.startswith("certificate"):
                    assert difference(ours[name], variable) <= 1e-12, f"{leaf.path} {name}"
            assert ours["certificate_time"] <= 1e-12
            assert ours["certificate_weights"] <= 1e-12

    def test_steps_know_their_call_and_nothing_is_reset(self, kind: str, length: int, layers: int) -> None:
        for leaf in capture(seeded(InWindows(kind, length, num_layers=layers))).leaves:
            assert list(leaf["call"].values) == [step // length for step in range(T)]
            assert leaf["call"].dims == ("time",)
            assert not leaf["reset"].any()

    def test_what_goes_back_is_what_the_cell_takes_back(self, kind: str, length: int, layers: int) -> None:
        """A zero on each state that torch's cell is given gets what one call hands back."""
        model = seeded(InWindows(kind, length))
        leaf = capture(model)["rnn"]
        cell = CELLS[kind](M, N).double()
        cell.load_state_dict({name.removesuffix("_l0"): w for name, w in model.rnn.state_dict().items()})
        state, given, outputs = None, [], []
        for step in X.unbind(1):
            if state is not None:
                many = state if isinstance(state, tuple) else (state,)
                given.append(tuple(torch.zeros_like(one, requires_grad=True) for one in many))
                many = tuple(one + zero for one, zero in zip(many, given[-1], strict=True))
                state = many if len(many) > 1 else many[0]
            state = cell(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        loss = MSE(model.head(torch.stack(outputs, 1)), Y) * B
        for step, zeros in enumerate(given):
            back = torch.autograd.grad(loss, zeros, retain_graph=True)
            for place, gradient in enumerate(back):
                ours = leaf["carried_by_state"].isel(time=step, state=place)
                assert difference(ours, gradient.norm(dim=-1).numpy()) <= 1e-12
            joint = torch.cat(back, -1).norm(dim=-1).numpy()
            assert difference(leaf["carried_gradient"].isel(time=step), joint) <= 1e-12
        assert (leaf["carried_gradient"].isel(time=-1) == 0).all()


class Stepping(nn.Module):
    """Calls a cell as torch's own forward takes its arguments: by place, or states by name."""

    def __init__(self, kind: str, *, by_name: bool) -> None:
        super().__init__()
        self.cell, self.head, self.by_name = CELLS[kind](M, N), nn.Linear(N, K), by_name

    def first(self, x: torch.Tensor) -> Any:
        zeros = x.new_zeros(len(x), N)
        return (zeros, zeros.clone()) if isinstance(self.cell, nn.LSTMCell) else zeros

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, outputs = self.first(x), []
        for step in x.unbind(1):
            state = self.cell(step, hx=state) if self.by_name else self.cell(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return self.head(torch.stack(outputs, 1))


@pytest.mark.parametrize("kind", CELLS)
def test_carried_gradients_whose_squares_underflow(kind: str) -> None:
    scale, data = 2.0**-80, (X.float(), Y.float())
    for make in (Stepping(kind, by_name=False), InWindows(kind, 1), InWindows(kind, 4)):
        model = seeded(make).float()
        usual, small = (
            tt.capture(model, *data, loss=lambda output, y, by=by: MSE(output, y) * by).leaves[0]
            for by in (1.0, scale)
        )
        assert list(edges(small.to_dataset())) == []
        for name in ("carried_gradient", "carried_by_state"):
            assert (usual[name][:, :-1] > 0).all()
            np.testing.assert_allclose(small[name] / scale, usual[name], rtol=1e-4)


@pytest.mark.parametrize("kind", CELLS)
class TestCellsByPlaceAndByName:
    def test_every_variable_is_the_same(self, kind: str) -> None:
        by_place, by_name = (capture(seeded(Stepping(kind, by_name=one)))["cell"] for one in (False, True))
        assert set(by_place.data_vars) == set(by_name.data_vars)
        for name, variable in by_place.data_vars.items():
            assert difference(variable, by_name[name]) == 0, name

    def test_states_that_torch_refuses_are_refused_as_torch_does(self, kind: str) -> None:
        class Deep(Stepping):
            def first(self, x: torch.Tensor) -> Any:
                deep = x.new_zeros(1, len(x), N)
                return (deep, deep) if isinstance(self.cell, nn.LSTMCell) else deep

        model = seeded(Deep(kind, by_name=False))
        with pytest.raises(ValueError, match="to be 1D or 2D, got 3D"):
            model(X)
        with pytest.raises(ValueError, match="to be 1D or 2D, got 3D"):
            capture(model)


class TestEdges:
    @pytest.mark.parametrize("copy", [False, True])
    def test_a_detached_state_is_the_edge_of_a_window(self, copy: bool) -> None:
        class Cut(InWindows):
            def between(self, state: torch.Tensor, step: int) -> torch.Tensor:
                return state.detach().clone() if copy else state.detach()

        leaf = capture(seeded(Cut(length=2)))["rnn"]
        assert list(leaf["call"].values) == [0, 0, 1, 1, 2, 2, 3, 3]
        assert not leaf["reset"].any()
        assert (leaf["carried_gradient"].isel(time=[1, 3, 5]) == 0).all()
        assert (leaf["carried_gradient"].isel(time=[0, 2, 4, 6]) > 0).all()

    def test_weights_that_are_computed_anew_for_each_window_keep_their_certificate(self) -> None:
        model = seeded(InWindows(length=3))
        nn.utils.parametrizations.weight_norm(model.rnn, "weight_hh_l0")
        leaf = capture(model)["rnn"]
        assert leaf["certificate_weights"] <= 1e-12
        model.length = T
        assert difference(leaf["hidden_gradient"], capture(model)["rnn"]["hidden_gradient"]) <= 1e-12

    def test_two_sequences_of_one_layer_stay_two_leaves(self) -> None:
        class Twice(InWindows):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x) + super().forward(x.flip(1))

        tree = capture(seeded(Twice(length=3)))
        assert [leaf.path for leaf in tree.leaves] == ["/rnn", "/rnn@2"]
        assert difference(tree["rnn@2"]["input"], X.flip(1)) == 0.0
        for leaf in tree.leaves:
            assert leaf["certificate_weights"] <= 1e-12

    def test_a_layer_that_is_called_on_independent_inputs_has_a_leaf_a_call(self) -> None:
        class Independent(InWindows):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(self.rnn(x)[0] + self.rnn(self.rnn(x)[0][..., :M])[0])

        assert [leaf.path for leaf in capture(seeded(Independent())).leaves] == ["/rnn", "/rnn@2", "/rnn@3"]


class Policy(nn.Module):
    """A recurrent policy as it is trained on rollouts: states are reset where an episode starts."""

    def __init__(self, fault: str = "", kind: str = "lstm") -> None:
        super().__init__()
        self.rnn, self.head, self.fault = KINDS[kind](M, N), nn.Linear(N, K), fault

    def forward(self, x: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        steps, kept = x.unbind(1), [(1 - start).view(1, -1, 1) for start in starts.unbind(1)]
        state = tuple(x.new_zeros(1, len(x), N) for _ in range(2))
        outputs = []
        for step, entering in enumerate(steps):
            keep = kept[step]
            if self.fault == "late":
                keep = kept[step - 1] if step else torch.ones_like(keep)
            if self.fault == "none":
                keep = torch.ones_like(keep)
            h, c = state
            output, state = self.rnn(entering[None], (keep * h, c if self.fault == "cell" else keep * c))
            outputs.append(output[0])
        return self.head(torch.stack(outputs, 1))


class TestResets:
    """A rollout of 128 steps in 8 environments, with episodes that start in between."""

    SAMPLES, STEPS = 8, 128

    def rollout(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x, y = normal(self.SAMPLES, self.STEPS, M), normal(self.SAMPLES, self.STEPS, K, seed=7)
        starts = torch.zeros(self.SAMPLES, self.STEPS, dtype=torch.float64)
        for sample, step in ((0, 0), (1, 17), (1, 64), (2, 17), (5, 127), (6, 1)):
            starts[sample, step] = 1
        return x, starts, y

    def leaf(self, fault: str = "") -> Any:
        x, starts, y = self.rollout()
        tree = capture(seeded(Policy(fault)), (x, starts), y)
        assert [leaf.path for leaf in tree.leaves] == ["/rnn"]
        return tree["rnn"].to_dataset()

    def starts(self) -> np.ndarray:
        starts = self.rollout()[1].numpy().astype(bool)
        starts[:, 0] = False
        return starts

    def test_resets_are_where_episodes_start_and_nothing_crosses_them(self) -> None:
        leaf, starts = self.leaf(), self.starts()
        assert leaf.sizes["time"] == self.STEPS
        assert (leaf["reset"].values == starts).all()
        carried = leaf["carried_gradient"].values[:, :-1]
        assert (carried[starts[:, 1:]] == 0).all()
        assert (carried[~starts[:, 1:]] > 0).all()
        assert leaf["certificate_time"] <= 1e-12
        assert leaf["certificate_weights"] <= 1e-12

    @pytest.mark.parametrize("given", [False, True])
    def test_a_policy_that_resets_leaks_nowhere(self, given: bool) -> None:
        boundaries = self.rollout()[1] if given else None
        assert tt.diagnostics.boundary_leak(self.leaf(), boundaries) == []

    def test_without_resets_every_start_leaks_in_both_states(self) -> None:
        leaks = tt.diagnostics.boundary_leak(self.leaf("none"), self.rollout()[1])
        expected = [(b, t, s) for b, t in np.argwhere(self.starts()) for s in ("hidden", "cell")]
        assert [(leak.sample, leak.time, leak.state) for leak in leaks] == expected
        assert all(leak.norm > 0 for leak in leaks)

    def test_a_reset_that_comes_one_step_late_leaks_where_the_episode_starts(self) -> None:
        leaf, starts = self.leaf("late"), self.starts()
        assert (leaf["reset"].values[:, 2:] == starts[:, 1:-1]).all()
        leaks = tt.diagnostics.boundary_leak(leaf, self.rollout()[1])
        assert {(leak.sample, leak.time) for leak in leaks} == {(b, t) for b, t in np.argwhere(starts)}

    def test_a_state_that_is_forgotten_is_named_without_telling_where_episodes_start(self) -> None:
        leaks = tt.diagnostics.boundary_leak(self.leaf("cell"))
        expected = [(b, t, "cell") for b, t in np.argwhere(self.starts())]
        assert [(leak.sample, leak.time, leak.state) for leak in leaks] == expected
        assert str(leaks[0]).startswith("cell of sample 1 leaks into step 17")

    def test_boundaries_of_another_shape_are_refused(self) -> None:
        with pytest.raises(tt.DiagnosticError, match=r"\(sample, time\) = \(8, 128\)"):
            tt.diagnostics.boundary_leak(self.leaf(), self.rollout()[1].T)

    def test_a_layer_that_is_called_once_is_refused_with_the_way(self) -> None:
        with pytest.raises(tt.DiagnosticError, match="step by step"):
            tt.diagnostics.boundary_leak(capture(seeded(InWindows()))["rnn"], np.zeros((B, T)))

    def test_no_lag_goes_across_a_reset(self) -> None:
        leaf = self.leaf()
        since = [self.STEPS - 1 - np.flatnonzero(starts).max(initial=0) for starts in self.starts()]
        horizon = tt.diagnostics.memory_horizon(leaf, threshold=1e-300)
        assert list(horizon.values) == since
        profile = tt.diagnostics.lag_profile(leaf)
        assert profile["samples"].sel(lag=0) == self.SAMPLES
        assert profile["samples"].sel(lag=1) == self.SAMPLES - 1
        assert profile["samples"].sel(lag=self.STEPS - 1) == sum(one == self.STEPS - 1 for one in since)

    def test_the_lag_matrix_counts_within_episodes(self) -> None:
        x, starts, y = (each[:, :12] for each in self.rollout())
        starts = starts.clone()
        starts[:, 5] = 1
        model = seeded(Policy())
        found = tt.lag_matrix(model, (x, starts), y, loss=nn.MSELoss(reduction="none"))["rnn"]
        matrix = found["lag_matrix"].values
        episode = np.cumsum(starts.numpy() * (np.arange(12) > 0), axis=1)
        same = episode[:, :, None] == episode[:, None, :]
        assert (matrix[~same] == 0).all()
        for lag in (1, 4, 6):
            pairs = [(b, s) for b in range(8) for s in range(lag, 12) if episode[b, s] == episode[b, s - lag]]
            by_step = [
                np.mean([matrix[b, s, s - lag] for b, step in pairs if step == s])
                for s in sorted({step for _, step in pairs})
            ]
            assert difference(found["lag_mean"].sel(lag=lag), np.mean(by_step)) <= 1e-12


class Leaving(InWindows):
    """After each window the samples that are done leave: the last ones, or any."""

    def __init__(self, kind: str, length: int, counts: tuple[int, ...], **options: Any) -> None:
        super().__init__(kind, length, **options)
        self.counts = torch.tensor(counts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.length == T:  # nobody leaves, and what comes later is not used
            output = self.rnn(x)[0]
            return torch.where(self.valid(T // 4)[..., None], self.head(output), 0)
        state, outputs, left = None, [], torch.arange(len(x))
        for number, window in enumerate(x.split(self.length, 1)):
            goes_on = self.counts[left] > number
            if not goes_on.all():
                left = left[goes_on]
                place = slice(len(left)) if bool(goes_on[: len(left)].all()) else goes_on
                many = isinstance(state, tuple)
                each = [one[:, place] for one in (state if many else [state])]
                state = tuple(each) if many else each[0]
            output, state = self.rnn(window[left], state)
            outputs.append(x.new_zeros(len(x), self.length, K).index_copy(0, left, self.head(output)))
        return torch.cat(outputs, 1)

    def valid(self, length: int) -> torch.Tensor:
        return torch.arange(T) // length < self.counts[:, None]


@pytest.mark.parametrize("counts", [(4, 3, 1), (1, 4, 2), (2, 4, 4)])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
class TestSamplesThatLeaveBetweenWindows:
    """The oracle is one call on everything, whose outputs are not used where a sample has left."""

    def test_every_variable(self, kind: str, layers: int, counts: tuple[int, ...]) -> None:
        model = seeded(Leaving(kind, 2, counts, num_layers=layers))
        found, valid = capture(model), model.valid(2).numpy()
        model.length = T
        whole = capture(model)
        assert found.groups == whole.groups
        for leaf in whole.leaves:
            ours = found[leaf.path]
            assert np.array_equal(ours["valid"], valid)
            assert not ours["reset"].any()
            assert not ours.attrs["states_changed"]
            assert ours["certificate_time"] <= 1e-12
            assert ours["certificate_weights"] <= 1e-12
            for name, variable in leaf.data_vars.items():
                if name.startswith(("certificate", "valid")):
                    continue
                mask = valid if variable.dims[:2] == ("sample", "time") else ...
                assert difference(ours[name].values[mask], variable.values[mask]) <= 1e-12, name

    def test_gradient_is_carried_while_a_sample_stays(
        self, kind: str, layers: int, counts: tuple[int, ...]
    ) -> None:
        model = seeded(Leaving(kind, 2, counts, num_layers=layers))
        goes_on = np.pad(model.valid(2).numpy(), ((0, 0), (0, 1)))[:, 1:]
        for leaf in capture(model).leaves:
            assert np.array_equal(leaf["carried_gradient"].values > 0, goes_on)


def test_a_batch_that_grows_begins_a_new_leaf() -> None:
    class Growing(InWindows):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, state = self.rnn(x[:2, :4])
            state = tuple(torch.cat([one, one[:, :1]], 1) for one in state)
            second, _ = self.rnn(x[:, 4:], state)
            return self.head(torch.cat([torch.nn.functional.pad(first, (0, 0, 0, 0, 0, 1)), second], 1))

    assert [leaf.sizes["sample"] for leaf in capture(seeded(Growing())).leaves] == [2, 3]
