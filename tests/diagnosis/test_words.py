"""Each sentence that a diagnosis can say is produced by something, and comes out in what is printed.

Captures come from `tt.testing`, losses from a weighted sum of inputs: no framework is needed.
"""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import xarray as xr

import throughtime as tt
from throughtime import testing
from throughtime._errors import LossError
from throughtime._monitor.levels import reduce_tree
from throughtime.diagnosis import entry
from throughtime.diagnosis.words import SENTENCES, SOURCES, phrase
from throughtime.diagnostics.alarm import Alarm, as_attribute

from .verdict_schema import check

SAMPLES, STEPS = 20, 50


class Model:
    """A capture, and a model whose loss is (Σ w_t x_t − y)², w_t given by the age of the input."""

    def __init__(self, tree, weights=(1.0,), noise=0.3, optimizer=None, seed=0):
        self.tree, self.weights = tree, np.zeros(STEPS)
        self.weights[STEPS - np.arange(len(weights)) - 1] = weights
        rng = np.random.default_rng(seed)
        self.x = rng.normal(size=(SAMPLES, STEPS))
        self.y = self.x @ self.weights + noise * rng.normal(size=SAMPLES)
        if optimizer is not None:
            self.optimizer = optimizer


class FakeProbe:
    def __init__(self, model, **_):
        self.model = model

    def __call__(self, x, y, *, sample_weight):
        return self.model.tree

    def losses(self, x, y, *, sample_weight, step):
        if y.ndim == 3:
            raise LossError("the loss fails.")
        if y.ndim == 2 and y.shape[1] < STEPS:
            return ((x[:, 1::2] - y) ** 2).sum(1)
        if len(y) != SAMPLES:
            raise LossError("no loss of a sample")
        if y.ndim == 2:
            return ((x - y) ** 2)[:, step]
        return (np.asarray(x) @ self.model.weights - y) ** 2


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    monkeypatch.setattr(entry, "Probe", FakeProbe)


def no_lag_matrix(*_, **__):
    raise LossError("no loss per step.")


def printed(model, x=None, y=None, **options):
    if isinstance(model, Model):
        x, y = model.x if x is None else x, model.y if y is None else y
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tt.ThroughTimeWarning)
        found = tt.diagnose(model, x, y, **options)
    check(found)
    return " ".join(str(found).split())


def decaying(rate=0.5, **options):
    return testing.decaying(rate=rate, samples=SAMPLES, steps=STEPS, **options)


def changed(tree, path="rnn", *, attributes=(), **variables):
    """A capture with some variables replaced, None to drop them."""
    tree = tree.copy(deep=True)
    leaf = tree[path].to_dataset()
    for name, change in variables.items():
        leaf = leaf.drop_vars(name) if change is None else leaf.assign({name: change(leaf[name])})
    tree[path] = type(tree)(leaf.assign_attrs(dict(attributes)))
    return tree


OLD = np.zeros(STEPS)
OLD[30] = 1.0  # the input that matters is 30 steps old
AROUND = np.exp(np.log(0.01) * np.linspace(0.5, 1.5, SAMPLES) / 8)  # R(8) lies on both sides of 0.01


def with_one(leaf_value, place, value):
    filled = leaf_value.copy()
    filled[place] = value
    return filled


def at(value, **place):
    return lambda array: with_one(array, place, value)


def silent(array):
    return array * 0.0


def one_sample():
    model = Model(testing.decaying(samples=1))
    return printed(model, model.x[:1], model.y[:1])


def equal():
    model = Model(decaying())
    return printed(model, np.ones((SAMPLES, STEPS)), dependency_length=8)


def together():
    """The newest input and one 3 steps older cancel each other, if they come from the same sample."""
    model = Model(decaying(), [1, 0, 0, 1])
    x = model.x.copy()
    x[:, -4] = -x[:, -1]
    return printed(model, x, np.random.default_rng(1).normal(size=SAMPLES), dependency_length=3)


def masked(lengths):
    return testing.with_masks(lengths=lengths, steps=STEPS)


def noisy():
    """Gradients of the samples point wherever they like."""
    tree = testing.decaying(rate=0.9, samples=64, steps=STEPS)
    signs = np.where(np.arange(64) % 2 == 0, 1.0, -1.0)
    return printed(changed(tree, gate_gradient=lambda array: array * signs[:, None, None]))


def per_step(monkeypatch, *, refused, cut=False):
    tree = testing.lag_matrix_of(samples=SAMPLES, steps=STEPS)
    if cut:  # the states are detached after every fifth step
        windows = xr.DataArray(np.arange(STEPS) // 5, dims="time")
        later = windows.rename(time="loss_time") > windows
        tree = changed(tree, lag_matrix=lambda norms: norms.where(~later, 0.0))
        tree["rnn"] = tree["rnn"].to_dataset().assign_coords(call=windows)
    plain = changed(tree, lag_matrix=None)
    monkeypatch.setattr(entry.order, "lag_matrices", no_lag_matrix if refused else lambda *_, **__: tree)
    model = Model(plain)
    return printed(model, y=model.x + 0.1, dependency_length=8)


def both_ways(**options):
    return testing.bidirectional(samples=SAMPLES, steps=STEPS, **options)


def optimizer():
    return type("Optimizer", (), {"learning_rate": 0.1, "epsilon": 1e3})()


def hasty():
    return type("Adam", (), {"learning_rate": 1.0, "epsilon": 1e-9})()


def mixing(monkeypatch):
    """Each sample is predicted from the inputs of another."""

    def losses(self, x, y, *, sample_weight, step):
        return (np.roll(x, 1, axis=0) @ self.model.weights - y) ** 2

    monkeypatch.setattr(FakeProbe, "losses", losses)
    return printed(Model(decaying()), dependency_length=8)


def far_away():
    """Labels near 1000, which the model does not predict."""
    model = Model(changed(decaying(), loss=lambda _: xr.DataArray(1e6)), [1e-9])
    return printed(model, y=1000 + np.random.default_rng(2).normal(size=SAMPLES), dependency_length=8)


def padded():
    """Samples of different lengths, filled up with one number."""
    model = Model(decaying())
    x = np.where(np.arange(STEPS) < STEPS - 2 - np.arange(SAMPLES)[:, None], model.x, 9.0)
    return printed(model, x, dependency_length=20)


def wide():
    at_ends = {"input": lambda values: values * 1e4, "hidden": lambda values: values * 0 + 1}
    return changed(decaying(), **at_ends, attributes={"activation": "tanh"})


def vanished(tree, **options):
    """No use, no reach, a length and a loss above `solved`."""
    return printed(Model(tree, **options), dependency_length=20, solved=-1.0)


def kept_lstm(**options):
    return testing.constant_gates(samples=SAMPLES, steps=STEPS, **options)


def varied(states):
    return states + states["sample"]


def half_bias():
    return changed(kept_lstm(keep=0.5), hidden=varied, gate_activation=None)


def every_step():
    """A loss at every step, whose lag matrix was not computed."""
    return changed(testing.lag_matrix_of(samples=SAMPLES, steps=STEPS), lag_matrix=None)


def at_steps():
    model = Model(every_step())
    return printed(model, y=model.x[:, 1::2] + 0.1, dependency_length=8)


def in_windows():
    tree = changed(decaying(), hidden_gradient=lambda array: array * (np.arange(STEPS) >= 40)[:, None])
    return tree.map_over_datasets(lambda leaf: leaf.assign_coords(call=("time", np.arange(STEPS) // 10)))


def dead():
    return changed(decaying(), hidden=silent, attributes={"activation": "relu"})


def frozen():
    return changed(decaying(), attributes={"trainable": 0})


def unlabelled():
    return changed(decaying(), hidden_gradient=None, loss=None)


def without_kernel(_):
    return changed(every_step(), kernel=None)


def only_first(array):
    """Error enters at the first step alone."""
    return (
        array.where(array["time"] == 0, 0.0)
        if "time" in array.coords
        else array * (np.arange(STEPS) == 0)[:, None]
    )


def read_at_once():
    """Both directions are read at the last step of the input."""
    at_end = (np.arange(STEPS) == STEPS - 1)[:, None, None]
    gradient = both_ways()["rnn"]["hidden_gradient"]
    is_backward = gradient["direction"] == "backward"
    alone = gradient.max() * gradient.copy(data=np.broadcast_to(at_end, gradient.shape))
    return changed(
        both_ways(), hidden_gradient=lambda array: xr.where(is_backward, alone, array).transpose(*array.dims)
    )


def descent():
    return type("SGD", (), {"learning_rate": 0.1})()


def bounded():
    return changed(testing.exploding(samples=SAMPLES), attributes={"activation": "tanh"})


PRODUCED = {
    "uses": lambda _: printed(Model(decaying(0.99), OLD), dependency_length=20),
    "sizes": lambda _: printed(Model(decaying(0.99), OLD), dependency_length=20),
    "size": lambda _: printed(Model(decaying(0.99), OLD), dependency_length=20),
    "of_lag_0": lambda _: printed(Model(decaying(0.99), OLD), dependency_length=20),
    "size_vanishing": lambda _: printed(Model(decaying(0.5), OLD), dependency_length=20),
    "size_unclear": lambda _: printed(Model(decaying(AROUND), OLD), dependency_length=8),
    "weak_signal": lambda _: printed(Model(decaying(0.5), OLD), dependency_length=20),
    "unused": lambda _: printed(Model(decaying(0.99)), dependency_length=20),
    "unused_faint": lambda _: printed(Model(decaying(0.85)), dependency_length=20),
    "unused_mixed": lambda _: printed(Model(both_ways(rates=(0.5, 0.99))), dependency_length=20),
    "no_evidence": lambda _: printed(Model(decaying(0.5)), dependency_length=20),
    "no_evidence_open": lambda _: printed(Model(decaying(0.001), [0.05], noise=1.0, seed=2)),
    "no_evidence_unclear": lambda _: printed(Model(decaying(AROUND)), dependency_length=8),
    "exploding_step": lambda _: printed(testing.exploding(samples=SAMPLES)),
    "exploding_loss": lambda _: over_training(1.3, 1.3, losses=(1.0, 9.0), activation="tanh"),
    "optimizer": lambda _: printed(Model(testing.exploding(samples=SAMPLES), optimizer=descent())),
    "optimizer_assumed": lambda _: printed(testing.exploding(samples=SAMPLES)),
    "growth_alone": lambda _: printed(Model(bounded(), optimizer=descent())),
    "rescaled": lambda _: printed(Model(bounded(), optimizer=optimizer())),
    "clip_norm": lambda _: printed(Model(testing.exploding(samples=SAMPLES), optimizer=descent())),
    "growth": lambda _: printed(testing.exploding(samples=SAMPLES)),
    "step": lambda _: printed(testing.exploding(samples=SAMPLES)),
    "first_step_only": lambda _: printed(read_at_once()),
    "misread": lambda _: printed(read_at_once()),
    "no_error_at_end": lambda _: printed(read_at_once()),
    "remedy_ends": lambda _: printed(read_at_once()),
    "remedy_last_step": lambda _: printed(changed(decaying(), hidden_gradient=only_first)),
    "norms": lambda _: printed(testing.exploding(samples=SAMPLES)),
    "nonfinite": lambda _: printed(testing.nonfinite()),
    "nonfinite_data": lambda _: printed(changed(decaying(), input=at(np.nan, sample=1, time=3))),
    "loss_scaling": lambda _: printed(
        changed(
            decaying(),
            attributes={"dtype": "float16"},
            hidden_gradient=at(np.inf, sample=0, time=9),
        )
    ),
    "certificate": lambda _: printed(
        changed(decaying(), hidden=lambda array: array, attributes={}).map_over_datasets(with_bad_certificate)
    ),
    "beyond_call": lambda _: printed(with_two(decaying(), "rnn@2"), dependency_length=50),
    "remedy_calls": lambda _: printed(with_two(decaying(), "rnn@2"), dependency_length=50),
    "beyond_window": lambda _: printed(decaying(), dependency_length=50),
    "all_masked": lambda _: printed(masked([0, 0])),
    "no_signal": lambda _: printed(changed(decaying(), hidden_gradient=silent)),
    "no_signal_of_0": lambda _: printed(changed(decaying(), hidden_gradient=silent, loss=silent)),
    "one_step": lambda _: printed(masked([1, 1])),
    "nonfinite_loss": lambda _: printed(changed(decaying(), loss=lambda loss: loss * np.nan)),
    "gain_unclear": lambda _: printed(
        Model(decaying(), [0, 0, 0, 0.5], noise=1.0, seed=4), dependency_length=3
    ),
    "gain_small": lambda _: together(),
    "idle": lambda _: printed(Model(decaying(), [0.2], noise=1.0, seed=2), dependency_length=3),
    "no_gradient": lambda _: printed(changed(decaying(), hidden_gradient=None)),
    "use_unclear": lambda _: printed(
        Model(decaying(), [1, 0, 0, 0, 0.1], noise=1.0, seed=1), dependency_length=3
    ),
    "use_not_measured": lambda _: printed(decaying()),
    "use_needs_model": lambda _: printed(decaying()),
    "horizons": lambda _: printed(decaying()),
    "no_settled_use": lambda _: printed(Model(decaying(), [], noise=1e-200), dependency_length=8),
    "solved": lambda _: printed(Model(decaying(0.99), OLD), solved=1e9),
    "open_lags": lambda _: printed(Model(decaying(0.99), OLD)),
    "few_samples": lambda _: printed(testing.decaying(samples=3)),
    "one_sample": lambda _: one_sample(),
    "dead_samples": lambda _: printed(
        changed(decaying(), hidden_gradient=lambda array: array.where(array["sample"] > 0, 0.0))
    ),
    "unread_direction": lambda _: printed(
        changed(
            both_ways(),
            hidden_gradient=lambda array: array.where(array["direction"] == "forward", 0.0),
        )
    ),
    "without_partner": lambda _: printed(Model(masked([50] * 19 + [20])), dependency_length=8),
    "noise": lambda _: noisy(),
    "little_gain": lambda _: printed(Model(decaying(), [0.05], noise=1.0, seed=2), dependency_length=3),
    "either_direction": lambda _: printed(Model(both_ways()), dependency_length=8),
    "per_step": lambda patch: per_step(patch, refused=False),
    "per_step_unmeasured": lambda patch: per_step(patch, refused=True),
    "share_per_step": lambda patch: per_step(patch, refused=False),
    "from_last_step": lambda _: printed(every_step()),
    "not_comparable": lambda _: printed(changed(every_step(), kernel=None)),
    "summary_not_comparable": lambda _: over_training(0.5, 0.9, level="summary", make=without_kernel),
    "share_undefined": lambda _: printed(decaying(), dependency_length=STEPS - 1),
    "rounded": lambda _: printed(
        decaying(dtype="float32").map_over_datasets(lambda leaf: with_bad_certificate(leaf, 3e-5))
    ),
    "stateful": lambda _: printed(changed(decaying(), attributes={"stateful": 1})),
    "masked": lambda _: printed(masked([50, 20])),
    "needs_model": lambda _: printed(decaying()),
    "coupled": lambda _: printed(Model(with_root(decaying(), loss_reduction="couples samples: all"))),
    "single": lambda _: one_sample(),
    "pair": lambda _: printed(Model(masked([50, 50, *[20] * (SAMPLES - 2)])), dependency_length=30),
    "no_partner": lambda _: printed(Model(masked(list(range(30, 50)))), dependency_length=8),
    "equal_inputs": lambda _: equal(),
    "equal_labels": lambda _: printed(Model(decaying()), y=np.ones(SAMPLES)),
    "no_time_axis": lambda _: printed(Model(testing.decaying(samples=SAMPLES, steps=25))),
    "no_losses": lambda _: printed(Model(decaying()), y=np.arange(SAMPLES).reshape(-1, 1, 1).tolist()),
    "reversed": lambda _: printed(Model(with_two(changed(decaying(), attributes={"output_reversed": 1})))),
    "inputs_do_harm": lambda _: printed(
        Model(decaying(0.99), 3 * OLD), y=np.random.default_rng(3).normal(size=SAMPLES), dependency_length=20
    ),
    "resets": lambda _: printed(Model(decaying().map_over_datasets(with_resets)), dependency_length=8),
    "loss_is_zero": lambda _: printed(Model(decaying(), [], noise=1e-200), dependency_length=8),
    "last_record": lambda _: over_training(0.5, 0.9),
    "over_training": lambda _: over_training(0.5, 0.9),
    "trend_risen": lambda _: over_training(0.5, 0.9),
    "trend_fallen": lambda _: over_training(0.9, 0.5),
    "trend_floor": lambda _: over_training(0.2, 0.1),
    "trend_same": lambda _: over_training(0.5, 0.5),
    "trend_values": lambda _: over_training(0.5, 0.9, make=tt.testing.decaying),
    "trend_stopped": lambda _: over_training(0.5, float("nan")),
    "reach_of_summary": lambda _: over_training(0.5, 0.9, level="summary"),
    "nonfinite_record": lambda _: over_training(0.5, float("nan"), level="summary"),
    "summary_share": lambda _: over_training(0.5, 0.9, level="summary"),
    "alarm": lambda _: over_training(0.5, 0.9, alarms=as_attribute([Alarm("explosion", "rnn", 3, "here")])),
    "no_run": lambda _: refused(decaying(), step=3),
    "too_short": lambda _: printed(Model(both_ways()), dependency_length=40),
    "no_contributions": lambda _: printed(changed(decaying(), step_contribution=silent)),
    "timescale": lambda _: printed(kept_lstm()),
    "saturation": lambda _: printed(testing.saturated_gates(left=0.96, right=0.0, samples=SAMPLES)),
    "decay": lambda _: printed(decaying()),
    "lyapunov": lambda _: printed(decaying()),
    "spectrum": lambda _: printed(decaying()),
    "spectrum_of_gates": lambda _: printed(kept_lstm()),
    "floor": lambda _: printed(Model(decaying(), optimizer=optimizer())),
    "forget_bias": lambda _: printed(kept_lstm()),
    "remedy_chrono": lambda _: vanished(changed(kept_lstm(), hidden=varied)),
    "remedy_forget_bias": lambda _: vanished(half_bias()),
    "remedy_orthogonal": lambda _: vanished(decaying()),
    "remedy_clipping": lambda _: printed(
        Model(testing.exploding(samples=SAMPLES)), dependency_length=8, solved=-1.0
    ),
    "remedy_kernel": lambda _: printed(
        Model(testing.exploding(samples=SAMPLES)), dependency_length=8, solved=-1.0
    ),
    "newest": lambda _: printed(Model(decaying())),
    "labels_at_steps": lambda _: at_steps(),
    "samples_as_steps": lambda _: printed(Model(decaying()), y=np.zeros(STEPS)),
    "remedy_batch_first": lambda _: printed(Model(decaying()), y=np.zeros(STEPS)),
    "cut": lambda _: vanished(in_windows()),
    "dead": lambda _: vanished(dead()),
    "remedy_dead": lambda _: vanished(dead()),
    "frozen": lambda _: vanished(frozen()),
    "remedy_frozen": lambda _: vanished(frozen()),
    "no_memory": lambda _: printed(Model(every_step(), OLD), dependency_length=8),
    "remedy_labels": lambda _: printed(unlabelled()),
    "remedy_window": lambda _: printed(decaying(), dependency_length=50),
    "mixed": mixing,
    "rate": lambda _: vanished(decaying(), optimizer=hasty()),
    "remedy_rate": lambda _: vanished(decaying(), optimizer=hasty()),
    "far_labels": lambda _: far_away(),
    "remedy_far_labels": lambda _: far_away(),
    "wide": lambda _: vanished(wide()),
    "padding": lambda _: padded(),
    "remedy_padding": lambda _: padded(),
    "remedy_epsilon": lambda _: vanished(decaying(), optimizer=optimizer()),
    "others_between": lambda _: printed(with_layers(0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)),
}


def over_training(*rates, level="full", losses=None, activation="linear", make=decaying, **attributes):
    spoiled = changed(decaying(), recurrent_kernel=lambda values: values * np.nan)
    trees = [make(rate) if np.isfinite(rate) else spoiled for rate in rates]
    leaves = [
        reduce_tree(tree, level)["rnn"].to_dataset().assign_attrs(activation=activation) for tree in trees
    ]
    if losses is not None:
        leaves = [leaf.assign(loss=loss) for leaf, loss in zip(leaves, losses, strict=True)]
    steps = xr.DataArray(np.arange(len(rates)), dims="step", name="step")
    run = xr.DataTree.from_dict({"/rnn": xr.concat(leaves, steps, data_vars="all")})
    return printed(with_root(run, **attributes))


def refused(*arguments, **options):
    with pytest.raises(tt.DiagnosticError) as caught:
        tt.diagnose(*arguments, **options)
    return str(caught.value)


def with_resets(leaf):
    at_20 = np.broadcast_to(np.arange(STEPS) == 20, (SAMPLES, STEPS))
    return leaf.assign(reset=(("sample", "time"), at_20)) if leaf.data_vars else leaf


def with_bad_certificate(leaf, error=1.0):
    return leaf.assign(certificate_time=error) if leaf.data_vars else leaf


def with_root(tree, **attributes):
    tree.attrs.update(attributes)
    return tree


def with_two(tree, path="upper"):
    """The same layer once more."""
    tree[path] = tree["rnn"].copy()
    return tree


def with_layers(*rates):
    leaves = {f"/layers/{place}": decaying(rate)["rnn"].to_dataset() for place, rate in enumerate(rates)}
    return xr.DataTree.from_dict(leaves)


def test_of_many_layers_those_between_which_the_others_lie_are_named():
    rates = (0.8, 0.5, 0.9, *np.linspace(0.55, 0.75, 6))
    text = printed(with_layers(*rates), dependency_length=4)
    assert "is 6.2 % of its size at lag 0 in layers/1" in text  # 0.5 ** 4
    first = text.partition(" Use ")[0]
    assert set(re.findall(r"layers/(\d)", first)) == {"1", "2"}
    assert first.count("the other 7 layers lie in between") == 2


def test_units_are_dead_also_if_inputs_are_flags():
    flags = changed(dead(), input=lambda values: values > 0)
    assert re.search(SENTENCES["dead"].replace("{share}", "100%"), vanished(flags))


@pytest.mark.parametrize("level", ["full", "summary"])
def test_the_layer_of_the_longest_sequence_is_named(level):
    tree = testing.decaying(samples=SAMPLES, steps=10)
    tree["upper"] = decaying()["rnn"].copy()
    assert "upper reads has lags up to 49." in printed(reduce_tree(tree, level), dependency_length=60)


@pytest.mark.parametrize("key", SENTENCES)
def test_sentence_is_said(key, monkeypatch):
    text = PRODUCED[key](monkeypatch)
    pieces = [re.escape(piece) for piece in re.split(r"\{\w+\}", SENTENCES[key])]
    assert re.search(".*?".join(pieces), text), text


def test_nothing_is_said_that_no_measurement_can_show():
    said = " ".join(SENTENCES.values()).lower()
    for forbidden in ("cannot learn", "healthy", "will never", "unable to learn"):
        assert forbidden not in said


def test_each_remedy_has_a_source():
    remedies = {key for key in SENTENCES if key.startswith("remedy_")}
    assert set(SOURCES) == remedies


def test_a_sentence_without_its_values_is_an_error():
    with pytest.raises(KeyError):
        phrase("uses")


def test_evidence_that_a_cell_does_not_have_is_left_out():
    text = printed(changed(decaying(), attributes={"activation": "one of its own"}))
    assert "Lyapunov" not in text
    assert "spectral radius" in text


def test_few_samples_are_a_warning_as_well():
    model = Model(testing.decaying(samples=SAMPLES - 5, steps=STEPS))
    with pytest.warns(tt.ThroughTimeWarning, match="Intervals over 15 samples are rough"):
        tt.diagnose(model, model.x[:15], model.y[:15], dependency_length=8)
