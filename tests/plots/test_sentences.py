"""Titles are findings: each number in one is computed again here, from the capture, in another way."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr
from tests.plots.trees import TREES, heading, with_steps

from throughtime import plots, testing
from throughtime.picture._drawing.scale import number
from throughtime.picture._render.alt import alt
from throughtime.plots import sentences

NOTHING = re.compile(r"^(lag profile|step contributions|gates|weights|spectrum|gradient flow|\|dL|dL)")


def per_step(tree: xr.DataTree) -> np.ndarray:
    """Norm over units, (sample, time)."""
    return np.linalg.norm(tree["rnn"]["hidden_gradient"].values, axis=-1)


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.79])
def test_lag_profile_names_the_last_lag_with_one_percent(rate):
    title = plots.lag_profile(testing.decaying([rate] * 3, steps=60)).title
    wanted = sum(rate**lag >= 0.01 for lag in range(1, 60))
    assert title == f"Gradient of rnn falls below 1 % after {wanted} steps"


def test_lag_profile_of_a_gradient_that_arrives_tells_what_is_left():
    title = plots.lag_profile(testing.decaying([0.95] * 3, steps=40)).title
    assert title == f"Gradient of rnn reaches all 39 steps back, R(39) = {0.95**39:.3g}"


def test_each_direction_is_named_where_they_differ():
    title = plots.lag_profile(testing.bidirectional((0.1, 0.9), samples=3, steps=20)).title
    assert title.startswith(
        "Gradient of rnn falls below 1 % after 2 steps (forward); reaches all 19 steps back"
    )
    assert title.endswith("(backward)")


def test_a_sum_over_many_steps_does_not_pass_for_reach():
    tree = testing.lag_matrix_of(0.5, samples=3, steps=20)
    leaf = tree["rnn"].to_dataset().drop_vars("lag_matrix")
    alone = plots.lag_profile(leaf)
    assert alone.title == "Gradient of rnn falls below 1 % after 6 steps"
    assert "error of the last step alone" in alone.subtitle
    unsolvable = leaf.drop_vars(["input", "kernel"])
    assert "does not show how far it reaches" in plots.lag_profile(unsolvable).title


def test_lag_matrix_names_how_far_back_the_loss_looks():
    title = plots.lag_matrix(testing.lag_matrix_of(0.5, samples=3, steps=20)).title
    assert title == "Influence of earlier states of rnn falls below 1 % after 6 steps"


@pytest.mark.parametrize("name", ["heatmap", "lines"])
@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_timesteps_named_hold_the_share_and_fewer_do_not(name, rate):
    tree = testing.decaying([rate, rate, 0.3], steps=40)
    title = getattr(plots, name)(tree).title
    told = re.fullmatch(
        r"90 % of the hidden gradient of rnn lies in (\d+) of 40 timesteps, (\d+)(?: to (\d+))?", title
    )
    length, first, last = (int(part or told[2]) for part in told.groups())
    shares = (per_step(tree) / per_step(tree).sum(axis=1, keepdims=True)).mean(axis=0)
    assert last - first + 1 == length
    assert shares[first : last + 1].sum() >= 0.9 - 1e-9
    assert max(shares[start : start + length - 1].sum() for start in range(40)) < 0.9


def test_broken_values_are_counted_and_placed():
    tree = testing.nonfinite("hidden_gradient", sample=0, time=7, unit=2)
    values = tree["rnn"]["hidden_gradient"].values
    wrong = ~np.isfinite(values)
    steps = np.flatnonzero(wrong.any(axis=(0, 2)))
    title = plots.heatmap(tree).title
    assert title.endswith(f"of its values, at {steps.size} of 20 timesteps, {steps.min()} to {steps.max()}")
    assert float(re.search(r"in ([\d.]+) %", title)[1]) == pytest.approx(100 * wrong.mean(), rel=0.5)


def test_nothing_but_zeros_is_said():
    leaf = testing.decaying()["rnn"].to_dataset()
    leaf["hidden_gradient"] = xr.zeros_like(leaf["hidden_gradient"])
    assert plots.heatmap(leaf).title == "Hidden gradient of rnn is exactly 0 everywhere"


@pytest.mark.parametrize("name", ["compare", "contributions", "gradient_flow", "lag_profile", "overview"])
@pytest.mark.parametrize(("kind", "why"), [("all NaN", "NaN or ∞|not finite"), ("all zero", " 0 ")])
def test_a_plot_without_curves_says_why(name, kind, why):
    tree = TREES[kind]()
    draw = getattr(plots, name)
    assert re.search(why, heading(draw(tree, tree) if name == "compare" else draw(tree)))


def test_masked_steps_are_neither_broken_nor_counted():
    tree = testing.with_masks([20, 5], steps=20)
    title = plots.heatmap(tree).title
    norms = per_step(tree) * tree["rnn"]["valid"].values
    shares = (norms / norms.sum(axis=1, keepdims=True)).mean(axis=0)
    first, last = map(int, re.search(r", (\d+) to (\d+)$", title).groups())
    assert shares[first : last + 1].sum() >= 0.9 - 1e-9


@pytest.mark.parametrize(("rate", "wanted"), [(0.5, 4), (0.9, 17)])
def test_contributions_name_the_steps_that_teach(rate, wanted):
    tree = testing.decaying([rate, rate], steps=30)
    sizes = tree["rnn"]["step_contribution"].values[0][::-1]
    counted = int(np.searchsorted(np.cumsum(sizes) / sizes.sum(), 0.9 - 1e-12)) + 1
    assert counted == wanted or rate == 0.9
    assert plots.contributions(tree).title == (
        f"90 % of the step contribution of rnn lies in {counted} of 30 timesteps, {30 - counted} to 29"
    )


def test_gates_name_the_one_that_is_saturated_most():
    tree = testing.saturated_gates(left=0.5, right=0.25, steps=8)
    values = tree["rnn"]["gate_activation"]
    shares = {}
    for gate in values["gate"].values:
        part = values.sel(gate=gate).values
        part = (part + 1) / 2 if gate == "candidate" else part
        shares[str(gate)] = ((part < 0.1) | (part > 0.9)).mean()
    gate, share = max(shares.items(), key=lambda item: item[1])
    assert plots.gates(tree).title.startswith(f"{gate.capitalize()} gate: {100 * share:.0f} % saturated")
    assert plots.gates(testing.constant_gates(0.5)).title.startswith(
        "Less than 1 % of the values of every gate are saturated"
    )


def test_gradient_flow_names_the_layers_that_it_does_not_arrive_in():
    leaves = {
        f"/{name}": testing.decaying(rate, steps=30)["rnn"].to_dataset()
        for name, rate in (("low", 0.99), ("up", 0.5))
    }
    title = plots.gradient_flow(xr.DataTree.from_dict(leaves)).title
    assert title == "Less than 1 % of the peak gradient arrives at the first step: up"
    whole = plots.gradient_flow(xr.DataTree.from_dict({"/low": leaves["/low"]})).title
    assert whole == f"Gradient arrives at the first step of low: {100 * 0.99**29:.0f} % of its peak"
    pooled = testing.lag_matrix_of(0.99, samples=3, steps=20)
    assert plots.gradient_flow(pooled).title.startswith("gradient flow"), "a sum shows no reach"


def test_evolution_compares_the_far_end_of_the_first_and_the_last_record():
    run = with_steps()
    title = plots.evolution(run).title
    far = 0.9**19 / 0.3**19
    grown = float(re.search(r"grows ([\d.]+)·10(\S+)-fold at timestep 0 \(forward\)", title)[1])
    assert grown == pytest.approx(far / 10 ** np.floor(np.log10(far)), rel=0.05)
    assert title.endswith("stays about the same at timestep 19 (backward)")
    leaves = [testing.decaying(rate, steps=4)["rnn"].to_dataset() for rate in (0.5, 2.0, 0.5)]
    steps = xr.DataArray([0, 10, 200], dims="step", name="step")
    title = plots.evolution(xr.concat(leaves, dim=steps)).title
    assert title.endswith("stays about the same at timestep 0, with its peak at training step 10")
    leaves = [testing.decaying(rate, steps=30)["rnn"].to_dataset() for rate in (0.3, 0.99, 0.3)]
    assert "below the numerical floor" not in plots.evolution(xr.concat(leaves, dim=steps)).title


def test_evolution_names_the_record_that_is_not_finite_and_the_quantity():
    leaves = [testing.decaying(0.5, steps=4)["rnn"].to_dataset() for _ in range(3)]
    leaves[1]["hidden_gradient"] = leaves[1]["hidden_gradient"].copy()
    leaves[1]["hidden_gradient"][:, :2] = np.nan
    run = xr.concat(leaves, dim=xr.DataArray([0, 10, 200], dims="step", name="step"))
    assert plots.evolution(run).title == (
        "Hidden gradient of rnn is NaN or infinite, first at training step 10"
    )
    assert plots.evolution(run, "hidden").title.startswith("Hidden state of rnn")


def test_histogram_names_what_is_not_finite_magnitudes_and_no_order_among_equals():
    tree = testing.nonfinite("hidden_gradient", sample=0, time=7, unit=2)
    wrong = ~np.isfinite(tree["rnn"]["hidden_gradient"].values)
    title = plots.histogram(tree).title
    assert title.endswith("% of |dL/dhₜ| of rnn are NaN or infinite")
    assert float(title.partition(" ")[0]) == pytest.approx(100 * wrong.mean(), rel=0.5)
    fading = testing.bidirectional((0.5, 0.99), samples=3, steps=30)["rnn"]
    for scale in ("linear", "log10"):
        values = np.abs(fading["hidden_gradient"].sel(direction="forward").values)
        low, high = np.quantile(values, (0.25, 0.75))
        title = plots.histogram(fading["hidden_gradient"].sel(direction="forward"), scale=scale).title
        assert title == f"The middle half of |dL/dhₜ| lies between {number(low)} and {number(high)}"
    assert plots.histogram(testing.decaying(0.5, units=3), by="unit").title.startswith("|dL/dhₜ| · rnn")
    assert "largest in timestep 49 (" in plots.histogram(testing.decaying(0.5), by="time").title


def test_weights_and_spectrum_name_their_largest():
    tree = testing.decaying(rate=0.5, units=3)
    norm = np.linalg.norm(tree["rnn"]["recurrent_kernel"].values)
    assert plots.weights(tree).title == f"Weights of rnn: ‖U‖ is {norm:.3g}"
    told = plots.spectrum(tree)
    assert told.title == f"Neighbouring states of rnn approach each other, λ₁ = −{-np.log(0.5):.3g} per step"
    assert plots.spectrum(tree, samples=0).title.startswith("Largest spectral radius: 0.5")


def test_histogram_gives_quartiles_or_the_groups_that_differ_most():
    tree = testing.bidirectional((0.5, 0.99), samples=3, steps=30)
    values = np.abs(tree["rnn"]["hidden_gradient"])
    title = plots.histogram(tree).title
    medians = [float(np.median(values.sel(direction=each))) for each in ("forward", "backward")]
    assert title.startswith("Median |dL/dhₜ| is largest in backward (")
    assert f"{medians[1]:.3g}" in title
    one = plots.histogram(tree["rnn"]["hidden"]).title
    assert NOTHING.match(one) or "lies between" not in one


def test_alternative_text_begins_with_the_title_and_no_name_with_a_slash():
    tree = with_steps()
    for draw in (plots.heatmap, plots.lag_profile, plots.evolution, plots.gradient_flow, plots.weights):
        picture = draw(tree)
        assert alt(picture).startswith(". ".join(filter(None, (picture.title, picture.subtitle))))
        assert "/rnn" not in alt(picture)


def test_a_title_of_the_callers_stands_alone():
    picture = plots.heatmap(testing.decaying(), title="mine")
    assert (picture.title, picture.subtitle) == ("mine", "")


@pytest.mark.parametrize("share", [0.0, 1e-9, 0.004, 0.0099, 0.01, 0.5, 0.994, 0.9999, 1.0])
def test_percentages_are_not_rounded_to_none_or_all(share):
    words = sentences.percent(share)
    assert (words == "0 %") == (share == 0)
    assert (words == "100 %") == (share == 1)
