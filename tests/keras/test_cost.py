"""`quantities=` makes a capture do only what was asked for: counted in tensors and calls, not in time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import throughtime as tt
from throughtime import cells
from throughtime._capture import solve
from throughtime.adapters.keras import inside, probe, program, recorder
from throughtime.cells import adjoint, lstm

LOOPED = keras.backend.backend() != "torch"  # states are seen in the backend's loop
SAMPLES, STEPS, FEATURES, UNITS = 2, 5, 2, 3
X = np.random.default_rng(0).normal(size=(SAMPLES, STEPS, FEATURES)).astype("float32")
Y = np.ones((SAMPLES, 1), "float32")


@dataclass
class Work:
    """What a capture has done: marks it made, tensors that came back, what it solved."""

    marks: set[str] = field(default_factory=set)
    tensors: set[str] = field(default_factory=set)
    gradients: set[str] = field(default_factory=set)
    solved: list[frozenset[str]] = field(default_factory=list)
    within: set[str] = field(default_factory=set)  # gradients found within the steps of loops
    numbers: int = 0


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    done = Work()
    records, marked, solve = probe.records, recorder.Recorder.marked, cells.solve

    def watch_records(finished: Any, reduced: Any) -> Any:
        result = finished.result
        done.tensors |= names(result.tensors)
        done.gradients |= names(result.gradients)
        done.within |= {key.split(".")[2] for key in result.gradients if ".within_" in key}
        returned = [*result.tensors.values(), *result.gradients.values()]
        done.numbers += sum(int(np.prod(tuple(tensor.shape))) for tensor in returned)
        return records(finished, reduced)

    def watch_marks(own: Any, wanted: str, name: str, tensor: Any) -> Any:
        if wanted in own.wanted:
            done.marks |= names([name])
        return marked(own, wanted, name, tensor)

    def watch_solve(layer: Any, passed: Any, wanted: frozenset[str]) -> Any:
        done.solved.append(wanted)
        return solve(layer, passed, wanted)

    monkeypatch.setattr(probe, "records", watch_records)
    monkeypatch.setattr(recorder.Recorder, "marked", watch_marks)
    monkeypatch.setattr(cells, "solve", watch_solve)
    return done


def names(keys: Iterable[str]) -> set[str]:
    """`0.1.weight_2.0` is a weight, `variable.7` a variable."""
    parts = [key.split(".") for key in keys]
    return {(part[2] if len(part) == 4 else part[0]).partition("_")[0] for part in parts}


def network() -> Any:
    model = keras.Sequential(
        [keras.Input((STEPS, FEATURES)), layers.LSTM(UNITS, name="lstm"), layers.Dense(1)]
    )
    model.compile(loss="mse")
    return model


def forbid(monkeypatch: pytest.MonkeyPatch, holder: Any, *functions: str) -> None:
    def called(*args: Any, **keywords: Any) -> Any:
        raise AssertionError("this was not asked for")

    for name in functions:
        monkeypatch.setattr(holder, name, called)


def test_the_output_gradient_alone_never_looks_inside(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, inside, "run")
    forbid(monkeypatch, cells, "solve", "certificate_weights", "certificate_time")
    tree = tt.capture(network(), X, Y, quantities="output_gradient")
    assert set(tree["lstm"].data_vars) == {"output_gradient", "loss", "reduction_factor"}
    assert work.marks == work.gradients == {"output"}
    assert work.tensors == {"loss"}
    assert work.numbers == SAMPLES * UNITS + 1


@pytest.mark.parametrize("quantities", ["weights", "valid", "output"])
def test_values_alone_differentiate_nothing(quantities: str, work: Work) -> None:
    tt.capture(network(), X, Y, quantities=quantities)
    assert work.marks == work.gradients == set()
    assert work.solved == []


def test_weight_gradients_alone_mark_no_tensor(work: Work) -> None:
    tt.capture(network(), X, Y, quantities="kernel_gradient")
    assert work.marks == set()
    assert work.gradients == {"variable"}
    assert work.tensors == {"loss"}
    assert work.solved == []


@pytest.mark.parametrize("quantities", [["hidden"], ["cell", "gate_activation"]])
def test_states_alone_run_no_adjoint(
    quantities: list[str], work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, adjoint, "_backward")
    tt.capture(network(), X, Y, quantities=quantities)
    assert work.marks == work.gradients == set()
    assert work.solved == ([] if LOOPED else [frozenset(quantities)])
    assert work.within == set()


def test_hidden_states_alone_replay_no_gate(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, adjoint, "replay")
    forbid(monkeypatch, program, "EveryStep")
    tt.capture(network(), X, quantities="hidden")
    assert work.solved == ([] if LOOPED else [frozenset({"hidden"})])


def test_the_hidden_gradient_alone_sums_no_weights_and_asks_for_no_certificate(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, lstm, "split")
    forbid(monkeypatch, adjoint, "step_contributions")
    forbid(monkeypatch, solve.cells, "certificate_weights", "certificate_time")
    forbid(monkeypatch, program, "EveryStep")
    tt.capture(network(), X, Y, quantities="hidden_gradient")
    assert work.solved == ([] if LOOPED else [frozenset({"hidden_gradient"})])
    assert "input" not in work.gradients
    assert not work.gradients & {"weight", "variable"}


def test_the_certificate_pays_for_both_sides_of_its_comparison(work: Work) -> None:
    tree = tt.capture(network(), X, Y, quantities="certificate")
    assert {"input", "weight", "output"} <= work.gradients
    if LOOPED:
        assert work.within == {"within_tap_0"}, "gate gradients, from which those of weights and input follow"
        assert "certificate_output" in tree["lstm"]
    else:
        assert work.solved[0] >= {"input_gradient", "kernel_gradient", "recurrent_kernel_gradient"}
    assert {"certificate_weights", "certificate_time"} <= set(tree["lstm"].data_vars)
    assert "input_gradient" not in tree["lstm"]


def test_each_further_quantity_returns_more_numbers(work: Work) -> None:
    counts = []
    for quantities in ("output_gradient", "hidden_gradient", ["hidden_gradient", "certificate"], "all"):
        work.numbers = 0
        tt.capture(network(), X, Y, quantities=quantities)
        counts.append(work.numbers)
    assert counts == sorted(set(counts))


def test_each_state_comes_back_once(work: Work) -> None:
    sequence = keras.Sequential([keras.Input((STEPS, FEATURES)), layers.LSTM(UNITS, return_sequences=True)])
    tt.capture(sequence, X, quantities=["output", "hidden"])
    states, initial = (2, 2 * SAMPLES * UNITS) if LOOPED else (1, 0)
    assert work.tensors == {"output", "input"} | ({"initial", "0"} if LOOPED else {"sequence"})
    assert work.numbers == SAMPLES * STEPS * (UNITS + FEATURES + states * UNITS) + initial


def test_a_lag_matrix_solves_the_states_gradients_only(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, lstm, "split")
    forbid(monkeypatch, adjoint, "step_contributions")
    inputs = keras.Input((STEPS, FEATURES))
    model = keras.Model(inputs, layers.Dense(1)(layers.LSTM(UNITS, return_sequences=True)(inputs)))
    model.compile(loss="mse")
    tt.lag_matrix(model, X, np.ones((SAMPLES, STEPS, 1), "float32"))
    assert set(work.solved) == (set() if LOOPED else {frozenset({"hidden_gradient", "cell_gradient"})})
    assert work.within == set()
    assert not work.gradients & {"input", "weight", "variable"}
