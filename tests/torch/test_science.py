"""The experiments of `benchmarks/science`, short: verdicts on models that were trained, not built."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

import throughtime as tt

FOLDER = Path(__file__).parents[2] / "benchmarks" / "science"


@pytest.fixture
def experiment(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return import_module


def test_delayed_recall_unsolved_and_solved(experiment):
    recall, networks = experiment("delayed_recall"), experiment("networks")
    steps, loss = 60, nn.CrossEntropyLoss()
    x, y = recall.batches(128, 2, steps)()
    found = {}
    for longest, updates in ((None, 100), (steps, 250)):
        model = networks.lstm(2 * recall.SYMBOLS, 32, recall.SYMBOLS, longest=longest)

        def solved(_, model=model):
            with torch.no_grad():
                return float(loss(model(x), y)) < 0.1

        networks.train(model, loss, recall.batches(32, 0, steps), updates=updates, rate=1e-2, until=solved)
        found[longest] = tt.diagnose(model, x, y, loss=loss, dependency_length=steps - 1, solved=0.1)
    assert found[None].verdict == "no_evidence"
    assert any("chrono" in each.text for each in found[None].remedies)
    assert found[steps].verdict == "uses"
    assert found[steps].remedies == ()
    assert found[steps].loss < 0.1


def test_adding_problem_stuck(experiment):
    adding, networks = experiment("adding_problem"), experiment("networks")
    model, loss = networks.half_orthogonal_rnn(2, 16, 1), nn.MSELoss()
    networks.train(model, loss, adding.batches(50, 0), updates=100, rate=5e-3)
    x, y = adding.batches(128, 2)()
    found = tt.diagnose(model, x, y, loss=loss, dependency_length=25, solved=adding.SOLVED)
    assert found.verdict == "no_evidence"
    assert found.loss == pytest.approx(1 / 6, rel=0.25)
    assert "orthogonal" in found.remedies[0].text
