"""A wrong gate or time order is seen by the certificate, told by the capture, refused by diagnostics."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from itertools import cycle, product
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import xarray as xr
from keras import layers, ops

import throughtime as tt
from throughtime import cells, diagnostics
from throughtime._errors import DiagnosticError
from throughtime.adapters.attributes import replaced
from throughtime.adapters.keras import cell as adapter_cell
from throughtime.adapters.keras import every_step, products, program
from throughtime.cells import adjoint, gru, gru_reset_before, lstm, simple_rnn

SAMPLES, STEPS, FEATURES, UNITS = 4, 9, 3, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(SAMPLES, STEPS, FEATURES)).astype("float32")
Y = RNG.normal(size=(SAMPLES, STEPS, 1)).astype("float32")
BAR, LIMIT = cells.bar("float32"), cells.limit("float32")
LAYERS = {
    "lstm": (layers.LSTM, lstm, 4),
    "gru": (layers.GRU, gru, 3),
    "gru_reset_before": (lambda *a, **k: layers.GRU(*a, reset_after=False, **k), gru_reset_before, 3),
    "simple_rnn": (layers.SimpleRNN, simple_rnn, 1),
}
GATES = [(kind, gate) for kind, (_, _, gates) in LAYERS.items() for gate in range(gates)]


@cache
def network(kind: str, wrapping: str = "plain") -> Any:
    settings = {} if wrapping == "both" else {"name": "rnn", "go_backwards": wrapping == "backwards"}
    layer = LAYERS[kind][0](UNITS, return_sequences=True, **settings)
    layer = layers.Bidirectional(layer, name="rnn") if wrapping == "both" else layer
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), layer, layers.Dense(1)])
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.5, weight.shape) for weight in model.weights])
    model.compile(loss="mse")
    return model


def fresh(kind: str, wrapping: str = "plain") -> Any:
    """A model that nothing has been traced for."""
    network.cache_clear()
    return network(kind, wrapping)


def captured(model: Any) -> xr.Dataset:
    return tt.capture(model, X, Y)["rnn"].to_dataset()


def captured_with_a_warning(model: Any) -> xr.Dataset:
    with pytest.warns(
        tt.ThroughTimeWarning, match=r"certificate of rnn is .* (will refuse|continue with a note)"
    ) as told:
        leaf = captured(model)
    ours = [warning for warning in told if warning.category is tt.ThroughTimeWarning]
    assert [warning.filename for warning in ours] == [__file__]
    return leaf


def assert_refused(leaf: xr.Dataset, certificate: str) -> None:
    measures = [diagnostics.lag_profile, diagnostics.memory_horizon_median, diagnostics.effective_steps]
    measures += [diagnostics.decay_rate, diagnostics.vanishing_fraction, diagnostics.recurrent_spectrum]
    for measure in measures:
        with pytest.raises(DiagnosticError, match=rf"do not agree.*{certificate} is"):
            measure(leaf)


def assert_seen(leaf: xr.Dataset, truth: xr.DataArray) -> None:
    """The weights' certificate is far above its bar, and what it lets pass changes no answer."""
    assert float(leaf["certificate_weights"]) > 10 * BAR
    beyond = [name for name in ("certificate_weights", "certificate_time") if float(leaf[name]) > LIMIT]
    if beyond:
        assert_refused(leaf, beyond[0])
    else:  # a gate whose share of the gradient is small
        with pytest.warns(tt.ThroughTimeWarning, match="certificate of rnn"):
            ratio = diagnostics.lag_profile(leaf)["ratio"]
        assert float(abs(ratio / truth - 1).max()) < 0.01


@pytest.mark.parametrize("wrapping", ["plain", "backwards", "both"])
@pytest.mark.parametrize("kind", LAYERS)
def test_without_an_error_there_is_no_warning_and_a_diagnosis(kind: str, wrapping: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", tt.ThroughTimeWarning)
        leaf = captured(network(kind, wrapping))
    assert (leaf["certificate_weights"] <= BAR).all()
    assert (leaf["certificate_time"] <= BAR).all()
    assert diagnostics.lag_profile(leaf)["ratio"].notnull().all()


# The loop shows the states, and what lies within its steps is found apart.
if keras.backend.backend() != "torch":

    @pytest.mark.parametrize(("kind", "gate"), GATES)
    def test_one_percent_in_one_gate_of_the_steps_is_seen(
        kind: str, gate: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = adapter_cell.gate_names(network(kind).layers[0].cell)[gate]
        right = products.step

        def steeper(activation: Any, places: Any) -> Any:
            coming = iter(places)

            def wrong(value: Any) -> Any:
                result = activation(value)
                slope = 0.01 if next(coming) == name else 0.0
                return result + slope * (result - ops.stop_gradient(result))

            return wrong

        def wrong(keras_: Any, cell: Any, *rest: Any) -> Any:
            order = adapter_cell._ORDERS[adapter_cell.standard_kind(cell)]
            with ExitStack() as stack:
                for attribute, places in (
                    ("activation", order.plain),
                    ("recurrent_activation", order.recurrent),
                ):
                    if places:
                        changed = steeper(getattr(cell, attribute), places)
                        stack.enter_context(replaced(cell, attribute, changed))
                return right(keras_, cell, *rest)

        truth = diagnostics.lag_profile(captured(network(kind)))["ratio"]
        monkeypatch.setattr(every_step, "products", SimpleNamespace(step=wrong))
        assert_seen(captured_with_a_warning(fresh(kind)), truth)

    MISTAKES = {
        "reads the other way": lambda given: replace(given, entering=given.entering[::-1]),
        "inputs one step late": lambda given: replace(given, entering=ops.roll(given.entering, 1, axis=0)),
        "gradient one step late": lambda given: replace(given, gradients=rolled(given.gradients)),
        "states one step late": lambda given: replace(given, kept=rolled(given.kept)),
        "a step taken for masked": lambda given: replace(given, mask=given.mask & (ops.arange(STEPS) != 4)),
    }

    def rolled(tensors: dict[str, Any]) -> dict[str, Any]:
        return {name: ops.roll(tensor, 1, axis=0) for name, tensor in tensors.items()}

    CASES = zip(product(LAYERS, MISTAKES), cycle(["plain", "backwards", "both"]))

    @pytest.mark.parametrize(("kind", "mistake", "wrapping"), [(*case, wrapping) for case, wrapping in CASES])
    def test_a_mistake_in_what_the_steps_are_given_is_seen(
        kind: str, mistake: str, wrapping: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = program.EveryStep

        def wrong(*arguments: Any, **left: Any) -> Any:
            given = right(*arguments, **left)
            if given.mask is None:
                given = replace(given, mask=ops.ones((SAMPLES, STEPS), "bool"))
            return MISTAKES[mistake](given)

        monkeypatch.setattr(program, "EveryStep", wrong)
        leaf = captured_with_a_warning(fresh(kind, wrapping))
        assert (leaf["certificate_weights"] > 10 * BAR).all()
        assert (leaf["certificate_time"] > 10 * BAR).all()


# Closed forms solve what the kernels on torch do not show.
if keras.backend.backend() == "torch":

    @pytest.mark.parametrize(("kind", "gate"), GATES)
    def test_one_percent_in_one_gate_is_seen(kind: str, gate: int, monkeypatch: pytest.MonkeyPatch) -> None:
        cell = LAYERS[kind][1]
        right = cell.factors

        def wrong(layer: Any, block: Any) -> Any:
            factors = right(layer, block)
            factors.columns[:, :, cell.INPUT_SIDE][:, :, gate] *= 1.01
            if factors.reset_slope is not None and gate == 1:  # a reset before the product has its own factor
                np.multiply(factors.reset_slope, 1.01, out=factors.reset_slope)
            return factors

        truth = diagnostics.lag_profile(captured(network(kind)))["ratio"]
        monkeypatch.setattr(cell, "factors", wrong)
        leaf = captured_with_a_warning(network(kind))
        assert_seen(leaf, truth)

    def flipped(values: np.ndarray, passed: Any) -> np.ndarray:
        return np.swapaxes(values if passed.runs_backward else values[::-1], 0, 1)

    def shifted(values: np.ndarray, passed: Any) -> np.ndarray:
        return np.roll(np.swapaxes(values[::-1] if passed.runs_backward else values, 0, 1), 1, axis=1)

    @pytest.mark.parametrize("moved", [flipped, shifted])
    @pytest.mark.parametrize("wrapping", ["plain", "backwards", "both"])
    @pytest.mark.parametrize("kind", LAYERS)
    def test_time_that_is_flipped_or_shifted_is_seen_where_the_weights_see_nothing(
        kind: str, wrapping: str, moved: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adjoint.scan, "in_input_time", moved)
        leaf = captured_with_a_warning(network(kind, wrapping))
        assert (leaf["certificate_weights"] <= BAR).all()
        assert (leaf["certificate_time"] > 0.1).all()
        assert_refused(leaf, "certificate_time")

    MISTAKES = {
        "reads the other way": lambda passed: replace(passed, runs_backward=not passed.runs_backward),
        "gradient one step late": lambda passed: replace(
            passed, output_gradient=np.roll(passed.output_gradient, 1, axis=1)
        ),
        "states one step late": lambda passed: replace(passed, hidden=np.roll(passed.hidden, 1, axis=1)),
        "a step taken for masked": lambda passed: replace(
            passed, valid=np.broadcast_to(np.arange(STEPS) != STEPS // 2, (SAMPLES, STEPS))
        ),
    }

    @pytest.mark.parametrize("mistake", MISTAKES)
    @pytest.mark.parametrize("kind", LAYERS)
    def test_a_mistake_of_the_adapter_is_seen(
        kind: str, mistake: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = cells.solve
        monkeypatch.setattr(
            cells, "solve", lambda layer, passed, wanted: right(layer, MISTAKES[mistake](passed), wanted)
        )
        leaf = captured_with_a_warning(network(kind))
        assert float(leaf["certificate_weights"]) > 10 * BAR
        assert float(leaf["certificate_time"]) > 10 * BAR

    def test_a_mistake_in_one_direction_is_named_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
        right = cells.solve

        def wrong(layer: Any, passed: Any, wanted: Any) -> Any:
            return right(layer, replace(passed, runs_backward=False), wanted)

        monkeypatch.setattr(cells, "solve", wrong)
        leaf = captured_with_a_warning(network("gru", "both"))
        for part in ("certificate_weights", "certificate_time"):
            assert float(leaf[part].sel(direction="forward")) <= BAR
            assert float(leaf[part].sel(direction="backward")) > 10 * BAR
        assert_refused(leaf, "certificate_weights")
