"""What a run, a capture and a monitor show first, against closed forms and the run's own numbers."""

from __future__ import annotations

import math
from pathlib import Path

import nbformat
import pytest
import xarray as xr
from docs._kernels import Kernels
from nbclient import NotebookClient

import throughtime as tt
from throughtime import testing
from throughtime._monitor.levels import reduce_tree
from throughtime._monitor.overview import overview
from throughtime._store import Run
from throughtime.diagnostics.alarm import Alarm, as_attribute

RATES = (0.5, 0.6, 0.7)


def horizon(rate: float) -> str:
    """Largest lag k with rate**k at least 1 %."""
    return str(math.floor(math.log(0.01) / math.log(rate)))


@pytest.fixture(params=["summary", "timestep", "full"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> xr.DataTree:
    with Run(tmp_path / "run.zarr", attributes={"framework": "torch"}) as writer:
        for step, rate in zip((0, 10, 20), RATES, strict=True):
            tree = testing.decaying(rate, samples=16)
            writer.append(reduce_tree(tree, request.param), step)
        alarms = [Alarm("vanishing", "rnn", 0, "1e-8 times"), Alarm("nonfinite", "other", 10, "inf")]
        writer.annotate({"alarms": as_attribute(alarms)})
    return tt.open_run(tmp_path / "run.zarr")


def test_a_run_is_summarised_with_loss_horizons_and_alarms(run: xr.DataTree, tmp_path: Path) -> None:
    found = tt.summary(run)
    steps = found.history["step"].tolist()
    places = [0, 1, 2] if len(steps) == 3 else [0, 2]
    assert steps == [[0, 10, 20][place] for place in places]
    assert found.history["horizon rnn"].tolist() == [horizon(RATES[place]) for place in places]
    assert found.history["loss"].tolist() == pytest.approx(run["rnn"]["loss"].values[places])
    assert found.layers.loc[0, "horizon, steps"] == horizon(0.7)
    assert found.headline == "Little gradient reaches lag 16."
    text = str(found)
    assert f"loss {run['rnn']['loss'].values[0]:.3g} → {run['rnn']['loss'].values[-1]:.3g}" in text
    assert str(tmp_path / "run.zarr") in " ".join(text.split())
    assert "step 0: vanishing in rnn: 1e-8 times" in text
    assert "nonfinite" not in text  # of a layer that is not shown
    row = next(line for line in text.splitlines() if line.startswith("rnn"))
    assert "vanishing" in row


def test_a_notebook_shows_the_overview_first_and_the_arrays_folded(run: xr.DataTree) -> None:
    for node in (run, run["rnn"]):
        page = node._repr_html_()
        assert page.index("Little gradient reaches lag 16.") < page.index("<table>") < page.index("<details>")
        assert "hidden_gradient" in page.partition("<details>")[2]
        assert "<script" not in page


def test_a_record_that_is_not_finite_is_the_headline(tmp_path: Path) -> None:
    with Run(tmp_path / "run.zarr") as writer:
        tree = reduce_tree(testing.decaying(0.9, samples=4), "summary")
        tree["rnn"]["loss"] = tree["rnn"]["loss"] * math.nan
        writer.append(tree, 0)
    assert tt.summary(tt.open_run(tmp_path / "run.zarr")).headline == "Unstable: a number is not finite."


def test_saturation_counts_no_open_forget_gate() -> None:
    shown = overview(testing.saturated_gates(left=0.25, right=0.5)).layers
    gate, _, share = shown.loc[0, "saturation"].partition(" gate ")
    values = testing.saturated_gates(left=0.25, right=0.5)
    (leaf,) = (node for node in values.leaves if node.data_vars)
    activation = leaf["gate_activation"].sel(gate=gate)
    low, high = (-0.8, 0.8) if gate == "candidate" else (0.1, 0.9)
    counted = (activation < low) | ((activation > high) & (gate != "forget"))
    assert share == f"{float(counted.mean()):.0%}"


def test_a_capture_without_gradients_says_so() -> None:
    leaf = testing.decaying(samples=4)["rnn"].to_dataset()[["output"]]
    found = overview(xr.DataTree.from_dict({"/rnn": leaf}))
    assert found.headline == "No recurrent layer with gradients."


CELLS = (
    """
import numpy as np, torch
import throughtime as tt
torch.manual_seed(0)
model = torch.nn.GRU(2, 4, batch_first=True)
x, y = torch.rand(16, 12, 2), torch.zeros(16, 4)
loss = lambda output, y: (output[0][:, -1] - y).square().mean(1)
monitor = tt.Monitor("run.zarr", batch=(x, y), every=1, loss=loss, on_alarm=lambda alarm: None)
""",
    "monitor",
    "with monitor.watch(model):\n    for _ in range(3):\n        monitor.step()\n    display(monitor)",
    "monitor",
    "tree = tt.capture(model, x, y, loss=loss)\ntree",
    "tt.open_run('run.zarr')",
    "tt.summary(tt.open_run('run.zarr'))",
    "tt.summary(model)",
)


def test_a_notebook_has_one_view_a_cell_and_no_other_output(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(
        notebook, kernel_manager_class=Kernels, timeout=500, kernel_name="python3", resources=resources
    ).execute()
    shown = [
        [each.get("data", {}).get("text/html", each) for each in cell.outputs] for cell in notebook.cells
    ]
    assert [len(each) for each in shown] == [0, 1, 1, 1, 1, 1, 1, 1]
    pages = [page for (page,) in shown[1:]]
    assert all(page.startswith('<div class="throughtime">') and "<script" not in page for page in pages)
    assert "Not recording" in pages[0]
    assert "Recording, step 3." in pages[1]
    assert "3 records to step 2" in pages[1] or "4 records to step 3" in pages[1]
    assert "Not recording" in pages[2]
    assert "16 samples, 12 timesteps" in pages[3]
    assert "in memory" in pages[3]
    assert str(tmp_path / "run.zarr") in pages[2]
    assert "run.zarr" in pages[4]
    assert "run.zarr" in pages[5]
    assert "GRU, 4 units" in pages[6]
