"""`training` and `overview`: every line is the run's own numbers, read here in another way."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import throughtime as tt
from throughtime import plots, testing
from throughtime._monitor.levels import reduce_tree
from throughtime._store import Run
from throughtime.picture import Dots, Line, Rectangles

RATES = {0: 0.3, 10: 0.6, 50: 0.95}


@pytest.fixture(params=["summary", "timestep", "full"])
def run(request, tmp_path):
    with Run(tmp_path / "run.zarr") as made:
        for step, rate in RATES.items():
            tree = testing.decaying([rate] * 3, steps=20)
            made.append(tree if request.param == "full" else reduce_tree(tree, request.param), step)
    return tt.open_run(tmp_path / "run.zarr")


def lines(picture, label: str) -> list[np.ndarray]:
    panel = next(panel for panel in picture.panels if panel.y.label.startswith(label))
    return [dict(line.details)["value"] for line in panel.of(Line) if line.details]


def test_training_has_horizon_and_ratio_of_every_record_at_every_level(run):
    picture = plots.training(run)
    wanted = [max(lag for lag in range(20) if rate**lag >= 0.01) for rate in RATES.values()]
    np.testing.assert_array_equal(lines(picture, "memory horizon")[0], wanted)
    np.testing.assert_allclose(lines(picture, "R(8)")[0], [rate**8 for rate in RATES.values()], rtol=1e-6)
    assert picture.title == f"Memory horizon of rnn grows from {wanted[0]} to {wanted[-1]} of 19 steps"
    (line,) = next(p for p in picture.panels if p.y.label.startswith("R(8)")).of(Line)
    np.testing.assert_array_equal(line.x, list(RATES))


def test_horizon_that_returns_to_its_start_does_not_pass_for_one_that_stays(tmp_path):
    with Run(tmp_path / "run.zarr") as made:
        for step, rate in {0: 0.3, 10: 0.9, 50: 0.3}.items():
            made.append(testing.decaying([rate] * 3, steps=20), step)
    title = plots.training(tt.open_run(tmp_path / "run.zarr")).title
    assert title == "Memory horizon of rnn starts and ends at 3 of 19 steps"  # 0.3³ is 2.7 %, 0.3⁴ below 1 %


def test_records_that_are_not_finite_are_gaps_in_training(tmp_path):
    broken = xr.DataTree.from_dict({"/rnn": testing.decaying([0.6] * 3, steps=20)["rnn"].to_dataset()})
    broken["rnn"]["hidden_gradient"][:, 0] = np.nan
    broken["rnn"]["certificate_weights"] = np.inf
    with Run(tmp_path / "run.zarr") as made:
        for step, tree in enumerate((testing.decaying([0.3] * 3, steps=20), broken)):
            made.append(tree, 10 * step)
    run = tt.open_run(tmp_path / "run.zarr")
    np.testing.assert_allclose(lines(plots.training(run), "R(8)")[0], [0.3**8, np.nan], rtol=1e-6)
    with pytest.raises(tt.DiagnosticError, match="first_nonfinite"):
        plots.training(
            run.map_over_datasets(lambda leaf: leaf.isel(step=[1]) if "step" in leaf.dims else leaf)
        )


def test_the_lag_can_be_chosen_and_has_to_be_one(run):
    np.testing.assert_allclose(lines(plots.training(run, lag=3), "R(3)")[0], [r**3 for r in RATES.values()])
    with pytest.raises(tt.PictureError, match="lag"):
        plots.training(run, lag=0)


def test_training_draws_what_the_loop_passed_and_marks_alarms():
    leaf = xr.concat(
        [testing.saturated_gates(left=0.6, steps=6)["rnn"].to_dataset()] * 3,
        dim=xr.DataArray([0, 5, 9], dims="step", name="step"),
    )
    leaf["saturation_left"] = ("step", "gate"), np.full((3, 4), 0.6)
    leaf["saturation_right"] = ("step", "gate"), np.zeros((3, 4))
    root = xr.Dataset(
        {"gradient_norm": ("step", [1.0, np.nan, 300.0]), "clip_ratio": ("step", [1.0, 0.5, 0.1])},
        coords={"step": [0, 5, 9]},
        attrs={
            "alarms": json.dumps([{"name": "saturation", "layer": "rnn", "step": 5, "evidence": "0.6 shut"}])
        },
    )
    run = xr.DataTree.from_dict({"/": root, "/rnn": leaf})
    picture = plots.training(run)
    np.testing.assert_array_equal(lines(picture, "gradient norm")[0], [1.0, np.nan, 300.0])
    np.testing.assert_array_equal(lines(picture, "share left after clipping")[0], [1.0, 0.5, 0.1])
    (mark,) = picture.marks(Dots)
    assert (mark.x.tolist(), mark.label) == ([5.0], "saturation alarm")
    assert "0.6 shut" in dict(mark.details)["alarm"][0]


def test_training_needs_a_run():
    with pytest.raises(tt.PictureError, match="open_run"):
        plots.training(testing.decaying())


def two_layers() -> xr.DataTree:
    leaves = {
        "/low": testing.saturated_gates(left=0.5, right=0.25, steps=8),
        "/up": testing.decaying([0.5] * 3),
    }
    return xr.DataTree.from_dict({path: tree["rnn"].to_dataset() for path, tree in leaves.items()})


def test_overview_has_reach_teaching_and_gates_of_all_layers():
    picture = plots.overview(two_layers())
    reach, teaching, gates = picture.panels
    curves = {line.label: dict(line.details)["R"] for line in reach.of(Line) if line.details}
    np.testing.assert_allclose(curves["up"], 0.5 ** np.arange(50))
    shares = {line.label: dict(line.details)["share"] for line in teaching.of(Line) if line.details}
    np.testing.assert_allclose(shares["up"][:3], [0.5, 0.75, 0.875], rtol=1e-9)
    low, high = gates.of(Rectangles)
    assert [word for _, word in gates.y.ticks] == [
        f"low {g}" for g in ("input", "forget", "candidate", "output")
    ]
    np.testing.assert_allclose(low.boxes[1, [0, 2]], [0, 0.5])
    np.testing.assert_allclose(high.boxes[1, [0, 2]], [0.5, 0.75])


def test_overview_names_the_layer_that_reaches_least():
    leaves = {
        name: testing.decaying([rate] * 3)["rnn"].to_dataset() for name, rate in (("a", 0.9), ("b", 0.5))
    }
    title = plots.overview(xr.DataTree.from_dict({f"/{name}": leaf for name, leaf in leaves.items()})).title
    assert title == "Gradient falls below 1 % after 6 steps (b); 43 steps (a)"


@pytest.mark.parametrize("level", ["summary", "timestep"])
def test_overview_of_a_run_leaves_out_what_its_level_does_not_keep(tmp_path, level):
    with Run(tmp_path / "run.zarr") as made:
        made.append(reduce_tree(testing.saturated_gates(left=0.5, steps=8, samples=3), level), 7)
    picture = plots.overview(tt.open_run(tmp_path / "run.zarr"))
    names = [panel.title for panel in picture.panels]
    assert "reach" in names
    assert "gates" in names
    assert ("teaching" in names) is (level == "timestep")
    assert "step 7" in f"{picture.title} {picture.subtitle}"


def test_overview_without_gradients_names_the_call():
    leaf = testing.decaying()["rnn"].to_dataset()[["hidden"]]
    with pytest.raises(tt.SchemaError, match="capture"):
        plots.overview(leaf)
