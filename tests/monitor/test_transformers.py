"""A monitor in the Trainer of transformers, and in a stand-in that calls a callback in the same order."""

from __future__ import annotations

import copy
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tests.monitor.loops import MSE, X, Y, made
from torch import nn

import throughtime as tt


class Model(nn.Module):
    """A model as a Trainer takes it: it returns its own loss where there are labels."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = made()

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        output = self.reader(x)
        return output if labels is None else {"loss": MSE(output, labels), "output": output}


class StandIn(ModuleType):
    """The part of transformers that the callback needs."""

    class TrainerCallback:
        pass


def trained_by_stand_in(model: Model, callbacks: list[Any], steps: int, first: int = 0) -> int:
    """Train as the Trainer does, with two batches a step; return the steps made."""
    for callback in callbacks:
        if hasattr(callback, "on_init_end"):
            callback.on_init_end(None, None, None)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.0)
    control = SimpleNamespace(should_training_stop=False)
    state = SimpleNamespace(global_step=first, is_world_process_zero=True)
    told = {"model": model, "optimizer": optimizer, "lr_scheduler": None, "train_dataloader": None}

    def call(event: str) -> None:
        for callback in callbacks:
            getattr(callback, event, lambda *_, **__: None)(None, state, control, **told)

    call("on_train_begin")
    while state.global_step < steps and not control.should_training_stop:
        optimizer.zero_grad()
        for rows in (slice(0, 12), slice(12, 24)):
            (model(X[rows], Y[rows])["loss"] / 2).backward()
            call("on_substep_end")
        optimizer.step()
        state.global_step += 1
        call("on_step_end")
    call("on_train_end")
    return state.global_step


def trained_by_transformers(model: Model, callbacks: list[Any], steps: int, first: int = 0) -> int:
    import transformers

    arguments = transformers.TrainingArguments(
        max_steps=steps,
        per_device_train_batch_size=12,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    data = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    trainer = transformers.Trainer(model, arguments, train_dataset=data, callbacks=callbacks)
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer.train().global_step


TRAINERS = {"stand-in": trained_by_stand_in}
if find_spec("transformers"):
    TRAINERS["transformers"] = trained_by_transformers


@pytest.fixture(params=TRAINERS)
def trained(request: Any, monkeypatch: Any, tmp_path: Path) -> Any:
    if request.param == "stand-in":
        monkeypatch.setitem(sys.modules, "transformers", StandIn("transformers"))
    monkeypatch.chdir(tmp_path)
    return TRAINERS[request.param]


def monitor_in(folder: Path, **options: Any) -> tt.Monitor:
    return tt.Monitor(
        folder / "run.zarr", batch=(X[:8], Y[:8]), loss=MSE, vanishing_lag=None, **{"every": 2, **options}
    )


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
class TestTransformers:
    def test_steps_of_the_optimizer_are_recorded_and_training_stays_the_same(
        self, trained: Any, tmp_path: Path
    ) -> None:
        torch.manual_seed(0)
        watched = Model()
        alone = copy.deepcopy(watched)
        torch.manual_seed(1)
        assert trained(watched, [monitor_in(tmp_path).transformers()], 5) == 5
        torch.manual_seed(1)
        trained(alone, [], 5)
        run = tt.open_run(tmp_path / "run.zarr")
        leaf = next(node for node in run.leaves if "hidden_gradient_norm" in node.data_vars)
        assert leaf["step"].values.tolist() == [0, 2, 4, 5]
        for one, other in zip(watched.parameters(), alone.parameters(), strict=True):
            assert torch.equal(one, other)

    def test_an_alarm_stops_training(self, trained: Any, tmp_path: Path) -> None:
        model = Model()
        with torch.no_grad():
            model.reader.rnn.weight_hh_l0[6, 0] = float("nan")
        monitor = monitor_in(tmp_path, stop_on="nonfinite", every=1)
        assert trained(model, [monitor.transformers()], 9) == 1
        assert [alarm.name for alarm in monitor.alarms] == ["nonfinite"]

    def test_a_monitor_among_the_callbacks_names_the_one_to_pass(self, trained: Any, tmp_path: Path) -> None:
        with pytest.raises(tt.MonitorError, match=r"monitor\.transformers\(\)"):
            trained(Model(), [monitor_in(tmp_path)], 2)


def test_without_transformers_the_error_names_the_extra(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(tt.MissingDependencyError, match=r"throughtime\[transformers\]"):
        monitor_in(tmp_path).transformers()
