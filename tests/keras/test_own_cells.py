"""Layers made of a cell of one's own: captured like any other, exact by their certificates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import EntryPoint
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from tests.cells.own import CELLS, RESERVOIR, Own
from tests.keras.comparison import difference
from tests.keras.own_layers import (
    FEATURES,
    OWN,
    SAMPLES,
    STEPS,
    UNITS,
    ReservoirCell,
    batch,
    mask_of,
    model_of,
    randomise,
)

import throughtime as tt
from throughtime import _cell_registry as registry
from throughtime import diagnostics
from throughtime.cells import Pass

layers = keras.layers
BARS = {"float32": 1e-5, "float64": 1e-12}
# Elsewhere Keras' generic loop multiplies in float32.
DTYPES = ["float32", "float64"] if keras.backend.backend() == "tensorflow" else ["float32"]


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins with the cells of `OWN` and nothing else."""
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_offered", {})
    for layer_class, cell in OWN.values():
        tt.register_cell(cell, layer_class)
    yield
    registry._entry_points.cache_clear()


def recurrent(kind: str, **config: Any) -> Any:
    dtype = config.get("dtype", "float32")
    return layers.RNN(OWN[kind][0](UNITS, dtype=dtype), **config)


def check_certificate(leaf: Any) -> None:
    for part in ("certificate_weights", "certificate_time"):
        assert np.max(leaf[part]) <= BARS[leaf.attrs["dtype"]], part


def case_of(leaf: Any, name: str, *, direction: str | None = None, **given: Any) -> Own:
    """The same pass in NumPy, from the weights and what arrived at the output."""
    one = leaf if direction is None else leaf.sel(direction=direction)
    cell, shapes, added = CELLS[name]
    weights = {weight: one[weight].values.astype(float) for weight in shapes}
    weights |= {setting: leaf.attrs[setting] for setting in cell.settings}
    backward = bool(leaf.attrs["go_backwards"]) != (direction == "backward")
    width = {state: one[state].shape[-1] for state in cell.states}
    start = [np.full((SAMPLES, width[state]), given.get("start", 0.0)) for state in cell.states]
    passed = Pass(
        inputs=leaf["input"].values.astype(float),
        hidden=np.zeros((SAMPLES, STEPS, UNITS)),
        output_gradient=given["output_gradient"],
        valid=leaf["valid"].values,
        zero_output=given.get("zero_output", False),
        runs_backward=backward,
        initial_hidden=start[0],
        further_initial=tuple(start[1:]),
        further_final_gradients=(None,) * (len(start) - 1),
    )
    halves = {"forget": slice(0, UNITS), "candidate": slice(UNITS, None)}
    places = {tapped: (weight, halves.get(tapped, slice(None))) for tapped, weight in added.items()}
    return Own(cell, weights, passed, places)


def check_against_numpy(leaf: Any, case: Own, direction: str | None = None, tolerance: float = 1e-5) -> None:
    one = leaf if direction is None else leaf.sel(direction=direction)
    ran = case.run(case.values())
    wrong = {}
    for state in case.cell.states:
        wrong[state] = difference(one[state], ran[state].real)
        wrong[f"{state}_gradient"] = difference(one[f"{state}_gradient"], case.derivative(state))
        initial = f"initial_{state}"
        wrong[f"{initial}_gradient"] = difference(one[f"{initial}_gradient"], case.derivative(initial))
    for gate in case.cell.gates:
        found = one["gate_gradient"].sel(gate=gate)
        wrong[gate] = difference(found, case.derivative(gate))
        assert one["gate_activation"].sel(gate=gate).shape == found.shape
    assert {name: error for name, error in wrong.items() if not error <= tolerance} == {}


class TestCapture:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize(
        ("go_backwards", "sequences", "masked"),
        # Every pair of values of any two of the three occurs.
        [(False, True, "none"), (False, False, "gaps"), (True, True, "gaps"), (True, False, "none")],
    )
    @pytest.mark.parametrize("name", OWN)
    def test_is_what_the_same_pass_in_numpy_gives(self, name, go_backwards, sequences, masked, dtype):
        mask = mask_of(masked)
        x, y = batch(mask, sequences=sequences, dtype=dtype)
        layer = recurrent(
            name, return_sequences=sequences, go_backwards=go_backwards, dtype=dtype, name="own"
        )
        leaf = tt.capture(model_of(layer, masked=masked != "none", dtype=dtype), x, y)["own"].to_dataset()
        assert leaf.attrs["kind"] == name
        check_certificate(leaf)
        arrived = leaf["output_gradient"].values.astype(float)
        case = case_of(leaf, name, output_gradient=arrived)
        check_against_numpy(leaf, case, tolerance=BARS[dtype] * 10)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize(("sequences", "masked"), [(True, "gaps"), (False, "none"), (False, "gaps")])
    @pytest.mark.parametrize("name", OWN)
    def test_of_two_directions_each_is_its_own(self, name, sequences, masked, dtype):
        x, y = batch(mask_of(masked), sequences=sequences, dtype=dtype)
        half = recurrent(name, return_sequences=sequences, dtype=dtype)
        layer = layers.Bidirectional(half, dtype=dtype, name="own")
        leaf = tt.capture(model_of(layer, masked=masked != "none", dtype=dtype), x, y)["own"].to_dataset()
        assert leaf["kernel"].dims[0] == leaf["kernel_gradient"].dims[0] == "direction"
        check_certificate(leaf)
        for place, direction in enumerate(leaf["direction"].values):
            units = slice(place * UNITS, (place + 1) * UNITS)
            arrived = leaf["output_gradient"].values[..., units].astype(float)
            # Bidirectional has its halves emit 0 where masked when they return sequences.
            case = case_of(leaf, name, direction=direction, output_gradient=arrived, zero_output=sequences)
            check_against_numpy(leaf, case, direction, BARS[dtype] * 10)

    @pytest.mark.parametrize("name", OWN)
    def test_zero_output_for_mask(self, name):
        x, y = batch(mask_of("gaps"), sequences=True)
        layer = recurrent(name, return_sequences=True, zero_output_for_mask=True, name="own")
        leaf = tt.capture(model_of(layer, masked=True), x, y)["own"].to_dataset()
        check_certificate(leaf)
        case = case_of(leaf, name, output_gradient=leaf["output_gradient"].values, zero_output=True)
        check_against_numpy(leaf, case)

    @pytest.mark.parametrize("name", OWN)
    def test_states_handed_from_an_encoder_to_a_decoder(self, name):
        encoder, decoder = (
            recurrent(name, return_state=True, return_sequences=each == "decoder", name=each)
            for each in ("encoder", "decoder")
        )
        source, target = keras.Input((STEPS, FEATURES)), keras.Input((STEPS, FEATURES))
        output, *states = encoder(source)
        sequence, *last = decoder(target, initial_state=states)
        seen = ops.concatenate([ops.reshape(sequence, (-1, STEPS * UNITS)), output, *last], -1)
        model = randomise(keras.Model([source, target], layers.Dense(2)(seen)))
        x, y = batch(mask_of("none"), sequences=False)
        tree = tt.capture(model, [x, x[::-1].copy()], y)
        for path in ("encoder", "decoder"):
            check_certificate(tree[path].to_dataset())
        for state in OWN[name][1].states:
            assert np.abs(tree["decoder"][f"initial_{state}_gradient"]).max() > 1e-4

    @pytest.mark.parametrize("name", OWN)
    def test_a_stateful_layer_goes_on_from_its_states(self, name):
        inputs = keras.Input(batch_shape=(SAMPLES, STEPS, FEATURES))
        layer = recurrent(name, stateful=True, return_sequences=True, name="own")
        model = randomise(keras.Model(inputs, layers.Dense(2)(layer(inputs))))
        x, y = batch(mask_of("none"), sequences=True)
        model(x[::-1].copy())
        before = [ops.convert_to_numpy(state).copy() for state in layer.states]
        leaf = tt.capture(model, x, y)["own"].to_dataset()
        check_certificate(leaf)
        for state, kept in zip(layer.states, before, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(state), kept)
        assert np.abs(leaf["initial_hidden_gradient"]).max() > 1e-4

    def test_a_cell_may_start_from_anything(self):
        layer = layers.RNN(ReservoirCell(UNITS, start=0.7), return_sequences=True, name="own")
        x, y = batch(mask_of("none"), sequences=True)
        leaf = tt.capture(model_of(layer), x, y)["own"].to_dataset()
        check_certificate(leaf)
        case = case_of(leaf, "reservoir", output_gradient=leaf["output_gradient"].values, start=0.7)
        check_against_numpy(leaf, case)

    def test_a_shared_layer_has_a_leaf_for_each_call(self):
        layer = recurrent("minimal_gated_unit", name="own")
        left, right = keras.Input((STEPS, FEATURES)), keras.Input((STEPS, FEATURES))
        model = randomise(
            keras.Model([left, right], layers.Dense(2)(layers.Concatenate()([layer(left), layer(right)])))
        )
        x, y = batch(mask_of("none"), sequences=False)
        tree = tt.capture(model, [x, x[::-1].copy()], y)
        for path in ("own", "own@2"):
            check_certificate(tree[path].to_dataset())

    def test_beside_a_standard_layer_and_unrolled(self):
        inputs = keras.Input((STEPS, FEATURES))
        lower = recurrent("reservoir", return_sequences=True, unroll=True, name="own")(inputs)
        upper = layers.LSTM(UNITS, name="lstm")(lower)
        model = randomise(keras.Model(inputs, layers.Dense(2)(upper)))
        x, y = batch(mask_of("none"), sequences=False)
        tree = tt.capture(model, x, y)
        for path in ("own", "lstm"):
            check_certificate(tree[path].to_dataset())
        assert tree["lstm"].attrs["kind"] == "lstm"
        assert "states" not in tree["lstm"].attrs

    def test_half_precision_holds_its_own_bar(self):
        layer = recurrent("minimal_gated_unit", dtype="mixed_float16", name="own")
        x, y = batch(mask_of("none"), sequences=False)
        leaf = tt.capture(model_of(layer), x, y)["own"].to_dataset()
        assert leaf.attrs["dtype"] == "float16"
        assert max(float(leaf["certificate_weights"]), float(leaf["certificate_time"])) <= 1e-2


class TestTree:
    def leaf(self, name: str, **options: Any) -> Any:
        x, y = batch(mask_of("none"), sequences=True)
        model = model_of(recurrent(name, return_sequences=True, name="own"))
        return tt.capture(model, x, y, **options)["own"].to_dataset()

    def test_gates_have_the_names_that_the_cell_declares(self):
        leaf = self.leaf("minimal_gated_unit")
        assert list(leaf["gate"].values) == ["forget", "candidate"]
        assert (
            leaf["gate_activation"].dims == leaf["gate_gradient"].dims == ("sample", "time", "gate", "unit")
        )

    def test_states_and_weights_have_theirs(self):
        leaf = self.leaf("reservoir")
        assert leaf["memory"].dims == leaf["memory_gradient"].dims == ("sample", "time", "memory_unit")
        assert leaf["initial_memory_gradient"].dims == ("sample", "memory_unit")
        assert leaf["memory_gradient"].attrs["long_name"] == "dL/dmemory_t"
        assert leaf["readout"].dims == leaf["readout_gradient"].dims == ("readout_axis_0", "readout_axis_1")
        assert leaf.attrs["states"] == "hidden, memory"
        assert leaf.attrs["weights"] == "input_map, offset, kernel, bias, readout, recurrent"
        assert leaf.attrs["rate"] == 0.5

    def test_the_step_contribution_is_the_norm_of_the_share_of_the_weight_that_is_named(self):
        leaf = self.leaf("indrnn")
        before = np.concatenate([np.zeros((SAMPLES, 1, UNITS)), leaf["hidden"].values[:, :-1]], axis=1)
        dz = leaf["hidden_gradient"].values * (leaf["hidden"].values > 0)
        np.testing.assert_allclose(leaf["step_contribution"], np.linalg.norm(dz * before, axis=-1), rtol=1e-5)

    def test_what_a_cell_does_not_have_is_missing_with_a_reason(self):
        leaf = self.leaf("indrnn")
        assert {"gate_activation", "gate_gradient", "cell", "cell_gradient"}.isdisjoint(leaf.data_vars)
        assert leaf.attrs["missing_gate_gradient"] == "the cell indrnn names none"
        with pytest.raises(tt.NoGradientError, match="no gate_gradient for own: the cell indrnn names none"):
            self.leaf("indrnn", quantities="gate_gradient")

    def test_without_a_recurrent_weight_there_is_no_step_contribution(self):
        layer_class, cell = OWN["indrnn"]
        tt.register_cell(replace(cell, recurrent_weight=None), layer_class)
        leaf = self.leaf("indrnn")
        assert "step_contribution" not in leaf
        assert leaf.attrs["missing_step_contribution"] == "the cell indrnn names no recurrent_weight"
        check_certificate(leaf)

    def test_without_weight_gradients_the_certificate_of_time_is_left(self):
        layer_class, cell = OWN["indrnn"]
        bare = replace(
            cell,
            recurrent_weight=None,
            adjoint=lambda *step: replace(cell.adjoint(*step), weights={}),
        )
        tt.register_cell(bare, layer_class)
        leaf = self.leaf("indrnn")
        assert np.isnan(leaf["certificate_weights"])
        assert float(leaf["certificate_time"]) <= 1e-5

    @pytest.mark.parametrize("asked", ["memory_gradient", "cell_gradient"])
    def test_a_state_is_asked_for_by_its_name_or_as_any_cell(self, asked):
        leaf = self.leaf("reservoir", quantities=asked)
        assert {*leaf.data_vars} == {"memory_gradient", "loss", "reduction_factor"}

    def test_without_labels_states_and_gates_are_there(self):
        x, _ = batch(mask_of("none"), sequences=True)
        leaf = tt.capture(model_of(recurrent("reservoir", name="own")), x)["own"].to_dataset()
        assert {"hidden", "memory", "gate_activation"} <= {*leaf.data_vars}
        assert not [name for name in leaf.data_vars if "gradient" in str(name)]


@lru_cache
def masked_leaf(name: str) -> Any:
    """One capture serves several tests, whose registered cells differ."""
    x, y = batch(mask_of("gaps"), sequences=False)
    return tt.capture(model_of(recurrent(name, name="own"), masked=True), x, y)["own"].to_dataset()


class TestDiagnostics:
    @pytest.mark.parametrize("name", OWN)
    def test_measures_of_gradients_take_the_joint_state(self, name):
        leaf = masked_leaf(name)
        states = OWN[name][1].states
        squares = sum(np.square(leaf[f"{state}_gradient"].values).sum(-1) for state in states)
        last = np.where(leaf["valid"], np.arange(STEPS), -1).max(1)
        first = np.argmax(leaf["valid"].values, axis=1)
        norm = np.sqrt(squares)
        samples = np.arange(SAMPLES)
        with np.errstate(divide="ignore"):
            log_right = np.log(norm[samples, first] / norm[samples, last])
        lags = leaf["valid"].values.sum(1) - 1
        log_ratio = diagnostics.lags.signals(leaf)["log_ratio"].values
        np.testing.assert_allclose(log_ratio[samples, lags], log_right, rtol=1e-5)
        assert diagnostics.memory_horizon(leaf).shape == (SAMPLES,)
        assert np.isfinite(diagnostics.effective_steps(leaf)["k90"]).all()
        assert diagnostics.first_nonfinite(leaf) is None

    @pytest.mark.parametrize("name", OWN)
    def test_lyapunov_exponents_sum_to_the_log_determinant(self, name):
        cell, leaf = OWN[name][1], masked_leaf(name)
        weights = {weight: leaf[weight].values.astype(float) for weight in leaf.attrs["weights"].split(", ")}
        weights |= {setting: leaf.attrs[setting] for setting in cell.settings}
        before = {state: np.zeros_like(leaf[state].values[:1, 0], float) for state in cell.states}
        logs = []
        for t in np.flatnonzero(leaf["valid"].values[0]):
            jacobian = cell.jacobian(weights, leaf["input"].values[:1, t].astype(float), before)
            with np.errstate(divide="ignore"):
                logs.append(np.linalg.slogdet(jacobian)[1][0])
            before = {state: leaf[state].values[:1, t].astype(float) for state in cell.states}
        found = diagnostics.lyapunov_spectrum(leaf).values[0]
        assert len(found) == sum(leaf[state].shape[-1] for state in cell.states)
        np.testing.assert_allclose(found.sum(), np.mean(logs), rtol=1e-5)

    def test_of_two_directions_each_has_its_exponents(self):
        x, y = batch(mask_of("none"), sequences=False)
        layer = layers.Bidirectional(recurrent("minimal_gated_unit"), name="own")
        found = diagnostics.lyapunov_spectrum(tt.capture(model_of(layer), x, y))
        assert found.sizes == {"sample": SAMPLES, "direction": 2, "exponent": UNITS}

    def test_a_jacobian_that_is_not_given_is_asked_for(self):
        leaf = masked_leaf("minimal_gated_unit")
        layer_class, cell = OWN["minimal_gated_unit"]
        tt.register_cell(replace(cell, jacobian=None), layer_class)
        with pytest.raises(tt.CellError, match="has no Jacobian"):
            diagnostics.lyapunov_spectrum(leaf)

    def test_a_cell_that_is_not_registered_here_is_asked_for(self):
        leaf = masked_leaf("minimal_gated_unit")
        tt.unregister_cell(OWN["minimal_gated_unit"][0])
        with pytest.raises(tt.CellError, match="Import the file that registers"):
            diagnostics.lyapunov_spectrum(leaf)

    def test_measures_that_need_a_standard_kind_say_so(self):
        for measure in (
            diagnostics.temporal_coherence,
            diagnostics.timescale,
            diagnostics.recurrent_spectrum,
        ):
            with pytest.raises(tt.DiagnosticError):
                measure(masked_leaf("minimal_gated_unit"))

    @pytest.mark.parametrize("name", ["minimal_gated_unit", "reservoir"])
    def test_rows_of_a_lag_matrix_sum_to_the_gradient_of_the_joint_state(self, name):
        x, y = batch(mask_of("none"), sequences=True)
        model = model_of(recurrent(name, return_sequences=True, name="own"))
        asked = [f"{state}_gradient" for state in OWN[name][1].states]
        tree = tt.capture(model, x, y, quantities=[*asked, "lag_matrix"])
        matrix = tree["own"]["lag_matrix"].values
        assert np.triu(matrix, 1).max() == 0.0
        # The last state is seen by one loss alone.
        gradients = [tree["own"][f"{state}_gradient"].values[:, -1] for state in OWN[name][1].states]
        joint = np.linalg.norm(np.concatenate(gradients, axis=-1), axis=-1)
        np.testing.assert_allclose(matrix[:, -1, -1], joint, rtol=1e-5)


class TestWhatDoesNotFit:
    def capture(self, layer: Any) -> Any:
        x, y = batch(mask_of("none"), sequences=False)
        return tt.capture(model_of(layer), x, y)

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_what_is_registered_and_unregistered_counts_from_the_next_capture_on(self, wrapped):
        layer_class, cell = OWN["indrnn"]
        layer = recurrent("indrnn", name="own")
        model = model_of(layers.Bidirectional(layer, name="own") if wrapped else layer)
        x, y = batch(mask_of("none"), sequences=False)
        assert "certificate_time" in tt.capture(model, x, y)["own"]
        tt.unregister_cell(layer_class)
        assert tt.capture(model, x, y)["own"].attrs["kind"] == "rnn"
        tt.register_cell(cell, layer_class)
        assert "certificate_time" in tt.capture(model, x, y)["own"]

    def test_a_subclass_that_computes_something_else_is_not_that_cell(self):
        class Doubled(OWN["indrnn"][0]):
            def call(self, inputs, states):
                output, states = super().call(2 * inputs, states)
                return output, states

        leaf = self.capture(layers.RNN(Doubled(UNITS), name="own"))["own"]
        assert leaf.attrs["kind"] == "rnn"

    def test_a_subclass_of_a_standard_cell_is_what_its_registration_says(self):
        class Scaled(layers.SimpleRNNCell):
            def call(self, inputs, states, training=False):
                h = ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.recurrent_kernel)
                return 0.5 * h, [0.5 * h]

        def adjoint(weights, inputs, states, gradients):
            dz = 0.5 * gradients["hidden"]
            return tt.StepAdjoint(
                inputs=dz @ weights["kernel"].T,
                states={"hidden": dz @ weights["recurrent_kernel"].T},
                weights={"kernel": (inputs, dz), "recurrent_kernel": (states["hidden"], dz)},
            )

        def replay(weights, inputs, states):
            z = inputs @ weights["kernel"] + states["hidden"] @ weights["recurrent_kernel"]
            return {"hidden": 0.5 * z}, {}

        tt.register_cell(tt.Cell(name="scaled", replay=replay, adjoint=adjoint), Scaled)
        leaf = self.capture(layers.RNN(Scaled(UNITS), name="own"))["own"].to_dataset()
        assert leaf.attrs["kind"] == "scaled"
        assert float(leaf["certificate_time"]) <= 1e-5
        assert float(leaf["certificate_weights"]) <= 1e-5

    def test_another_number_of_states_is_named(self):
        tt.register_cell(replace(RESERVOIR, states=("hidden",)), ReservoirCell)
        with pytest.raises(
            tt.CellError, match=r"ReservoirCell has state_size \[3, 4\], .* names the states hidden\."
        ):
            self.capture(recurrent("reservoir"))

    def test_a_weight_that_is_called_like_a_state_is_named(self):
        tt.register_cell(replace(RESERVOIR, states=("hidden", "readout")), ReservoirCell)
        with pytest.raises(tt.CellError, match="of which readout cannot be told apart"):
            self.capture(recurrent("reservoir"))

    @pytest.mark.parametrize(
        ("setting", "told"), [("speed", "ReservoirCell.speed is None"), ("state_size", r"is \[3, 4\]")]
    )
    def test_a_setting_that_is_not_there_or_no_plain_value_is_named(self, setting, told):
        tt.register_cell(replace(RESERVOIR, settings=("rate", setting)), ReservoirCell)
        with pytest.raises(tt.CellError, match=told):
            self.capture(recurrent("reservoir"))

    def test_a_shape_that_does_not_fit_is_named_at_the_first_capture(self):
        layer_class, cell = OWN["minimal_gated_unit"]
        tt.register_cell(
            replace(cell, adjoint=lambda *step: replace(cell.adjoint(*step), inputs=np.zeros(2))), layer_class
        )
        with pytest.raises(
            tt.CellError, match=r"adjoint of cell 'minimal_gated_unit' returned inputs .* \(2,\)"
        ):
            self.capture(recurrent("minimal_gated_unit"))

    def test_mathematics_of_another_cell_fails_its_certificate(self):
        layer_class, cell = OWN["indrnn"]
        tt.register_cell(
            replace(
                cell,
                adjoint=lambda *step: replace(cell.adjoint(*step), inputs=cell.adjoint(*step).inputs * 2),
            ),
            layer_class,
        )
        with pytest.warns(tt.ThroughTimeWarning, match="certificate of own is"):
            tree = self.capture(recurrent("indrnn", name="own"))
        with pytest.raises(tt.DiagnosticError):
            diagnostics.memory_horizon(tree)

    def test_a_layer_that_emits_something_else_is_warned_of_and_computes_what_it_computed(self):
        class Negated(OWN["indrnn"][0]):
            def call(self, inputs, states):
                output, states = super().call(inputs, states)
                return -output, states

        tt.register_cell(replace(OWN["indrnn"][1], name="negated"), Negated)
        x, y = batch(mask_of("none"), sequences=False)
        model = model_of(layers.RNN(Negated(UNITS), name="own"))
        with pytest.warns(tt.ThroughTimeWarning, match="another hidden state|certificate"):
            tree = tt.capture(model, x, y)
        expected = ops.convert_to_numpy(model.layers[1](ops.convert_to_tensor(x)))
        np.testing.assert_allclose(tree["own"]["output"], expected, rtol=1e-6)

    def test_an_installed_package_offers_a_cell(self, monkeypatch):
        layer_class, _ = OWN["indrnn"]
        tt.unregister_cell(layer_class)
        name = f"{layer_class.__module__}.{layer_class.__qualname__}"
        entry = EntryPoint(name=name, value="examples.cells.indrnn:INDRNN", group=registry.GROUP)
        monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
        registry._entry_points.cache_clear()
        leaf = self.capture(recurrent("indrnn", name="own"))["own"].to_dataset()
        assert leaf.attrs["kind"] == "indrnn"
        check_certificate(leaf)
