"""What a monitor reduces in plain NumPy is what the measures of `diagnostics` say, and NumPy's quantiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import throughtime as tt
from throughtime import testing
from throughtime._capture.label import Captured, NamedArray
from throughtime._monitor import reduce
from throughtime._monitor.arrays import as_tree
from throughtime._monitor.levels import stored
from throughtime.diagnostics.lags import signals

RNG = np.random.default_rng(0)


def leaf_of(tree: xr.DataTree) -> xr.Dataset:
    return next(iter(tree.leaves)).to_dataset()


def parted(leaf: xr.Dataset) -> tuple[Any, xr.Dataset]:
    """Give a layer as a monitor has it: arrays, and the Dataset with their labels."""
    captured = Captured.of(xr.DataTree.from_dict({"rnn": leaf}))
    return captured.leaves["/rnn"].arrays, leaf


def noisy(tree: xr.DataTree, *, holes: float = 0.0) -> xr.Dataset:
    """Give a layer random gradients over many decades, of which some are exactly 0, NaN or infinite."""
    leaf = leaf_of(tree).copy(deep=True)
    for name in [name for name in leaf.data_vars if str(name).endswith("_gradient")]:
        values = RNG.normal(size=leaf[name].shape) * 10.0 ** RNG.integers(-40, 3, size=leaf[name].shape)
        values[RNG.random(values.shape) < 0.05] = 0.0
        for spoiled in (np.nan, np.inf):
            values[RNG.random(values.shape) < holes] = spoiled
        leaf[name] = leaf[name].dims, values
    return leaf.drop_vars(["certificate_weights", "certificate_time"], errors="ignore")


LEAVES: dict[str, xr.Dataset] = {
    "decaying": leaf_of(testing.decaying(rate=[0.5, 0.9, 1.1], steps=12)),
    "masked": leaf_of(testing.with_masks([12, 5, 0, 1], steps=12)),
    "both ways": leaf_of(testing.bidirectional(samples=2, steps=12)),
    "gates": leaf_of(testing.constant_gates(samples=2, steps=12)),
    "saturated": leaf_of(testing.saturated_gates(left=0.25, right=0.5)),
    "not finite": leaf_of(testing.nonfinite("cell", sample=1, time=7, unit=2)),
    "noise": noisy(testing.constant_gates(samples=7, steps=9)),
    "noise, masked": noisy(testing.with_masks([9, 4, 0, 1, 8], steps=9)),
    "noise, both ways": noisy(testing.bidirectional(samples=5, steps=9)),
    "noise and holes": noisy(testing.bidirectional(samples=5, steps=9), holes=0.002),
    "backwards": noisy(testing.with_masks([9, 4, 2], steps=9)).assign_attrs(go_backwards=1),
}
GATED = [name for name, leaf in LEAVES.items() if "gate_activation" in leaf]


@pytest.mark.parametrize("name", LEAVES)
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered in subtract:RuntimeWarning")
def test_the_signal_by_lag_is_that_of_the_lag_profile(name: str) -> None:
    leaf = LEAVES[name]
    wanted = np.exp(signals(leaf)["log_ratio"].median("sample"))
    found = reduce.lag_ratio(reduce.log_ratios(*parted(leaf)))
    assert found.dims[0] == "lag"
    np.testing.assert_allclose(found.ordered(*wanted.dims).values, wanted, rtol=1e-12)


@pytest.mark.parametrize("name", GATED)
@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
def test_saturation_is_that_of_diagnostics(name: str) -> None:
    leaf = LEAVES[name]
    found, wanted = reduce.saturation(*parted(leaf)), tt.diagnostics.saturation(leaf).mean("unit")
    for side in ("left", "right"):
        assert found[side].dims == wanted[side].dims
        np.testing.assert_allclose(found[side].values, wanted[side], rtol=1e-14)


def test_saturation_is_not_told_where_the_certificate_fails() -> None:
    leaf = LEAVES["saturated"].assign(certificate_time=1.0)
    assert not reduce.is_certified(*parted(leaf))
    assert np.isnan(reduce.saturation(*parted(leaf))["left"].values).all()
    with pytest.raises(tt.DiagnosticError):
        tt.diagnostics.saturation(leaf)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
def test_quantiles_are_numpys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rng.integers(1, 9), 5, 3))
    values[rng.random(values.shape) < rng.random()] = np.nan
    asked = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0]
    found = reduce.sample_quantiles(NamedArray(("sample", "time", "gate"), values), asked)
    assert found.dims == ("quantile", "time", "gate")
    np.testing.assert_allclose(found.values, np.nanquantile(values, asked, axis=0), rtol=1e-13)


def test_one_number_a_sample_has_quantiles_too() -> None:
    values = RNG.normal(size=8)
    found = reduce.sample_quantiles(NamedArray(("sample",), values), [0.25, 0.5])
    np.testing.assert_allclose(found.values, np.quantile(values, [0.25, 0.5]), rtol=1e-13)


def test_infinities_stay_infinite() -> None:
    values = np.array([[-np.inf, -np.inf, np.inf], [-np.inf, 1.0, np.inf]])
    found = reduce.sample_quantiles(NamedArray(("sample", "time"), values), [0.5]).values[0]
    assert found.tolist() == [-np.inf, -np.inf, np.inf]


@pytest.mark.parametrize("name", LEAVES)
def test_norms_are_over_units_with_masked_steps_left_out(name: str) -> None:
    leaf = LEAVES[name]
    captured = Captured.of(xr.DataTree.from_dict({"rnn": leaf}))
    kept: Any = as_tree(stored(captured, "timestep", None), captured, [])["rnn"].to_dataset()
    gradient = leaf["hidden_gradient"]
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = np.sqrt((gradient.astype(float) ** 2).sum("unit", skipna=False))
    if "valid" in leaf:
        wanted = wanted.where(leaf["valid"])
    np.testing.assert_allclose(kept["hidden_gradient_norm"], wanted, rtol=1e-12)
    assert set(kept["hidden_gradient_norm"].coords) <= {"direction"}


def test_change_of_weights_is_relative_to_their_size() -> None:
    weights = RNG.normal(size=(3, 4, 5))
    leaf = xr.Dataset(dict.fromkeys(("kernel", "kernel_gradient"), (("feature", "gate", "unit"), weights)))
    leaf["kernel"][:, 1] = 0.0
    leaf["hidden_gradient"] = ("sample", "time", "unit"), np.ones((2, 3, 5))
    before = {"/rnn": {"kernel": leaf["kernel"].values - 0.1}}
    kept = stored(Captured.of(xr.DataTree.from_dict({"rnn": leaf})), "summary", before)["/rnn"]
    size = np.sqrt((leaf["kernel"].values ** 2).sum((0, 2)))
    wanted = np.where(size > 0, 0.1 * np.sqrt(15) / np.where(size > 0, size, 1), np.nan)
    np.testing.assert_allclose(kept["kernel_change"].values, wanted, rtol=1e-12)


def test_the_interval_of_the_signal_by_lag_is_that_of_the_lag_profile() -> None:
    leaf = noisy(testing.decaying(np.linspace(0.5, 0.9, 12), steps=9))
    wanted = tt.diagnostics.lag_profile(leaf)
    found = reduce.lag_interval(reduce.log_ratios(*parted(leaf)))
    for end in ("low", "high", "samples"):
        np.testing.assert_allclose(found[f"lag_ratio_{end}"].values, wanted[end].values, rtol=1e-9)
