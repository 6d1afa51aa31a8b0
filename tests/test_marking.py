"""`tt.mark` without a framework: names, who hears them, and what a tree makes of what was heard."""

from __future__ import annotations

import subprocess
import sys
from threading import Thread

import numpy as np
import pytest

import throughtime as tt
from throughtime.adapters.marking import Marked, leaves, listening, of_steps
from throughtime.adapters.records import UNREACHED

STEP = np.arange(24.0).reshape(2, 3, 4)


def test_a_mark_is_the_value_itself_and_loads_no_framework():
    value = object()
    assert tt.mark(value, "forget") is value
    code = "import sys, throughtime as tt; tt.mark(1, 'forget'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert {"torch", "jax", "tensorflow", "keras"}.isdisjoint(loaded.split())


@pytest.mark.parametrize("name", ["a b", "", 3, None, "2nd"])
def test_a_name_is_a_word(name):
    with pytest.raises(tt.CellError, match="word in snake case"):
        tt.mark(0, name)


@pytest.mark.parametrize(
    "name", ["hidden", "kernel", "time", "drive_gradient", "initial_drive", "missing_it"]
)
def test_a_word_that_a_tree_uses_is_refused_with_another_one(name):
    with pytest.raises(tt.CellError, match=f"'my_{name}'"):
        tt.mark(0, name)


def test_one_listener_hears_this_thread_and_only_within_its_block():
    heard = []

    def hear(name, value):
        heard.append(name)
        return value + 1

    with listening(hear):
        assert tt.mark(1, "forget") == 2
        other = Thread(target=lambda: heard.append(tt.mark(5, "reset")))
        other.start()
        other.join()
        with listening(None):
            assert tt.mark(1, "update") == 1
        with pytest.raises(ZeroDivisionError), listening(lambda name, value: 1 / 0):
            tt.mark(1, "candidate")
        assert tt.mark(1, "drive") == 2
    assert tt.mark(1, "output") == 1
    assert heard == ["forget", 5, "drive"]


def test_gates_of_one_shape_lie_side_by_side_and_everything_else_has_its_name():
    values = {
        "forget": STEP,
        "drive": STEP + 1,
        "input": STEP + 2,
        "output": STEP[..., :2],
        "reset": STEP[..., 0],
    }
    found = of_steps(values, {"input": STEP * 5, "drive": STEP * 7}, (), has_gradients=True)
    assert (found.gates, found.names) == (("forget", "input"), ("drive", "output_gate", "reset_gate"))
    np.testing.assert_array_equal(found.arrays["gate_activation"], np.stack([STEP, STEP + 2], 2))
    np.testing.assert_array_equal(found.arrays["gate_gradient"], np.stack([0 * STEP, STEP * 5], 2))
    np.testing.assert_array_equal(found.arrays["drive_gradient"], STEP * 7)
    assert found.dims(STEP, ("unit",)) == {
        **dict.fromkeys(("gate_activation", "gate_gradient"), ("gate", "unit")),
        **dict.fromkeys(("drive", "drive_gradient"), ("unit",)),
        **dict.fromkeys(("output_gate", "output_gate_gradient"), ("output_gate_unit",)),
        **dict.fromkeys(("reset_gate", "reset_gate_gradient"), ()),
    }


def test_a_name_that_the_cell_has_for_a_state_or_weight_is_kept_apart():
    found = of_steps({"drive": STEP, "decay": STEP}, {}, {"drive"}, has_gradients=False)
    assert {*found.arrays} == {"drive_mark", "decay"}


def test_integers_have_no_gradient():
    found = of_steps({"winner": STEP.astype(int)}, {}, (), has_gradients=True)
    assert {*found.arrays} == {"winner"}


def test_outside_of_loops_each_name_is_a_leaf_and_repeated_vectors_are_a_sequence():
    vector, wanted = STEP[:, 0], frozenset({"output", "output_gradient"})
    each = [Marked("memory", vector * k, vector if k == 1 else None) for k in range(3)]
    each += [Marked("scan", STEP, STEP), Marked("scan", STEP + 1, None), Marked("lstm", STEP, None)]
    memory, scan, again, beside = leaves(each, wanted, {"lstm"})
    np.testing.assert_array_equal(memory.arrays["output"], np.stack([0 * vector, vector, 2 * vector], 1))
    np.testing.assert_array_equal(memory.arrays["output_gradient"][:, [0, 2]], 0)
    np.testing.assert_array_equal(memory.arrays["output_gradient"][:, 1], vector)
    assert [leaf.path for leaf in (memory, scan, again, beside)] == ["memory", "scan", "scan@2", "lstm@2"]
    assert again.missing == {"output_gradient": UNREACHED}
    assert leaves(each, frozenset({"hidden"}), ()) == ()
