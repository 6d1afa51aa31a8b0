"""A model that selects one step of each sample, as the last valid one: time ends there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import throughtime as tt

STEPS = 16


class Selects(nn.Module):
    """Unit k of a shift register holds the input of k steps ago; the head reads one unit."""

    def __init__(self, delay: int, *, layers: int = 1) -> None:
        super().__init__()
        self.rnn = nn.RNN(1, delay + 1, layers, batch_first=True)
        self.head = nn.Linear(delay + 1, 1, bias=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self.head.weight[0, delay] = 1.0
            for layer in range(layers):
                getattr(self.rnn, f"weight_ih_l{layer}")[0 if layer == 0 else range(delay + 1), ...] = (
                    torch.eye(delay + 1) if layer else torch.ones(1)
                )
            self.rnn.weight_hh_l0[range(1, delay + 1), range(delay)] = 1.0

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][torch.arange(len(x)), lengths - 1])[:, 0]


def batch(model: Selects) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Samples of four lengths; what follows their last step is noise."""
    generator = torch.Generator().manual_seed(0)
    x, lengths = torch.randn(96, STEPS, 1, generator=generator), torch.arange(96) % 4 + 9
    with torch.no_grad():
        y = model(x, lengths)
    return (x, lengths), y + 0.01 * torch.randn(96, generator=generator)


def used(delay: int, lag: int, **settings: int) -> float:
    model = Selects(delay, **settings)
    x, y = batch(model)
    found = tt.diagnose(model, x, y, loss=nn.MSELoss(), dependency_length=lag)
    assert not any("no gradient at lag 0" in note for note in found.notes)
    return found.layers[next(iter(found.layers))].use.value


@pytest.mark.parametrize("layers", [1, 2])
def test_an_input_is_as_old_as_it_is_before_the_step_that_is_read(layers):
    assert used(0, 1, layers=layers) == 0.0
    assert used(5, 5, layers=layers) == pytest.approx(1.0, abs=0.1)
    assert used(5, 6, layers=layers) == 0.0


def test_reach_begins_at_the_step_that_is_read():
    torch.manual_seed(1)
    model = Selects(7)
    nn.init.normal_(model.rnn.weight_hh_l0, std=0.3)
    (x, lengths), y = batch(model)
    ratios = []
    for sample, length, label in zip(x, lengths.tolist(), y + 1.0, strict=True):
        state, states = torch.zeros(8), []
        for step in sample[:length]:
            state = torch.tanh(model.rnn.weight_ih_l0 @ step + model.rnn.weight_hh_l0 @ state)
            state.retain_grad()
            states.append(state)
        ((model.head.weight[0] @ state - label) ** 2).backward()
        ratios.append(float(states[-4].grad.norm() / states[-1].grad.norm()))
    found = tt.diagnose(model, (x, lengths), y + 1.0, loss=nn.MSELoss(), dependency_length=3)
    assert found.layers["rnn"].reach.value == pytest.approx(
        float(torch.tensor(ratios).quantile(0.5)), rel=0.02
    )
    assert found.layers["rnn"].reach.n == len(x)


def test_the_largest_of_all_steps_is_no_selection():
    class Largest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(1, 8, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0].amax(1)

    x = torch.randn(32, STEPS, 1)
    found = tt.diagnose(Largest(), x, torch.randn(32, 8), loss=nn.MSELoss(), dependency_length=3)
    assert not any("come after" in note for note in found.notes)


@pytest.mark.parametrize(("lag", "share"), [(5, 1.0), (6, 0.0)])
def test_samples_without_gradient_are_left_out(lag, share):
    model = Selects(5)
    x, y = batch(model)
    y = model(*x).detach() + torch.where(torch.arange(96) % 3 == 0, 0.0, 0.02)
    found = tt.diagnose(
        model, x, y, loss=lambda output, y: torch.relu((output - y).abs() - 0.01), dependency_length=lag
    )
    layer = found.layers["rnn"]
    assert layer.use.value == pytest.approx(share, abs=0.15)
    assert layer.use.n == layer.reach.n == 64
    assert [note for note in found.notes if note.startswith("32 of 96 samples have no gradient")]
    assert not any("share their mask" in note for note in found.notes)


def test_one_sample_of_weight_0_changes_no_answer():
    model, weights = Selects(5), torch.ones(96)
    weights[7] = 0.0
    x, y = batch(model)
    settings = {"loss": lambda output, y: (output - y) ** 2, "dependency_length": 5}
    every, found = (
        tt.diagnose(model, x, y, sample_weight=each, **settings).layers["rnn"]
        for each in (torch.ones(96), weights)
    )
    assert found.reach.value == pytest.approx(every.reach.value, rel=0.02)
    assert (found.use.answer, found.use.n, found.reach.n) == ("yes", 95, 95)


def test_a_batch_whose_loss_is_0_is_left_out():
    model = Selects(5)
    (x, lengths), y = batch(model)
    exact = model(x, lengths).detach()
    batches = [((x, lengths), y), ((x, lengths), exact)]
    for given in (batches, batches[::-1]):
        found = tt.diagnose(
            model, DataLoader(given, batch_size=None), loss=nn.MSELoss(), dependency_length=5, batches=2
        )
        assert (found.layers["rnn"].use.answer, found.layers["rnn"].reach.n) == ("yes", 96)


def test_a_layer_that_is_read_at_its_end_keeps_its_time():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ended, self.selected = nn.RNN(1, 4, batch_first=True), Selects(2)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            return self.ended(x)[1][0, :, 0] + self.selected(x, lengths)

    torch.manual_seed(0)
    model = Both()
    x, y = batch(model)
    found = tt.diagnose(model, x, y, loss=nn.MSELoss(), dependency_length=2)
    assert [found.layers[path].reach.n for path in ("ended", "selected/rnn")] == [96, 96]
    x = x[0].requires_grad_()
    model.ended(x)[1][0, :, 0].sum().backward()
    assert (x.grad[:, -1] != 0).all()  # the ended layer reads what follows the selected step
    assert not any("no gradient at lag 0" in note for note in found.notes)


@pytest.mark.parametrize("level", ["summary", "timestep"])
def test_a_sweep_counts_from_the_step_that_is_read(tmp_path, level):
    torch.manual_seed(1)
    model = Selects(7)
    nn.init.normal_(model.rnn.weight_hh_l0, std=0.3)
    x, y = batch(model)
    settings = {"loss": nn.MSELoss(), "dependency_length": 3}
    swept = tt.sweep(model, (x, y + 1.0), shard_size=96, quantities=level, to=tmp_path / "sweep", **settings)
    mine, exact = tt.diagnose(swept, dependency_length=3), tt.diagnose(model, x, y + 1.0, **settings)
    mine, exact = mine.layers["rnn"], exact.layers["rnn"]
    assert mine.reach.value == pytest.approx(exact.reach.value, rel=0.02)
    assert (mine.reach.n, mine.use.answer) == (96, exact.use.answer)
    assert mine.use.value == pytest.approx(exact.use.value, rel=1e-3)
