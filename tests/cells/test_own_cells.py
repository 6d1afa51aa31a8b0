"""A cell of one's own gives exact derivatives over time, masks and directions, and what is wrong is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cells.cases import MASKS, batch, difference, in_single_precision, layer, solved_case
from tests.cells.own import CELLS, MEMORY, OWN_LSTM, RESERVOIR, Own, own_case

import throughtime as tt
from throughtime.cells import own_jacobians, own_step, solve_own, textbook

FLAGS = st.fixed_dictionaries({"runs_backward": st.booleans(), "zero_output": st.booleans()})


def quantities(case: Own) -> frozenset[str]:
    states = {
        form for name in case.cell.states for form in (name, f"{name}_gradient", f"initial_{name}_gradient")
    }
    return frozenset(
        states
        | {"gate_activation", "gate_gradient", "input_gradient", "step_contribution"}
        | {f"{name}_gradient" for name in case.weights}
    )


def solved(case: Own) -> dict[str, np.ndarray]:
    return solve_own(case.cell, case.weights, case.passed, quantities(case))


class TestGradients:
    @pytest.mark.parametrize("name", CELLS)
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(
        seed=st.integers(0, 2**16),
        shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)),
        masked=st.sampled_from(MASKS),
        gradient=st.sampled_from(["all", "last", "final", "everything"]),
        flags=FLAGS,
    )
    def test_each_is_the_derivative_of_the_loss(self, name, seed, shape, masked, gradient, flags):
        samples, steps, features, units = shape
        options = {"samples": samples, "steps": steps, "features": features, "units": units}
        case = own_case(
            name, np.random.default_rng(seed), masked=masked, gradient=gradient, **options, **flags
        )
        found = solved(case)
        taps = {"input": found["input_gradient"]}
        for state in case.cell.states:
            taps |= {
                state: found[f"{state}_gradient"],
                f"initial_{state}": found[f"initial_{state}_gradient"],
            }
        for position, gate in enumerate(case.cell.gates):
            taps[gate] = found["gate_gradient"][:, :, position]
        for weight in case.weights.keys() - {*case.cell.settings}:
            taps[f"weight_{weight}"] = found[f"{weight}_gradient"]
        wrong = {tap: difference(values, case.derivative(tap)) for tap, values in taps.items()}
        assert {tap: error for tap, error in wrong.items() if error > 1e-10} == {}

    @pytest.mark.parametrize("flags", [{}, {"runs_backward": True}, {"zero_output": True}])
    @pytest.mark.parametrize("masked", MASKS)
    def test_a_standard_kind_written_as_a_cell_gives_what_its_closed_form_gives(self, masked, flags):
        rng = np.random.default_rng(3)
        case = solved_case(
            layer("lstm", rng), batch(rng, masked=masked, states=True, gradient="everything", **flags)
        )
        known, passed = case.layer, case.passed
        weights = {name: getattr(known, name) for name in ("kernel", "recurrent_kernel", "bias")}
        weights = {name: each.reshape(*each.shape[:-2], -1) for name, each in weights.items()}
        passed = replace(
            passed,
            further_initial=(passed.initial_cell,),
            further_final_gradients=(passed.final_cell_gradient,),
        )
        right = textbook(known, passed)
        found = solve_own(OWN_LSTM, weights, passed, frozenset(right))
        assert found.keys() == right.keys()
        errors = {name: difference(found[name].reshape(right[name].shape), right[name]) for name in right}
        assert max(errors.values()) <= 1e-12, errors

    @pytest.mark.parametrize("name", CELLS)
    def test_weight_gradients_do_not_see_what_stands_in_the_padding(self, name):
        case = own_case(name, np.random.default_rng(1), masked="random", gradient="everything")
        spoiled = np.where(case.passed.valid[:, :, None], case.passed.inputs, np.nan)
        found, right = solved(replace(case, passed=replace(case.passed, inputs=spoiled))), solved(case)
        for quantity in found.keys() - {"gate_activation"}:
            np.testing.assert_array_equal(found[quantity], right[quantity])

    def test_the_precision_of_the_pass_is_kept(self):
        case = own_case("minimal_gated_unit", np.random.default_rng(1))
        single = replace(case, passed=in_single_precision(case.passed))
        assert {values.dtype for values in solved(single).values()} == {np.dtype(np.float32)}

    def test_a_state_that_nothing_was_given_for_starts_from_zero(self):
        case = own_case("minimal_gated_unit", np.random.default_rng(1))
        zeros = replace(case, passed=replace(case.passed, initial_hidden=np.zeros((3, 3)))).emitted()
        nothing = replace(zeros, passed=replace(zeros.passed, initial_hidden=None))
        left, right = solved(nothing), solved(zeros)
        np.testing.assert_array_equal(left["kernel_gradient"], right["kernel_gradient"])

    @pytest.mark.parametrize("name", ["minimal_gated_unit", "reservoir"])
    def test_weights_given_by_factors_are_their_outer_products(self, name):
        case = own_case(name, np.random.default_rng(2), masked="random")

        def formed(*step):
            back = case.cell.adjoint(*step)
            weights = {name: own_step.formed(each) for name, each in back.weights.items()}
            return replace(back, weights=weights)

        left, right = solved(case), solved(replace(case, cell=replace(case.cell, adjoint=formed)))
        assert left.keys() == right.keys()
        for quantity in left:
            np.testing.assert_allclose(left[quantity], right[quantity], rtol=1e-12, atol=1e-14)


class TestJacobians:
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(
        seed=st.integers(0, 2**16), name=st.sampled_from([*CELLS]), masked=st.sampled_from(MASKS), flags=FLAGS
    )
    def test_their_product_is_the_adjoint(self, seed, name, masked, flags):
        case = own_case(name, np.random.default_rng(seed), masked=masked, gradient="final", **flags)
        found, states = solved(case), case.cell.states
        further = {state: found[state] for state in states[1:]}
        jacobians = own_jacobians(case.cell, case.weights, case.passed, further)
        row = [case.passed.final_hidden_gradient, *case.passed.further_final_gradients]
        row = np.concatenate(row, axis=-1)[:, None]
        for t in range(jacobians.shape[1])[:: 1 if case.passed.runs_backward else -1]:
            row = row @ jacobians[:, t]
        expected = np.concatenate([found[f"initial_{state}_gradient"] for state in states], axis=-1)
        assert difference(row[:, 0], expected) <= 1e-12

    def test_a_cell_without_one_says_so(self):
        case = own_case("indrnn", np.random.default_rng(0))
        with pytest.raises(tt.CellError, match="has no Jacobian: pass jacobian="):
            own_jacobians(replace(case.cell, jacobian=None), case.weights, case.passed, {})


class TestWhatDoesNotFit:
    """The first step of a capture says which function returned what."""

    def run(self, **changes):
        case = own_case("reservoir", np.random.default_rng(0))
        return solved(replace(case, cell=replace(RESERVOIR, **changes)))

    @pytest.mark.parametrize(
        ("returned", "told"),
        [
            (lambda states, gates: states, r"returned a dict; expected two dicts, \(states, gates\)"),
            (lambda states, gates: (states["hidden"], gates), "states from cell 'reservoir' is a ndarray"),
            (
                lambda states, gates: ({"hidden": states["hidden"]}, gates),
                "named 'hidden'; expected 'hidden', 'memory'",
            ),
            (lambda states, gates: (states, {}), "gates named none; expected 'open'"),
            (
                lambda states, gates: ({**states, "memory": 0.0}, gates),
                r"states\['memory'\] as float64 with shape \(\)",
            ),
            (
                lambda states, gates: (states, {"open": gates["open"][:2]}),
                r"shape \(2, 3\); expected floats with shape \(3, 3\)",
            ),
            (lambda states, gates: (states, {"open": gates["open"] + 1j}), "complex128"),
        ],
    )
    def test_of_the_replay(self, returned, told):
        def replay(weights, inputs, states):
            return returned(*RESERVOIR.replay(weights, inputs, states))

        with pytest.raises(tt.CellError, match=told):
            self.run(replay=replay)

    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            (lambda back: None, "returned a NoneType; expected a tt.StepAdjoint"),
            (
                lambda back: replace(back, inputs=back.inputs.T),
                r"inputs as float64 with shape \(2, 3\); .*\(3, 2\)",
            ),
            (lambda back: replace(back, states={}), "states named none; expected 'hidden', 'memory'"),
            (lambda back: replace(back, gates={"shut": 0}), "gates named 'shut'; expected 'open'"),
            (
                lambda back: replace(back, weights={"krenel": 0}),
                "weights 'krenel'; the layer has 'input_map'",
            ),
            (lambda back: replace(back, weights={}), "recurrent_weight of cell 'reservoir' is 'recurrent'"),
            (
                lambda back: replace(back, weights={**back.weights, "bias": back.gates["open"].sum(0)}),
                r"weights\['bias'\] with shape \(3,\); expected \(3, 3\), each sample's share\.",
            ),
            (
                lambda back: replace(back, weights={**back.weights, "kernel": back.weights["recurrent"]}),
                r"weights\['kernel'\] with shape of its factors .*; expected \(3, 2, 3\), .* pair",
            ),
            (lambda back: replace(back, weights=[]), "weights from cell 'reservoir' is a list"),
            (lambda back: replace(back, totals={"mem": 0}), "totals named 'mem'"),
        ],
    )
    def test_of_the_adjoint(self, changed, told):
        with pytest.raises(tt.CellError, match=told):
            self.run(adjoint=lambda *step: changed(RESERVOIR.adjoint(*step)))

    def test_of_the_jacobian(self):
        case = own_case("indrnn", np.random.default_rng(0))
        cell = replace(case.cell, jacobian=lambda weights, inputs, states: np.eye(3))
        with pytest.raises(
            tt.CellError, match=r"jacobian of cell 'indrnn' returned result as float64 with shape \(3, 3\)"
        ):
            own_jacobians(cell, case.weights, case.passed, {})

    @pytest.mark.parametrize("what", ["weights", "states"])
    def test_a_name_that_is_not_there_is_answered_with_those_that_are(self, what):
        def replay(weights, inputs, states):
            return {"weights": weights, "states": states}[what]["hiddn"]

        with pytest.raises(tt.CellError, match=rf"reads {what}\['hiddn'\]; there is: (input_map|hidden)"):
            self.run(replay=replay)

    def test_mathematics_of_another_layer_is_warned_of(self):
        def replay(weights, inputs, states):
            after, gates = RESERVOIR.replay(weights, inputs, states)
            return {**after, "hidden": -after["hidden"]}, gates

        with pytest.warns(
            tt.ThroughTimeWarning, match="another hidden state than the layer emitted, off by 200%"
        ):
            self.run(replay=replay)


class TestCell:
    def cell(self, **changes):
        return replace(RESERVOIR, **changes)

    @pytest.mark.parametrize("missing", ["replay", "adjoint"])
    def test_a_missing_function_is_named_with_what_it_is_for(self, missing):
        functions = {"replay": RESERVOIR.replay, "adjoint": RESERVOIR.adjoint}
        del functions[missing]
        with pytest.raises(tt.CellError, match=f"'short' has no {missing}: pass {missing}=, a function"):
            tt.Cell(name="short", **functions)

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"name": "lstm"}, "stands for a kind that throughtime knows"),
            ({"name": "my cell"}, "a word in snake case"),
            ({"jacobian": 3}, "jacobian of cell 'reservoir' is a int"),
            ({"states": ("memory", "hidden")}, "first is 'hidden'"),
            ({"states": ("hidden", "hidden")}, "a tuple of different words"),
            ({"states": "hidden"}, "a tuple of different words"),
            ({"states": ("hidden", "output")}, "'output' of cell 'reservoir' clashes with 'output'"),
            ({"states": ("hidden", "unit")}, "clashes with 'unit'"),
            ({"states": ("hidden", "kernel")}, "clashes with 'kernel'"),
            (
                {"states": ("hidden", "memory_gradient")},
                "clashes with 'memory_gradient'.* such as 'own_memory'",
            ),
            ({"gates": ("open", "open")}, "gates of cell 'reservoir' is"),
            ({"settings": ("kind",)}, "setting 'kind' of cell 'reservoir' clashes"),
        ],
    )
    def test_names_that_mean_something_else_are_refused(self, changes, told):
        with pytest.raises(tt.CellError, match=told):
            self.cell(**changes)

    def test_a_state_may_be_called_cell(self):
        assert OWN_LSTM.states == ("hidden", "cell")


SHAPES = {"kernel": (2, 6), "recurrent_kernel": (3, 6), "bias": (6,)}
UNIT = CELLS["minimal_gated_unit"][0]


class TestCheckCell:
    def wrong(self, changed, **options):
        cell = replace(UNIT, adjoint=lambda *step: changed(UNIT.adjoint(*step)), **options)
        with pytest.raises(tt.CellError) as caught:
            tt.testing.check_cell(cell, SHAPES, features=2, units=3)
        return str(caught.value).splitlines()[-1]

    def test_a_right_cell_passes_and_the_report_lists_what_was_compared(self):
        report = tt.testing.check_cell(UNIT, SHAPES, features=2, units=3)
        assert report.passed
        assert [line.what for line in report.lines] == [
            *("inputs", "state hidden", "weight kernel", "weight recurrent_kernel", "weight bias"),
            *("gate forget", "gate candidate", "jacobian hidden by hidden"),
        ]
        assert max(line.error for line in report.lines) < 1e-10
        assert "gate forget" in str(report)
        assert str(report).endswith("All that was compared is right.")

    def test_several_states_of_different_widths_are_checked_block_by_block(self):
        shapes = {"input_map": (2, MEMORY), "offset": (MEMORY,), "kernel": (2, 3), "bias": (3,)}
        shapes |= {"readout": (MEMORY, 3), "recurrent": (3, 3), "rate": 0.8}
        report = tt.testing.check_cell(RESERVOIR, shapes, 2, {"hidden": 3, "memory": MEMORY})
        told = {line.what: line for line in report.lines}
        assert told["jacobian memory by hidden"].error == 0.0
        assert told["total memory"].error is None
        assert "as the gradient of bias" in told["gate open"].note

    def test_arrays_are_taken_as_they_are(self):
        case = own_case("indrnn", np.random.default_rng(0))
        assert tt.testing.check_cell(case.cell, case.weights, 2, 3).passed

    @pytest.mark.parametrize(
        ("changed", "wrong"),
        [
            (lambda back: replace(back, inputs=2 * back.inputs), "Wrong: inputs."),
            (lambda back: replace(back, states={"hidden": -back.states["hidden"]}), "Wrong: state hidden."),
            (
                lambda back: replace(back, weights={**back.weights, "bias": 2 * back.weights["bias"]}),
                "Wrong: weight bias.",
            ),
            (
                lambda back: replace(
                    back, gates={"forget": back.gates["candidate"], "candidate": back.gates["forget"]}
                ),
                "Wrong: gate forget, gate candidate.",
            ),
            (
                lambda back: replace(back, weights={n: w for n, w in back.weights.items() if n != "kernel"}),
                "Wrong: weight kernel.",
            ),
            (lambda back: replace(back, inputs=np.nan * back.inputs), "Wrong: inputs."),
        ],
    )
    def test_what_is_wrong_is_named(self, changed, wrong):
        assert self.wrong(changed) == wrong

    def test_a_wrong_jacobian_is_named(self):
        assert self.wrong(lambda back: back, jacobian=lambda w, x, s: np.zeros((4, 3, 3))) == (
            "Wrong: jacobian hidden by hidden."
        )

    def test_what_is_not_given_is_said_and_no_mistake(self):
        cell = replace(
            UNIT,
            adjoint=lambda *step: replace(UNIT.adjoint(*step), weights={}),
            jacobian=None,
            recurrent_weight=None,
        )
        report = tt.testing.check_cell(cell, SHAPES, features=2, units=3)
        assert report.passed
        assert {line.what for line in report.lines if line.error is None} == {
            *("weight kernel", "weight recurrent_kernel", "weight bias", "jacobian"),
        }

    def test_widths_are_given_for_each_state(self):
        with pytest.raises(
            tt.CellError, match="units names hidden; cell 'reservoir' has the states hidden, memory"
        ):
            tt.testing.check_cell(RESERVOIR, {}, 2, {"hidden": 3})
