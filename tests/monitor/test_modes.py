"""A run is one training: what a monitor does where there is a run already, and where its run goes."""

from __future__ import annotations

import os
import re
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tests.monitor.loops import BATCH, MSE, Reader, made, train, watched
from torch import nn

import throughtime as tt
from throughtime._monitor.provenance import weights_fingerprint


def other() -> Reader:
    """Make a second fresh model."""
    torch.manual_seed(1)
    return Reader()


class Dense(NamedTuple):
    """Weights as JAX programs may keep them."""

    weight: Any
    activation: Any


def steps_of(path: Path) -> list[int]:
    return tt.open_run(path)["rnn"]["step"].values.tolist()


class TestAuto:
    def test_a_second_model_is_refused_and_the_choices_are_named(self, tmp_path: Path) -> None:
        watched(tmp_path, made(), 4, every=2)
        with pytest.raises(tt.StoreError, match="ended at step 4 with other weights") as caught:
            watched(tmp_path, other(), 4)
        for choice in ("norm of the kernel of rnn", '"continue"', '"overwrite"', '"new"'):
            assert choice in str(caught.value)
        assert steps_of(tmp_path / "run.zarr") == [0, 2, 4]

    def test_the_same_start_is_another_training(self, tmp_path: Path) -> None:
        watched(tmp_path, made(), 2)
        with pytest.raises(tt.StoreError, match="other weights"):
            watched(tmp_path, made(), 2)

    def test_a_head_alone_makes_the_difference(self, tmp_path: Path) -> None:
        model = made()
        watched(tmp_path, model, 2)
        with torch.no_grad():
            model.head.bias += 1
        with pytest.raises(tt.StoreError, match="other weights"):
            watched(tmp_path, model, 2)

    @pytest.mark.parametrize("quantities", ["full", "timestep", ["hidden_gradient"]])
    def test_every_level_knows_its_weights(self, tmp_path: Path, quantities: object) -> None:
        model = made()
        watched(tmp_path, model, 2, quantities=quantities)
        with pytest.raises(tt.StoreError, match="other weights"):
            watched(tmp_path, other(), 2, quantities=quantities)
        watched(tmp_path, model, 2, quantities=quantities)
        assert steps_of(tmp_path / "run.zarr") == [0, 2, 4]

    def test_training_goes_on_from_a_checkpoint(self, tmp_path: Path) -> None:
        model = made()
        watched(tmp_path, model, 4, every=2)
        torch.save(model.state_dict(), tmp_path / "model.pt")
        resumed = other()
        resumed.load_state_dict(torch.load(tmp_path / "model.pt"))
        watched(tmp_path, resumed, 3, every=2)
        assert steps_of(tmp_path / "run.zarr") == [0, 2, 4, 6, 7]

    def test_a_run_that_holds_no_record_is_begun(self, tmp_path: Path) -> None:
        from throughtime._store import Run

        Run(tmp_path / "run.zarr").close()
        watched(tmp_path, made(), 1)
        assert steps_of(tmp_path / "run.zarr") == [0, 1]

    def test_a_run_without_fingerprints_is_not_continued_unasked(self, tmp_path: Path) -> None:
        class Opaque(Reader):
            def get_weights(self) -> None:
                raise TypeError("mine")

        torch.manual_seed(0)
        model = Opaque()
        watched(tmp_path, model, 1)
        with pytest.raises(tt.StoreError, match="no fingerprint of the weights at step 1"):
            watched(tmp_path, model, 1)


class TestTheOthers:
    def test_continue(self, tmp_path: Path) -> None:
        watched(tmp_path, made(), 4, every=2)
        watched(tmp_path, other(), 3, every=2, mode="continue")
        assert steps_of(tmp_path / "run.zarr") == [0, 2, 4, 6, 7]

    def test_overwrite(self, tmp_path: Path) -> None:
        watched(tmp_path, made(), 4, every=2)
        _, monitor = watched(tmp_path, made(nn.GRU), 1, mode="overwrite")
        run = tt.open_run(monitor.path)
        assert run["rnn"].attrs["kind"] == "gru"
        assert steps_of(monitor.path) == [0, 1]
        assert not [each.name for each in tmp_path.iterdir() if "removed" in each.name]

    def test_overwrite_replaces_a_damaged_run(self, tmp_path: Path) -> None:
        watched(tmp_path, made(), 4, every=2)
        (tmp_path / "run.zarr" / "zarr.json").write_text("{")
        watched(tmp_path, made(), 1, mode="overwrite")
        assert steps_of(tmp_path / "run.zarr") == [0, 1]

    def test_overwrite_leaves_what_is_no_run(self, tmp_path: Path) -> None:
        (tmp_path / "run.zarr").mkdir()
        (tmp_path / "run.zarr" / "thesis.tex").write_text("years of work")
        with pytest.raises(tt.StoreError, match="holds other files"):
            watched(tmp_path, made(), 1, mode="overwrite")
        assert (tmp_path / "run.zarr" / "thesis.tex").exists()

    def test_overwrite_waits_for_a_model_that_can_be_recorded(self, tmp_path: Path) -> None:
        watched(tmp_path, made(), 2)
        with pytest.raises(tt.ThroughTimeError):
            watched(tmp_path, nn.Linear(3, 1), 1, mode="overwrite")
        assert steps_of(tmp_path / "run.zarr") == [0, 2]

    def test_new_makes_a_dated_folder_each_time(self, tmp_path: Path) -> None:
        made_here = [tt.Monitor(tmp_path / "run.zarr", BATCH, loss=MSE, mode="new") for _ in range(2)]
        assert not list(tmp_path.iterdir())  # a monitor that records nothing leaves nothing
        for monitor in made_here:
            with monitor.watch(made()):
                pass
        names = sorted(monitor.path.name for monitor in made_here)
        assert len(set(names)) == 2
        assert all(re.fullmatch(r"run-\d{8}-\d{4}(-2)?\.zarr", name) for name in names)
        assert abs((datetime.now() - datetime.strptime(names[0][4:17], "%Y%m%d-%H%M")).total_seconds()) < 180
        assert [steps_of(monitor.path) for monitor in made_here] == [[0], [0]]

    @pytest.mark.parametrize("mode", ["new", "overwrite"])
    def test_a_monitor_goes_on_with_its_own_run(self, tmp_path: Path, mode: str) -> None:
        model = made()
        monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, every=2, loss=MSE, mode=mode)
        for _ in range(2):
            with monitor.watch(model):
                train(model, 2, monitor)
        first = monitor.path
        assert steps_of(first) == [0, 2, 4]
        with monitor.watch(other()):
            pass
        assert (monitor.path == first) is (mode == "overwrite")
        assert steps_of(monitor.path) == [0]

    def test_there_are_four(self, tmp_path: Path) -> None:
        with pytest.raises(
            tt.MonitorError, match="mode='append': expected one of auto, new, continue, overwrite"
        ):
            tt.Monitor(tmp_path / "run.zarr", BATCH, mode="append")


class TestThePlace:
    def test_a_relative_path_stays_where_the_monitor_was_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path)
        model, monitor = made(), tt.Monitor("run.zarr", BATCH, every=1, loss=MSE)
        os.chdir(tmp_path / "elsewhere")
        with monitor.watch(model):
            train(model, 2, monitor)
        assert monitor.path == tmp_path / "run.zarr"
        assert steps_of(tmp_path / "run.zarr") == [0, 1, 2]
        assert not list((tmp_path / "elsewhere").iterdir())

    @pytest.mark.parametrize("path", [None, 3, ""])
    def test_it_is_a_path(self, path: object) -> None:
        with pytest.raises(tt.MonitorError, match=r"store=.*: expected the path"):
            tt.Monitor(path, BATCH)

    @pytest.mark.parametrize("quantities", ["full", "summary"])
    def test_a_folder_that_is_moved_ends_the_recording_and_says_so(
        self, tmp_path: Path, quantities: str
    ) -> None:
        model = made()
        monitor = tt.Monitor(
            tmp_path / "run.zarr", BATCH, every=1, loss=MSE, quantities=quantities, vanishing_lag=None
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with monitor.watch(model):
                train(model, 2, monitor)
                (tmp_path / "run.zarr").rename(tmp_path / "moved.zarr")
                train(model, 3, monitor)
        told = [each for each in caught if "was moved or removed while it was recorded" in str(each.message)]
        assert len(told) == 1
        assert not (tmp_path / "run.zarr").exists()
        assert steps_of(tmp_path / "moved.zarr") == [0, 1, 2]
        assert np.isfinite(tt.open_run(tmp_path / "moved.zarr")["rnn"]["loss"].values).all()


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["step", "gradient_norm"])
def test_a_layer_may_be_called_as_what_a_run_keeps(tmp_path: Path, name: str, inside: bool) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module(name, Reader() if inside else nn.LSTM(3, 1, batch_first=True))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = getattr(self, name)(x)
            return found if inside else found[0][:, -1]

    model = Named()
    monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, every=1, loss=MSE)
    with monitor.watch(model):
        monitor.step(gradient_norm=1.0)
    with monitor.watch(model):
        monitor.step(gradient_norm=2.0)
    run = tt.open_run(tmp_path / "run.zarr")
    leaf = run[f"{name}~1/rnn" if inside else f"{name}~1"]
    assert leaf["step"].values.tolist() == [0, 1, 2]
    assert run["gradient_norm"].values[1:].tolist() == [1.0, 2.0]
    assert f"{name}~1" in str(tt.diagnose(run))


class TestSteps:
    @pytest.mark.parametrize("count", [-1, 1.5, True, "2", None])
    def test_a_count_is_a_whole_number(self, tmp_path: Path, count: object) -> None:
        monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, every=1, loss=MSE)
        with monitor.watch(made()):
            with pytest.raises(tt.MonitorError, match="whole number, 0 or more"):
                monitor.step(count)
            monitor.step(np.int64(2))
        assert steps_of(tmp_path / "run.zarr") == [0, 2]


class TestFingerprints:
    def test_they_follow_every_weight_exactly(self) -> None:
        model = made()
        before = weights_fingerprint(model)
        assert before == weights_fingerprint(made()) != 0
        for weight in model.parameters():
            with torch.no_grad():
                kept = weight.clone()
                weight.flatten()[-1:].mul_(1 + 2**-22)
                assert weights_fingerprint(model) != before
                weight.copy_(kept)
        assert weights_fingerprint(model) == before
        assert weights_fingerprint(model.bfloat16()) not in (0, before)

    def test_of_what_has_none_nothing_is_known(self) -> None:
        for nothing in (object(), [], {"act": torch.tanh, "name": "a"}):
            assert weights_fingerprint(nothing) == 0

    @pytest.mark.parametrize(
        "weights", [np.ones(3), torch.ones(3), torch.ones(3, dtype=torch.bfloat16), np.ones(3, np.complex64)]
    )
    def test_functions_and_objects_beside_weights_do_not_count(self, weights: Any) -> None:
        """Their addresses would: each process has others."""
        kinds = [
            lambda w: {"weight": w, "act": lambda x: x},
            lambda w: [object(), w, "name"],
            lambda w: Dense(w, lambda x: x),
        ]
        for kind in kinds:
            kept = kind(weights), kind(weights)
            found = {weights_fingerprint(each) for each in (*kept, kind(weights))}
            assert found == {weights_fingerprint([weights])}
            assert weights_fingerprint(kind(2 * weights)) not in (*found, 0)


class TestSettings:
    def test_flags_of_numpy_are_flags(self, tmp_path: Path) -> None:
        watched(tmp_path, made(), 1, background=np.True_)
        with pytest.raises(tt.MonitorError, match="background='yes': expected True or False"):
            tt.Monitor(tmp_path / "run.zarr", BATCH, background="yes")

    def test_all_is_full(self, tmp_path: Path) -> None:
        with pytest.raises(tt.MonitorError, match="is called 'full'"):
            tt.Monitor(tmp_path / "run.zarr", BATCH, quantities="all")


class TestVanishing:
    def fading(self) -> nn.Module:
        model = made(nn.RNN)
        with torch.no_grad():
            model.rnn.weight_hh_l0.mul_(0.1)
        return model

    def test_it_is_watched_for_by_default_at_half_of_the_window(self, tmp_path: Path) -> None:
        monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, loss=MSE, on_alarm=lambda _: None)
        with monitor.watch(self.fading()):
            pass
        (alarm,) = monitor.alarms
        assert (alarm.name, alarm.layer) == ("vanishing", "rnn")
        assert "at lag 6" in alarm.evidence  # of 12 timesteps
        assert alarm.evidence.endswith("a fault only if the task needs inputs that old")

    @pytest.mark.parametrize("off", [None, False])
    def test_it_is_turned_off(self, tmp_path: Path, off: object) -> None:
        run, monitor = watched(tmp_path, self.fading(), 0, vanishing_lag=off)
        assert monitor.alarms == []
        assert "Alarms that are off: vanishing" in alarms_on_page(run)

    @pytest.mark.parametrize(
        ("quantities", "off"),
        [("summary", ""), (["hidden_gradient"], "saturation, dead_gradient"), (["output"], "explosion, ")],
    )
    def test_no_alarm_is_only_written_of_those_that_were_on(
        self, tmp_path: Path, quantities: object, off: str
    ) -> None:
        run, monitor = watched(tmp_path, made(), 0, vanishing_lag=1, quantities=quantities)
        assert monitor.alarms == []
        told = alarms_on_page(run)
        assert off in told
        assert ("Alarms that are off" in told) is bool(off)


def alarms_on_page(run: object) -> str:
    from throughtime._pages.live.words import alarms

    return alarms(run.attrs)


class TestCallbacks:
    def test_a_monitor_in_callbacks_names_the_one_to_pass(self, tmp_path: Path) -> None:
        monitor = tt.Monitor(tmp_path / "run.zarr", BATCH)
        for call in (monitor.set_model, monitor.set_params):
            with pytest.raises(tt.MonitorError, match=r"callbacks=\[monitor.keras\(\)\]"):
                call(made())


class TestLoggers:
    def test_tab_shows_loggers_and_a_slip_is_helped(self) -> None:
        assert {"CSV", "Record", "WandB"} <= {*dir(tt.loggers)}
        assert all(name[0].isupper() for name in dir(tt.loggers))
        with pytest.raises(AttributeError, match=r"Did you mean TensorBoard\?"):
            tt.loggers.Tensorboard  # noqa: B018
        with pytest.raises(AttributeError, match="It has CSV, MLflow"):
            tt.loggers.Nothing  # noqa: B018
