"""`tt.watch`: the same run as a monitor with batch and loss, from a loop that does not know of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import throughtime as tt

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
Loss = Callable[[Any, torch.Tensor], torch.Tensor]


class Tagger(nn.Module):
    """A label a step; the state is returned as well."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> tuple[torch.Tensor, Any]:
        hidden, state = self.rnn(x * scale)
        return self.head(hidden), state


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(1)
    return [(torch.rand(8, 10, 2), torch.randint(3, (8, 10))) for _ in range(count)]


def of_function(output: Any, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output[0].transpose(1, 2), y)


def of_module(output: Any, y: torch.Tensor) -> torch.Tensor:
    return nn.CrossEntropyLoss(label_smoothing=0.1)(output[0].flatten(0, 1), y.flatten())


def by_hand(output: Any, y: torch.Tensor) -> torch.Tensor:
    chosen = output[0].log_softmax(-1)[:, -1].gather(1, y[:, -1:])
    return -chosen.mean() / 2


def train(model: nn.Module, loss: Loss, steps: int = 5, **keywords: Any) -> list[torch.Tensor]:
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for x, y in batches(steps):
        optimizer.zero_grad()
        loss(model(x, **keywords), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return [weight.detach().clone() for weight in model.parameters()]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("loss", [of_function, of_module, by_hand])
def test_the_run_is_that_of_a_monitor_with_batch_and_loss(loss: Loss, folder: Path) -> None:
    plain = train(Tagger(), loss)
    model = Tagger()
    monitor = tt.watch(model, every=2, vanishing_lag=None, quantities="full")
    watched = train(model, loss)
    monitor.end()
    assert all(map(torch.equal, plain, watched))
    assert not model._forward_hooks
    other = Tagger()
    optimizer = torch.optim.Adam(other.parameters(), 0.01)
    data = batches(5)
    wanted = tt.Monitor("run.zarr", data[0], every=2, vanishing_lag=None, quantities="full", loss=loss)
    with wanted.watch(other, optimizer=optimizer):
        for x, y in data:
            optimizer.zero_grad()
            loss(other(x), y).backward()
            nn.utils.clip_grad_norm_(other.parameters(), 1.0)
            optimizer.step()
            wanted.step()
    found, expected = (tt.open_run(each.path)["rnn"].to_dataset().compute() for each in (monitor, wanted))
    assert found["step"].values.tolist() == [0, 2, 4, 5]
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)
    for name in ("hidden_gradient", "cell_gradient", "hidden"):
        factors = [1.0 if name == "hidden" else each["reduction_factor"] for each in (found, expected)]
        np.testing.assert_allclose(
            found[name] * factors[0], expected[name] * factors[1], rtol=2e-5, atol=1e-9
        )
    if loss is of_function:
        assert float(found["reduction_factor"][0]) == 1 / 8


def test_the_folder_has_the_date_and_keywords_are_kept(folder: Path) -> None:
    model = Tagger()
    monitor = tt.watch(model, every=1, vanishing_lag=None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.zarr", monitor.path.name)
    assert monitor.path.parent == folder / "throughtime_runs"
    assert tt.watch(Tagger()).path != monitor.path or not monitor.path.exists()
    train(model, of_function, 2, scale=torch.full((8, 1, 1), 0.5))
    monitor.end()
    x, y = batches(1)[0]
    (first,) = tt.open_run(monitor.path)["rnn"]["loss"].values[:1]
    assert first == pytest.approx(float(of_function(Tagger()(x, scale=0.5), y).detach()), rel=1e-6)
    tt.watch(other := Tagger())
    with pytest.warns(tt.ThroughTimeWarning, match="arguments that are not tensors"):
        train(other, of_function, 1, scale=0.5)


def test_another_optimizer_and_evaluation_count_no_step(folder: Path) -> None:
    model, other = Tagger(), nn.Linear(2, 2)
    monitor = tt.watch(model, every=1, vanishing_lag=None)
    with torch.no_grad():
        model(torch.rand(3, 10, 2))
    optimizer = torch.optim.SGD(other.parameters(), 0.1)
    other(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    train(model, of_function, 2)
    monitor.end()
    assert tt.open_run(monitor.path)["rnn"]["step"].values.tolist() == [0, 1, 2]
    assert monitor._settings.batch[0].shape == (8, 10, 2)


def test_what_cannot_be_seen_is_a_warning_and_training_goes_on(folder: Path) -> None:
    model = Tagger()
    monitor = tt.watch(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    (x, y), *_ = batches(1)
    with pytest.warns(tt.ThroughTimeWarning, match=r"more than once before backward.*tt\.Monitor\(path"):
        loss = of_function(model(x), y) + of_function(model(x), y)
    loss.backward()
    optimizer.step()
    assert not monitor.path.exists()
    assert not model._forward_hooks
    model = Tagger()
    tt.watch(model)
    model(x)
    with pytest.warns(tt.ThroughTimeWarning, match="does not follow from the model's output"):
        nn.Linear(2, 1)(torch.ones(2)).sum().backward()
    train(model, of_function, 1)
    assert torch.overrides._get_current_function_mode_stack() == []


def test_an_open_writer_of_tensorboard_gets_the_numbers(folder: Path) -> None:
    writer = SummaryWriter("runs/mine")
    model = Tagger()
    monitor = tt.watch(model, every=1, vanishing_lag=None)
    train(model, of_function, 2)
    monitor.end()
    writer.close()
    tags = EventAccumulator("runs/mine", {"tensors": 0}).Reload().Tags()["tensors"]
    assert {"throughtime/rnn/horizon", "detail/rnn/loss"} <= set(tags)


def test_a_function_of_jax_names_the_way() -> None:
    pytest.importorskip("jax")
    with pytest.raises(tt.MonitorError, match=r"monitor\.step\(model\)"):
        tt.watch(lambda x: x)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(tt.UnsupportedModelError):
        tt.watch(3)
