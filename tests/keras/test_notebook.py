"""The classic functions in a notebook: pictures appear, nothing stray is printed, a cell can be run again."""

from __future__ import annotations

import os

import nbformat
import pytest
from docs._kernels import Kernels
from nbclient import NotebookClient

IMPORTS = """
import numpy as np
import keras
import throughtime as tt
rng = np.random.default_rng(0)
x, y = rng.normal(size=(4, 7, 2)).astype("float32"), rng.normal(size=(4, 1)).astype("float32")
"""
# Nothing is named: Keras counts on, `lstm`, then `lstm_2` when the cell is run again.
MODEL = """
model = keras.Sequential([
    keras.Input((7, 2)),
    keras.layers.LSTM(3, return_sequences=True),
    keras.layers.LSTM(3),
    keras.layers.Dense(1),
])
model.compile("adam", "mse")
"""
CAPTURE = """
tree = tt.capture(model, x, y)
print(tree["lstm"]["output_gradient"].shape, tree["lstm_1"]["output_gradient"].shape)
"""
PICTURES = """
grads = tt.get_rnn_gradients(model, x, y, layer_idx=0)
tt.show_features_1D(grads)
tt.show_features_1D(grads[0])
"""
CELLS = (IMPORTS, MODEL, CAPTURE, PICTURES, MODEL, CAPTURE)


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """The cells after they ran, in a kernel that chooses its way to draw as a fresh notebook does."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    client = NotebookClient(
        notebook,
        kernel_manager_class=Kernels,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}},
    )
    client.execute(env=environment)
    return notebook.cells


def outputs(cell, kind):
    return [output for output in cell.outputs if output.output_type == kind]


def test_each_figure_of_a_cell_appears_once(cells):
    images = [output for output in cells[3].outputs if "image/png" in output.get("data", {})]
    assert len(images) == 2


def test_returned_value_is_one_short_line(cells):
    texts = [output.data["text/plain"] for output in outputs(cells[3], "execute_result")]
    assert all("\n" not in text for text in texts)
    assert not any(text.startswith(("(<", "array(")) for text in texts)


def test_nothing_is_printed_and_nothing_warned(cells):
    assert not outputs(cells[3], "stream")
    assert not [each for each in outputs(cells[2], "stream") if each.name == "stderr"]


def test_model_built_again_is_found_by_the_same_names(cells):
    first, again = ("".join(each.text for each in outputs(cell, "stream")) for cell in (cells[2], cells[5]))
    assert first == again == "(4, 7, 3) (4, 3)\n"
