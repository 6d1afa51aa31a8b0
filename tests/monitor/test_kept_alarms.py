"""Alarms stay in the run, once each, for who opens or watches it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.monitor.test_monitor import made, watched

import throughtime as tt
from throughtime.diagnostics.alarm import Alarm, alarms_of_run


def silenced() -> torch.nn.Module:
    model = made()
    with torch.no_grad():
        model.head.weight.zero_()
    return model


@pytest.mark.filterwarnings("ignore:.*dead gradient")
def test_alarms_are_kept_once_also_by_a_run_that_is_continued(tmp_path: Path) -> None:
    for _ in range(2):
        run, monitor = watched(tmp_path, silenced(), 1, mode="continue")
    (kept,) = alarms_of_run(run.attrs)
    assert kept.name == "dead_gradient"
    assert (kept.layer, kept.step) == ("rnn", 0)
    assert monitor.alarms[0].evidence == kept.evidence


def test_they_stay_when_the_run_is_thinned(tmp_path: Path) -> None:
    one = watched(tmp_path / "one", made(), 0)[0].nbytes
    with pytest.warns(tt.ThroughTimeWarning, match="reached its budget|dead gradient"):
        run, _ = watched(tmp_path / "many", silenced(), 9, every=1, budget=4 * one)
    assert [alarm.name for alarm in alarms_of_run(run.attrs)] == ["dead_gradient"]


def test_a_run_in_which_nothing_was_seen_keeps_none(tmp_path: Path) -> None:
    run, _ = watched(tmp_path, made(), 1)
    assert alarms_of_run(run.attrs) == []


def test_an_alarm_is_a_line_for_rich_whatever_its_layer_is_called() -> None:
    from rich.console import Console

    console = Console(width=120, color_system=None)
    with console.capture() as printed:
        console.print(Alarm("dead_gradient", "rnn[0]", 3, "0 at [2, 5]"))
    assert printed.get() == "step 3 dead gradient in rnn[0] 0 at [2, 5]\n"
