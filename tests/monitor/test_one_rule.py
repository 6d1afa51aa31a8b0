"""Alarms and verdicts come from one rule: on the same numbers they agree."""

from __future__ import annotations

import numpy as np
import pytest

import throughtime as tt
from throughtime import testing
from throughtime._capture.label import Captured
from throughtime._monitor.alarms import Training, alarms_of, seen_layers
from throughtime._monitor.levels import reduce_tree, stored
from throughtime.adapters.optimizer import OptimizerStep

LAG = 16
TREES = {
    "exploding": testing.exploding(samples=16),
    "growing, bounded": None,
    "kept": testing.perfect_memory(samples=16),
    "fading": testing.decaying(0.5, samples=16),
    "on the edge": testing.decaying(list(0.01 ** (np.linspace(0.8, 1.2, 16) / LAG))),
    "both ways": testing.bidirectional((0.5, 0.95), samples=16),
    "every step, growing": testing.lag_matrix_of(1.3, samples=16),
    "every step, fading": testing.lag_matrix_of(0.5, samples=16),
    "masked": testing.with_masks([50, 40, 30] * 5),
    "shut": testing.saturated_gates(left=0.95, right=0.0, samples=16),
    "half open": testing.saturated_gates(left=0.2, right=0.6, samples=16),
}


def tree_of(name):
    if name == "growing, bounded":
        tree = testing.exploding(samples=16)
        tree["rnn"].attrs["activation"] = "tanh"
        return tree
    tree = TREES[name]
    if "lag_matrix" in tree["rnn"]:  # alarms have none
        tree["rnn"] = type(tree)(tree["rnn"].to_dataset().drop_vars("lag_matrix"))
    return tree


def names_of(tree, training):
    captured = Captured.of(tree)
    summary = stored(captured, "summary", None)
    return {alarm.name for alarm in alarms_of(seen_layers(captured), summary, 0, training)}


@pytest.mark.parametrize("name", TREES)
def test_alarms_agree_with_the_verdict(name):
    tree = tree_of(name)
    names, found = names_of(tree, Training(vanishing_lag=LAG)), tt.diagnose(tree, dependency_length=LAG)
    assert ("explosion" in names) == (found.verdict == "unstable")
    assert ("vanishing" in names) == any(layer.reach.answer == "no" for layer in found.layers.values())
    gates = [each.name for layer in found.layers.values() for each in layer.why]
    assert ("saturation" in names) == any(each.startswith("saturation") for each in gates)


@pytest.mark.parametrize("level", ["timestep", "summary"])
@pytest.mark.parametrize("name", [name for name in TREES if "both" not in name])
def test_a_record_is_unstable_where_its_capture_is(name, level):
    tree = tree_of(name)
    record = tt.diagnose(reduce_tree(tree, level), dependency_length=LAG)
    whole = tt.diagnose(tree, dependency_length=LAG)
    assert (record.verdict == "unstable") == (whole.verdict == "unstable")
    for path, layer in whole.layers.items():
        assert record.layers[path].reach.value == pytest.approx(layer.reach.value, rel=1e-6)


def test_the_optimizer_decides_whether_growth_does_harm():
    tree = testing.exploding(samples=16)
    for optimizer, alarmed in [
        (OptimizerStep(rate=0.01), True),
        (OptimizerStep(rescales=True), False),
        (OptimizerStep(rate=0.01, norm_limit=1.0), False),
    ]:
        assert ("explosion" in names_of(tree, Training(optimizer=optimizer))) == alarmed


def test_a_loss_that_falls_excuses_growth_and_one_that_has_risen_condemns_it():
    tree = testing.exploding(samples=16)
    adam = OptimizerStep(rescales=True)
    assert "explosion" not in names_of(tree, Training(losses=[1.0, 0.5]))
    assert "explosion" in names_of(tree, Training(losses=[1.0, 5.0], optimizer=adam))


def test_vanishing_is_looked_for_at_half_of_the_window_by_default():
    assert "vanishing" in names_of(testing.decaying(0.8, samples=16), Training())
    assert "vanishing" not in names_of(testing.decaying(0.9, samples=16), Training())
