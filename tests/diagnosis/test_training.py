"""A run's diagnosis says at each step what a capture of that step says, at every level as far as it goes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import throughtime as tt
from throughtime import testing
from throughtime._monitor.levels import reduce_tree
from throughtime._store import Run
from throughtime.diagnosis.training import MOST_RECORDS

RATES = {0: 0.4, 10: 0.7, 200: 0.95}
LAG = 6


def captured(rate):
    rng = np.random.default_rng(0)
    rates = rate + 0.04 * (rng.random(20) - 0.5)  # samples that differ have intervals
    return testing.decaying(rates, steps=40)


def recorded(path, trees, level="full"):
    with Run(path / "run.zarr") as run:
        for step, tree in trees.items():
            run.append(reduce_tree(tree, level), step)
    return tt.open_run(path / "run.zarr")


@pytest.fixture(params=["full", "timestep"])
def with_samples(request, tmp_path):
    return recorded(tmp_path, {step: captured(rate) for step, rate in RATES.items()}, request.param)


def test_each_record_is_diagnosed_as_a_capture_of_that_step(with_samples):
    found = tt.diagnose(with_samples, dependency_length=LAG)
    assert [record.step for record in found.history.records] == list(RATES)
    for record, rate in zip(found.history.records, RATES.values(), strict=True):
        alone = tt.diagnose(captured(rate), dependency_length=LAG)
        for question in ("reach", "share"):
            one, wanted = (getattr(each.layers["rnn"], question) for each in (record, alone))
            assert (one.answer, one.n) == (wanted.answer, wanted.n)
            np.testing.assert_allclose((one.value, *one.interval), (wanted.value, *wanted.interval))
        assert record.layers["rnn"].horizon == alone.layers["rnn"].horizon
        assert record.layers["rnn"].horizon_interval == alone.layers["rnn"].horizon_interval
        assert abs(record.layers["rnn"].reach.value - rate**LAG) < 0.1 * rate**LAG
        assert record.loss == pytest.approx(alone.loss)
        assert record.layers["rnn"].use.answer == "not measured"


def test_the_verdict_is_that_of_the_last_step_and_the_trend_is_told(with_samples):
    found = tt.diagnose(with_samples, dependency_length=LAG)
    last = tt.diagnose(captured(RATES[200]), dependency_length=LAG)
    assert (found.step, found.history.recorded, found.verdict, found.text) == (
        200,
        3,
        last.verdict,
        last.text,
    )
    assert found.history.trend[0].startswith("Reach of rnn at lag 6 has risen since step 0, from 0.00")
    assert "During training, 3 of 3 recorded steps:" in str(found)
    assert "During training, 3 of 3 recorded steps:" in found._repr_html_()
    json.dumps(found.to_dict(), allow_nan=False)
    frame = found.history.to_dataframe()
    assert frame.query("question == 'horizon'")["value"].is_monotonic_increasing
    assert frame.query("question == 'use'")["answer"].unique().tolist() == ["not measured"]


def test_a_step_is_chosen(with_samples):
    found = tt.diagnose(with_samples, dependency_length=LAG, step=10)
    assert found.text == tt.diagnose(captured(RATES[10]), dependency_length=LAG).text
    with pytest.raises(tt.SchemaError, match="Step 11 was not recorded; the nearest is 10, of 3"):
        tt.diagnose(with_samples, step=11)


def test_intervals_that_overlap_are_no_change(tmp_path):
    run = recorded(tmp_path, {0: captured(0.9), 5: captured(0.9)})
    assert "the intervals overlap, so a change is not certain" in " ".join(str(tt.diagnose(run)).split())


@pytest.mark.parametrize("path", ["rnn", "rnn[forward]"])
def test_a_summary_gives_reach_with_its_interval_and_says_what_would_give_more(tmp_path, path):
    trees = {step: captured(rate) for step, rate in RATES.items()}
    if path != "rnn":
        trees = {step: testing.bidirectional((rate, 0.5), samples=3) for step, rate in RATES.items()}
    found = tt.diagnose(recorded(tmp_path, trees, "summary"), dependency_length=LAG)
    assert found.verdict == "cannot_say"
    for record, tree in zip(found.history.records, trees.values(), strict=True):
        alone, layer = tt.diagnose(tree, dependency_length=LAG).layers[path], record.layers[path]
        assert (layer.reach.value, *layer.reach.interval) == pytest.approx(
            (alone.reach.value, *alone.reach.interval)
        )
        assert (layer.reach.answer, layer.reach.n) == (alone.reach.answer, alone.reach.n)
        assert layer.horizon == alone.horizon  # every sample has the same length
        low, high = layer.horizon_interval
        assert low <= (np.inf if layer.horizon.startswith("≥") else float(layer.horizon)) <= high
        assert (layer.share.answer, "quantities='timestep'" in layer.share.reason) == ("not measured", True)
    rate = next(each for each in found.layers[path].why if each.name == "decay_rate").value
    assert rate == pytest.approx(np.log(RATES[200]), abs=0.01)
    assert f"Reach of {path} at lag 6 has risen since step 0" in str(found)
    assert found.text.startswith("At lag 6 the gradient is ")
    horizon = f"{found.layers[path].horizon} in {path}"
    assert f"The largest lag with at least 1 % of the gradient at lag 0 is {horizon}" in found.text
    assert found.text.endswith("diagnose(model, x, y, dependency_length=6) measures it.")
    beyond = tt.diagnose(tt.open_run(tmp_path / "run.zarr"), step=0, dependency_length=60)
    assert "Only longer sequences can show lag 60" in beyond.text


@pytest.mark.parametrize("level", ["summary", "timestep", "full"])
def test_a_record_taken_out_of_its_run_is_diagnosed_alike(tmp_path, level):
    run = recorded(tmp_path, {step: captured(rate) for step, rate in RATES.items()}, level)
    alone = run.isel(step=1)
    assert str(tt.diagnose(alone, dependency_length=LAG)) == str(
        tt.diagnose(run, step=10, dependency_length=LAG)
    )


def test_a_masked_batch_by_timestep(tmp_path):
    tree = testing.with_masks()
    found = tt.diagnose(recorded(tmp_path, {0: tree, 1: tree}, "timestep"))
    alone = tt.diagnose(tree)
    assert found.layers["rnn"].reach == alone.layers["rnn"].reach
    assert found.layers["rnn"].horizon == alone.layers["rnn"].horizon


@pytest.mark.parametrize("level", ["full", "summary"])
def test_a_record_that_is_not_finite_tells_nothing_and_hides_no_other(tmp_path, level):
    good = testing.constant_gates(samples=3, steps=12)
    broken = good.copy(deep=True)
    broken["rnn"]["recurrent_kernel"][:] = np.nan
    found = tt.diagnose(recorded(tmp_path, {0: good, 7: broken}, level))
    assert found.verdict == "unstable"
    assert [bool(record.stopped) for record in found.history.records] == [False, True]
    assert "1 of these records could not be judged, the first at step 7" in str(found)


def test_alarms_of_the_run_are_told(tmp_path):
    from throughtime.diagnostics.alarm import Alarm, as_attribute

    recorded(tmp_path, {0: captured(0.5)})
    with Run(tmp_path / "run.zarr") as run:
        run.annotate({"alarms": as_attribute([Alarm("explosion", "rnn", 3, "12 times")])})
    assert "Alarm during training, step 3: explosion in rnn: 12 times." in str(
        tt.diagnose(tt.open_run(tmp_path / "run.zarr"))
    )


def test_many_records_are_looked_at_evenly():
    leaf = reduce_tree(captured(0.8), "summary")["rnn"].to_dataset()
    steps = xr.DataArray(np.arange(400), dims="step", name="step")
    run = xr.DataTree.from_dict({"/rnn": leaf.expand_dims(step=400).assign_coords(step=steps)})
    found = tt.diagnose(run)
    assert found.history.recorded == 400
    assert len(found.history.records) == MOST_RECORDS
    assert (found.history.records[0].step, found.history.records[-1].step) == (0, 399)


def test_an_empty_run(tmp_path):
    with Run(tmp_path / "run.zarr"):
        pass
    with pytest.raises(tt.ThroughTimeError):
        tt.diagnose(tt.open_run(tmp_path / "run.zarr"))


@pytest.mark.parametrize("level", ["summary", "timestep"])
@pytest.mark.parametrize("solved", [None, 0.5, 2.0])
def test_a_run_at_each_level_knows_whether_it_is_solved(tmp_path, level, solved):
    tree = captured(0.7).map_over_datasets(lambda leaf: leaf.assign(loss=1.0) if leaf.data_vars else leaf)
    run = recorded(tmp_path, {0: tree}, level)
    found = tt.diagnose(run, dependency_length=LAG, solved=solved)
    assert found.is_solved is (None if solved is None else solved > 1)
    texts = [each.text for each in found.brief.actions]
    assert ("Nothing has to change" in texts) is bool(found.is_solved)
    assert ("at or below solved=2" in found.text) is bool(found.is_solved)
