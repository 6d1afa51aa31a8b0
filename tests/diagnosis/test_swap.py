"""The prefix swap: which inputs are exchanged, with whom, and what is made of the losses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime._inputs.batch import Batch
from throughtime.diagnosis.layers import anchors
from throughtime.diagnosis.swap import (
    Leaves,
    Reading,
    ages,
    losses_with_shared_inputs,
    passes,
    predicts_at_steps,
    prefix_swap,
)
from throughtime.diagnosis.use import largest_used, pool, use, use_curve
from throughtime.diagnostics.statistics import interval

FORWARD, BACKWARD = frozenset({"forward"}), frozenset({"backward"})
BOTH = FORWARD | BACKWARD


def everything(samples, steps):
    return np.ones((samples, steps), bool)


class Weighing:
    """Loss of a model that reads a weighted sum of its inputs: (Σ w_t x_t − y)²."""

    def __init__(self, weights):
        self.weights, self.calls = np.asarray(weights, float), 0

    def losses(self, x, y, *, sample_weight, step):
        self.calls += 1
        return (x @ self.weights - y) ** 2


def swapped(weights, lags, *, samples=64, ways=FORWARD, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, len(weights)))
    y = x @ np.asarray(weights, float) + noise * rng.normal(size=samples)
    losing = Weighing(weights)
    reading = Reading(everything(samples, len(weights)), ways)
    return prefix_swap(losing, Batch(x, y, None, ""), reading, lags, seed=seed), losing


def test_age_counts_valid_steps_back_from_the_last():
    valid = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], bool)
    assert ages(Reading(valid, FORWARD), None).tolist() == [[2, 1, -1, 0, -1], [4, 3, 2, 1, 0]]
    assert ages(Reading(valid, BACKWARD), None).tolist() == [[0, 1, -1, 2, -1], [0, 1, 2, 3, 4]]


def test_age_in_both_directions_is_the_distance_from_the_nearer_end():
    assert ages(Reading(everything(1, 5), BOTH), None).tolist() == [[0, 1, 2, 1, 0]]


def test_age_before_an_anchor_counts_from_there():
    reading = Reading(everything(1, 5), FORWARD)
    assert ages(reading, 2).tolist() == [[2, 1, 0, -1, -1]]
    assert ages(Reading(everything(1, 5), BACKWARD), 2).tolist() == [[-1, -1, 0, 1, 2]]
    assert ages(Reading(everything(1, 5), BOTH), 2).tolist() == [[2, 1, 0, 1, 2]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=12), st.integers(0, 2**16))
def test_partners_share_the_mask_and_are_others(lengths, seed):
    valid = np.arange(6) < np.array(lengths)[:, None]
    samples = len(lengths)
    x = np.arange(samples)[:, None] * np.ones(6)  # every input tells whose it is

    class Watching:
        def losses(self, x, y, *, sample_weight, step):
            taken = x[np.arange(samples), 0]
            for own, other in enumerate(taken.astype(int)):
                if lengths[own] > 1 and lengths.count(lengths[own]) > 1 and self.calls >= 3:
                    assert other != own
                assert lengths[other] == lengths[own]
            self.calls += 1
            return np.zeros(samples)

        calls = 0  # the first three are with own inputs, with those of every second sample, with own

    found = prefix_swap(
        Watching(), Batch(x, np.zeros(samples), None, ""), Reading(valid, FORWARD), [], seed=seed
    )
    alone = sum(lengths.count(length) == 1 for length in lengths if length)
    assert found.reason or found.without_partner == alone


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=4, max_size=16), st.integers(0, 2**16))
def test_the_parts_of_the_samples_have_the_mean_of_what_they_lose(lengths, seed):
    valid = np.arange(6) < np.array(lengths)[:, None]
    x = np.random.default_rng(seed).normal(size=valid.shape) * valid

    class Summing:
        seen = ()

        def losses(self, x, y, *, sample_weight, step):
            self.seen = (*self.seen, (x.sum(axis=1) - y) ** 2)
            return self.seen[-1]

    losing = Summing()
    reading = Reading(valid, FORWARD)
    found = prefix_swap(losing, Batch(x, np.zeros(len(x)), None, ""), reading, [], seed=seed)
    if found.reason:
        return
    paired = np.isfinite(found.changes[:, 0])
    assert paired.sum() == len(x) - found.without_partner
    rise = np.mean([after[paired] - losing.seen[0][paired] for after in losing.seen[3:]])
    assert found.changes[paired, 0].mean() == pytest.approx(rise, abs=1e-12)


def test_only_inputs_old_enough_matter():
    found, _ = swapped([0, 0, 1, 0, 0, 0], [1, 2, 3, 4, 5])
    answers = [use(found, lag, seed=0).answer for lag in (1, 2, 3, 4, 5)]
    assert answers == ["yes", "yes", "yes", "no", "no"], "the third input is 3 steps old"
    assert use(found, 4, seed=0).value == 0.0
    assert use(found, 3, seed=0).value == pytest.approx(1.0)


def test_backward_and_both_directions_have_other_ends():
    found, _ = swapped([0, 1, 0, 0, 0, 0], [1, 2, 4], ways=BACKWARD)
    assert [use(found, lag, seed=0).answer for lag in (1, 2, 4)] == ["yes", "no", "no"]
    found, _ = swapped([1, 0, 0, 0, 0, 0], [1, 2], ways=BOTH)
    assert use(found, 1, seed=0).answer == "no"
    found, _ = swapped([0, 0, 1, 0, 0, 0], [1, 2], ways=BOTH)
    assert use(found, 2, seed=0).answer == "yes"


def test_half_of_what_matters_is_half_of_the_use():
    found, _ = swapped([1, 0, 0, 0, 0, 1], [3], samples=4000)
    assert use(found, 3, seed=0).value == pytest.approx(0.5, abs=0.05)


def test_the_cost_is_as_told():
    found, losing = swapped([1, 0, 0], [1, 2])
    assert losing.calls == passes([1, 2], [])
    assert found.lags == (0, 1, 2)


def test_inputs_that_do_not_pay_are_denied_relative_to_the_loss():
    found, _ = swapped([1e-6, 0, 0], [1], noise=1.0)
    answer = use(found, 1, seed=0)
    assert answer.answer == "no"
    assert abs(answer.value) < 1e-3


def test_a_gain_below_a_hundredth_of_the_loss_is_no_use_however_sure():
    found, _ = swapped([0.06, 0, 0], [1], samples=16000, noise=1.0)
    low, _ = interval(np.mean, found.changes[:, 0], seed=0)
    assert low > 0, "the inputs pay, less than one percent of the loss"
    assert use(found, 1, seed=0).answer == "no"


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_model_that_mixes_samples_is_not_measured(share):
    """Each sample is predicted from its own inputs and, by `share`, from those of the sample before."""

    class Mixing:
        def losses(self, x, y, *, sample_weight, step):
            given = x.sum(1)
            return ((1 - share) * given + share * np.roll(given, 1) - y) ** 2

    x = np.random.default_rng(0).normal(size=(32, 4))
    found = prefix_swap(
        Mixing(), Batch(x, x.sum(1) + 0.1, None, ""), Reading(everything(32, 4), FORWARD), [1], seed=0
    )
    assert ("inputs of other samples" in found.reason) == (share > 0)


@pytest.mark.parametrize("lag", [1, 2, 3])
def test_a_constant_in_the_loss_does_not_change_use(lag):
    """The oracle is the share of the variance of what the inputs contribute."""
    weights = np.array([0.0, 2.0, 0.0, 1.0])
    found, _ = swapped(weights, [1, 2, 3], noise=0.3, samples=400)
    share = (weights[: len(weights) - lag] ** 2).sum() / (weights**2).sum()
    for constant in (0.0, 1e2, 1e4, 1e6):
        answer = use(replace(found, before=found.before + constant), lag, seed=0)
        assert answer.answer == ("yes" if share > 0 else "no")
        assert answer.value == pytest.approx(share, abs=0.05)


def test_predictions_of_chance_do_not_pay_whatever_their_size():
    """Losses of 64 samples with ten classes, whose logits have nothing to do with the labels."""
    for size in (1e-3, 0.03, 0.3, 3.0):
        paid = []
        for seed in range(100):
            rng = np.random.default_rng(seed)
            x, y = rng.normal(0, size, (64, 10)), rng.integers(0, 10, 64)

            class Classes:
                def losses(self, x, y, *, sample_weight, step):
                    return np.log(np.exp(x).sum(1)) - x[np.arange(len(y)), y]

            found = prefix_swap(
                Classes(), Batch(x, y, None, ""), Reading(everything(64, 10), FORWARD), [1], seed=seed
            )
            low, _ = interval(np.mean, found.changes[:, 0], seed=seed)
            paid.append(low > np.std(found.before))
        assert not any(paid), size


@pytest.mark.parametrize("lengths", [[6] * 5, [6, 4, 6, 4, 4, 2]])
def test_shared_inputs_are_those_of_one_sample_of_the_mask(lengths):
    valid = np.arange(6) < np.array(lengths)[:, None]
    x = np.arange(len(lengths))[:, None] * valid + 1.0 * valid

    class Watching:
        def losses(self, x, y, *, sample_weight, step):
            for length in set(lengths):
                those = x[np.array(lengths) == length]
                assert (those == those[0]).all()
                assert (those[0] > 0).sum() == length
            return x[:, 0]

    batch = Batch(x, np.zeros(len(lengths)), None, "")
    drawn = losses_with_shared_inputs(Watching(), batch, Reading(valid, FORWARD), seed=0)
    assert drawn.shape[1] == len(lengths)
    assert len(np.unique(drawn[:, 0])) > 1, "one sample after another"


def asked_of_noise(weight, gain, *, samples, seed):
    """Ask of a model whose loss is that of a constant, plus `weight**2 - 2 * gain * weight`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, 4))
    y, reading = gain * x[:, 0] + rng.normal(size=samples), Reading(everything(samples, 4), FORWARD)
    losing, batch = Weighing([weight, 0, 0, 0]), Batch(x, y, None, "")
    found = prefix_swap(losing, batch, reading, [2], seed=seed)
    return use(
        replace(found, shared=losses_with_shared_inputs(losing, batch, reading, seed=seed)), 2, seed=seed
    )


def test_a_model_that_does_worse_than_with_the_same_inputs_for_all_uses_none():
    answer = asked_of_noise(2.0, 0.0, samples=64, seed=0)
    assert answer.answer == "no"
    assert answer.interval[1] > 0.01, "the exchange alone does not decide"
    assert "if all samples get the same inputs" in answer.reason


def test_a_model_as_good_as_a_constant_is_rarely_called_worse():
    harmed = ["same inputs" in asked_of_noise(0.6, 0.3, samples=32, seed=seed).reason for seed in range(200)]
    assert np.mean(harmed) <= 0.05


def test_the_largest_lag_in_use_is_below_the_first_doubt():
    found, _ = swapped([0, 0, 1, 0, 0, 0, 0, 0], [1, 2, 4])
    curve = use_curve(found, seed=0)
    assert curve["answer"].values.tolist() == ["yes", "yes", "yes"]
    assert largest_used(curve) == 4


def test_batches_are_pooled_and_a_failed_one_hides_none():
    one, _ = swapped([1, 0, 0], [1], seed=0)
    other, _ = swapped([1, 0, 0], [1], seed=1)
    single, _ = swapped([1, 0, 0], [1], samples=1)
    assert single.reason
    together = pool([one, single, other])
    assert together.changes.shape == (128, 2)
    assert pool([single]).reason == single.reason


@pytest.mark.parametrize("kind", ["dict", "integers", "tuple", "steps first"])
def test_structures_keep_their_form_and_their_static_parts(kind):
    steps = np.arange(12.0).reshape(3, 4)
    static = np.arange(3.0)[:, None]
    x = {
        "dict": {"sequence": steps, "static": static},
        "integers": steps.astype(int),
        "tuple": (steps, static),
        "steps first": steps.T[..., None].copy(),
    }[kind]
    before = repr(x)
    partner, old = np.array([1, 2, 0]), np.arange(4) < 2
    leaves = Leaves(x, Reading(everything(3, 4), FORWARD))
    assert leaves.has_time
    assert leaves.are_all == (kind not in ("dict", "tuple"))
    found = leaves.exchange(partner, np.tile(old, (3, 1)))
    assert type(found) is type(x)
    sequence = {"dict": lambda: found["sequence"], "tuple": lambda: found[0]}.get(kind, lambda: found)()
    if kind == "steps first":
        sequence = sequence[..., 0].T
    expected = np.where(old, steps[partner], steps)
    np.testing.assert_array_equal(sequence, expected)
    assert sequence.dtype == (int if kind == "integers" else float)
    if kind in ("dict", "tuple"):
        np.testing.assert_array_equal(found["static"] if kind == "dict" else found[1], static)
    assert repr(x) == before


def test_inputs_without_the_layers_time_are_told():
    reading = Reading(everything(3, 7), FORWARD)
    batch = Batch(np.zeros((3, 4)), np.zeros(3), None, "")
    found = prefix_swap(Weighing(np.zeros(4)), batch, reading, [1], seed=0)
    assert "has the 7 steps" in found.reason


@pytest.mark.parametrize(("mixed", "expected"), [(0.0, True), (0.01, False)])
@pytest.mark.parametrize("time_first", [False, True])
def test_labels_at_steps_are_those_that_the_newest_input_cannot_change(mixed, expected, time_first):
    """Each label is predicted from the input of its step, and from `mixed` of the newest one."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 6)), rng.normal(size=(32, 6))

    class Tagging:
        def losses(self, x, y, *, sample_weight, step):
            return ((x + mixed * x[:, -1:] - (y.T if time_first else y)) ** 2).mean(1)

    batch = Batch(x, y.T if time_first else y, None, "")
    assert predicts_at_steps(Tagging(), batch, Reading(everything(32, 6), FORWARD), seed=0) == expected


@pytest.mark.parametrize("ways", [FORWARD, BACKWARD])
@pytest.mark.parametrize("follows", [FORWARD, BACKWARD])
def test_labels_of_a_causal_model_are_at_steps_in_the_order_in_which_it_reads(ways, follows):
    """Each label is predicted from the sum of all inputs that are read until its step."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 6)), rng.normal(size=(32, 6))

    class Summing:
        def losses(self, x, y, *, sample_weight, step):
            order = slice(None, None, -1 if follows == BACKWARD else 1)
            return ((x[:, order].cumsum(1)[:, order] - y) ** 2).mean(1)

    batch, reading = Batch(x, y, None, ""), Reading(everything(32, 6), ways)
    assert predicts_at_steps(Summing(), batch, reading, seed=0) == (ways == follows)


@pytest.mark.parametrize(("size", "too_wide"), [(2, np.sqrt(2)), (48, 1.0)])
def test_the_spread_of_a_rise_over_data_sets_is_what_its_samples_claim(size, too_wide):
    """Samples share their mask with `size` - 1 others; the oracle is the spread over many data sets."""
    samples, weights = 48, np.array([1.0, 0.3, 0.0, 0.5])
    places = 1 + np.arange(samples) // size
    valid = np.concatenate([(places[:, None] >> np.arange(6)) & 1, np.ones((samples, 4))], axis=1) > 0
    rises, claimed = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        x = np.concatenate([np.zeros((samples, 6)), rng.normal(size=(samples, 4))], axis=1)
        y = x[:, 6:] @ weights + 0.3 * rng.normal(size=samples)
        losing, reading = Weighing([0.0] * 6 + [*weights]), Reading(valid, FORWARD)
        changes = prefix_swap(losing, Batch(x, y, None, ""), reading, [2], seed=seed).changes[:, 1]
        rises.append(changes.mean())
        claimed.append(changes.var() / samples)
    assert np.mean(rises) == pytest.approx(2 * (1 + 0.3**2), rel=0.1), (
        "twice the variance of what is exchanged"
    )
    assert np.sqrt(np.mean(claimed)) == pytest.approx(too_wide * np.std(rises), rel=0.15)


@pytest.mark.parametrize(
    ("ways", "weighted", "lag", "expected"),
    [
        (FORWARD, range(12), 0, {6, 8, 9, 11}),
        (FORWARD, range(12), 9, {9, 10, 11}),
        (FORWARD, [2, 3, 5], 0, {3, 5}),
        (FORWARD, [2, 3, 5], 4, {5}),
        (FORWARD, [2, 3, 5], 9, {5}),
        (BACKWARD, [2, 3, 5], 0, {2, 3}),
        (BOTH, [1, 2, 3, 5], 0, {2, 3}),
        (FORWARD, [], 3, set()),
    ],
)
def test_losses_are_evaluated_at_steps_with_weight_only(ways, weighted, lag, expected):
    counted = np.isin(np.arange(12), list(weighted)) & everything(4, 12)
    assert set(anchors(Reading(everything(4, 12), ways, counted=counted), 4, lag)) == expected


@pytest.mark.parametrize("columns", [False, True])
def test_labels_as_many_as_steps_are_at_steps_unless_the_newest_input_counts_for_all(columns):
    """Each label is predicted from the input of its step, or from the mean of all inputs."""
    rng = np.random.default_rng(0)
    x, y, other = rng.normal(size=(32, 6)), rng.normal(size=(32, 6)), rng.normal(size=32)

    class Two:
        def losses(self, x, y, *, sample_weight, step):
            predicted = x.mean(1, keepdims=True) * np.ones(6) if columns else x
            return ((predicted - y["many"]) ** 2).mean(1) + (x[:, -1] - y["one"]) ** 2

    batch, reading = Batch(x, {"one": other, "many": y}, None, ""), Reading(everything(32, 6), FORWARD)
    asked = {"seed": 0, "label": 1, "otherwise": True}
    assert predicts_at_steps(Two(), batch, reading, **asked) is not columns
    assert batch.y["many"] is y
