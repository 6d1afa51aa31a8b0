"""Odd arguments, at every public function and command: errors of this library, and nothing half done."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from benchmarks.faults.bad_arguments import World, called, commanded, functions
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import throughtime as tt
from throughtime._inputs import takes
from throughtime._inputs.departures import departures
from throughtime._inputs.rules import choice, describe, number, several, whole

pytestmark = pytest.mark.filterwarnings("ignore")
bounded = settings(max_examples=4, derandomize=True, deadline=None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, before = tmp_path_factory.mktemp("odd"), Path.cwd()
    made = World(folder)
    os.chdir(folder)  # a path that is no absolute one is written there
    yield made
    os.chdir(before)


@pytest.mark.parametrize("name", sorted(functions()))
@bounded
@given(draw=st.randoms(use_true_random=False))
def test_odd_arguments_end_in_errors_of_ours(world: World, name: str, draw: random.Random) -> None:
    outcome = called(world, name, functions()[name], draw)
    assert not outcome.problem, outcome


@settings(bounded, max_examples=25)
@given(draw=st.randoms(use_true_random=False))
def test_odd_commands_end_in_one_line(world: World, draw: random.Random) -> None:
    outcome = commanded(world, draw)
    assert not outcome.problem, outcome


class Reader(nn.Module):
    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.lower, self.head = nn.LSTM(3, 4, batch_first=True, device=device), nn.Linear(4, 1, device=device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lower(x)[0][:, -1])


X, Y = torch.randn(6, 9, 3), torch.randn(6, 1)


def captured(**changed: object) -> xr.DataTree:
    return tt.capture(**{"model": Reader(), "x": X, "y": Y, "loss": nn.MSELoss(), **changed})


@pytest.mark.parametrize(("dtype", "native"), [(">f4", "f4"), (">f8", "f8"), ("g", "f8")])
def test_foreign_byte_orders_and_long_floats_are_read(dtype: str, native: str) -> None:
    tensor = torch.from_numpy(X.numpy().astype(native))
    model, y = Reader().to(tensor.dtype), Y.to(tensor.dtype)
    found, expected = (captured(model=model, x=x, y=y)["lower"] for x in (X.numpy().astype(dtype), tensor))
    xr.testing.assert_equal(found["hidden_gradient"], expected["hidden_gradient"])


@pytest.mark.parametrize(
    ("changed", "error", "told"),
    [
        ({"x": X.numpy().astype("c8")}, tt.BatchError, "real numbers"),
        ({"x": X.long()}, tt.BatchError, "int64"),
        ({"x": X[..., :2]}, tt.BatchError, r"\(6, 9, 2\)"),
        ({"training": "no"}, tt.ArgumentError, "training='no': expected True or False"),
        ({"quantities": None}, tt.SchemaError, "several names"),
        ({"quantities": "hidden_grad"}, tt.SchemaError, "Did you mean hidden_gradient?"),
        ({"layers": "lowr"}, tt.LayerNotFoundError, "Did you mean lower?"),
        (
            {"layers": lambda each: each.hidden_size > 3},
            tt.LayerNotFoundError,
            "AttributeError for head",
        ),
        ({"layers": []}, tt.LayerNotFoundError, "No layer is selected"),
        ({"adapter": "torch"}, tt.UnsupportedModelError, "a Probe"),
        ({"loss": 3}, tt.LossError, "a function"),
        ({"model": Reader("meta")}, tt.UnbuiltModelError, "meta"),
    ],
)
def test_a_capture_says_what_it_expects(
    changed: dict[str, object], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        captured(**changed)


def test_an_error_of_the_users_own_passes_as_it_is() -> None:
    class Own(Reader):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        captured(model=Own())


def test_a_cut_tree_is_explained_where_a_measure_fails() -> None:
    leaf = tt.testing.decaying(samples=3)["rnn"].to_dataset()
    with pytest.raises(tt.SchemaError, match=r"isel\(sample=\[0\]\)"):
        tt.diagnostics.lag_profile(leaf.isel(sample=0))
    with pytest.raises(tt.SchemaError, match="empty along sample"):
        tt.diagnostics.lag_profile(leaf.isel(sample=slice(0, 0)))
    assert departures(leaf) == ""
    for dim in ("sample", "time", "unit"):
        with pytest.raises(tt.SchemaError, match=f"empty along {dim}"):
            tt.plots.lines(leaf.isel({dim: slice(0, 0)}))
    with pytest.raises(tt.SchemaError, match=r"'valid' holds float64; expected bool"):
        tt.plots.histogram(leaf.assign(valid=leaf["valid"] * 1.0))


DATA = np.ones((2, 5, 3))


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (
            lambda: tt.show_features_1D(DATA, axes=torch.ones(2).bfloat16()),
            tt.FeatureError,
            "matplotlib Axes",
        ),
        (
            lambda: tt.show_features_1D(DATA, axes=xr.Dataset()),
            tt.FeatureError,
            "matplotlib Axes",
        ),
        (lambda: tt.show_features_1D(DATA, color=np.array(1.0)), tt.FeatureError, "is not a colour"),
        (lambda: tt.show_features_hist(DATA, bins=[None]), tt.FeatureError, "bins="),
        (lambda: tt.testing.with_masks([]), tt.ArgumentError, "1 or more of them"),
        (lambda: tt.testing.decaying([]), tt.ArgumentError, "1 or more of them"),
        (
            lambda: tt.diagnose(Reader(), X, Y, loss=nn.MSELoss(), optimizer=np.ones(0)),
            tt.DiagnosticError,
            "an optimizer of Keras or torch",
        ),
    ],
)
def test_values_that_nobody_would_pass_are_refused(call: object, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        call()


def test_rules_take_numpy_and_tensors_and_name_what_they_refuse() -> None:
    @takes(
        tt.DiagnosticError,
        share=number(0, 1, inside=True),
        kind=choice("lstm", "gru"),
        lags=several(whole(0)),
    )
    def measured(share: float, kind: str = "lstm", lags: object = None, *, seed: int = 0) -> object:
        return share, kind, lags, seed

    assert measured(np.float32(0.5), "gru", np.arange(2), seed=torch.tensor(3)) == (0.5, "gru", (0, 1), 3)
    assert measured(0.5, lags=7)[2] == (7,)
    for wrong in ({"share": 1.0}, {"share": "0.5"}, {"share": 0.5, "seed": -1}, {"share": 0.5, "seed": True}):
        with pytest.raises(tt.DiagnosticError, match="expected a"):
            measured(**wrong)
    with pytest.raises(tt.DiagnosticError, match=r"one of lstm, gru\. Did you mean gru\?"):
        measured(0.5, "grru")
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'share'"):
        measured()


def test_a_value_is_shown_in_one_line_whatever_it_is() -> None:
    class Unshowable:
        def __repr__(self) -> str:
            raise RuntimeError

    assert describe(Unshowable()) == "a Unshowable"
    assert describe(np.zeros((2, 3))) == "ndarray float64 (2, 3)"
    assert len(describe("x\n\x1b" * 100)) == 80
    assert describe("x\n\x1b" * 100).isprintable()


@pytest.mark.parametrize("weight", [{"a": np.ones(3)}, xr.Dataset({"a": ("sample", np.ones(3))})])
def test_weights_by_name_are_refused(weight: object) -> None:
    x, y = torch.randn(3, 5, 3), torch.randn(3, 1)
    with pytest.raises(tt.LossError, match=r"sample_weight is a \w+ with 'a'"):
        tt.capture(Reader(), x, y, sample_weight=weight, loss=nn.MSELoss())
