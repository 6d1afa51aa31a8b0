"""Examples for public names whose docstring has none: errors, parts of a plot and the names of see-rnn.

They run when the site is built, which shows what they print or raise, and in tests.
"""

from __future__ import annotations

import ast
import contextlib
import io
import sys
import tempfile
import warnings
from typing import Any

import throughtime as tt

LEAK = 'print(tt.diagnostics.Leak(sample=0, time=2, state="cell", norm=0.3))'
PLOT = """
import throughtime as tt
tree = tt.testing.constant_gates(steps=12)
"""
ERROR = """
import numpy as np, torch
import throughtime as tt
torch.manual_seed(0)
model, x, y = torch.nn.LSTM(2, 3, batch_first=True), torch.ones(4, 60, 2), torch.zeros(4, 3)
loss = lambda output, y: ((output[0][:, -1] - y) ** 2).mean()
"""
SEE_RNN = """
import keras, numpy as np
import throughtime.compat.see_rnn as see_rnn
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((6, 2)), keras.layers.LSTM(4, name="lstm", bias_regularizer="l2")])
model.compile("sgd", "mse")
x, y = np.ones((3, 6, 2), "float32"), np.ones((3, 4), "float32")
outputs = see_rnn.get_outputs(model, "lstm", x)
"""
PLOTS = {
    "Axis": "tt.plots.lines(tree).panels[0].y.label",
    "Band": '[type(mark).__name__ for mark in tt.plots.lines(tree, spread="band").panels[0].marks]',
    "Dots": "[type(mark).__name__ for mark in tt.plots.spectrum(tree).panels[0].marks]",
    "Image": "[type(mark).__name__ for mark in tt.plots.heatmap(tree).panels[0].marks]",
    "Interactive": "type(tt.plots.heatmap(tree).interactive()).__name__",
    "Line": "[type(mark).__name__ for mark in tt.plots.lines(tree).panels[0].marks]",
    "Panel": "[panel.title for panel in tt.plots.gates(tree).panels]",
    "Rectangles": "{type(mark).__name__ for panel in tt.plots.weights(tree).panels for mark in panel.marks}",
    "Slider": 'tt.plots.heatmap(tree, sliders=["sample"]).sliders[0].words[:3]',
    "Text": "tt.plots.lines(tree).panels[0].marks[-1]",
}
ERRORS = {
    "AmbiguousLayerError": 'two = {side: torch.nn.ModuleDict({"rnn": torch.nn.GRU(2, 3)}) for side in "ab"}\n'
    'tt.weights(torch.nn.ModuleDict(two), "rnn")',
    "ArgumentError": 'tt.capture(model, x, y, loss=loss, training="yes")',
    "BatchError": "tt.capture(model, x[..., :1], y, loss=loss)",
    "CellError": 'tt.mark(torch.ones(2), "hidden state")',
    "DiagnosticError": 'tt.diagnostics.memory_horizon(tt.testing.decaying()["rnn"], threshold=2)',
    "FeatureError": "tt.show_features_1D(np.ones((2, 2, 2, 2, 2)))",
    "LayerNotFoundError": 'tt.capture(model, x, y, loss=loss, layers="gru")',
    "LossError": "tt.capture(model, x, y)",
    "MissingDependencyError": 'import sys\nsys.modules["trackio"] = None  # as if it were not installed\n'
    "tt.loggers.Trackio()",
    "MonitorError": 'tt.Monitor("run.zarr", (x, y), loss=loss, every=1, budget=1000).begin(model)',
    "NoGradientError": "tt.capture(model, x, y, loss=lambda output, y: y.mean())",
    "PictureError": "tt.plots.evolution(tt.testing.decaying())",
    "SchemaError": "tt.plots.lag_matrix(tt.testing.decaying())",
    "StoreError": 'tt.open_run("gone.zarr")',
    "SweepError": 'tt.sweep(model, (x, y), loss=loss, to="sweep", shard_size=0)',
    "ThroughTimeError": 'tt.open_run("gone.zarr")',
    "ThroughTimeWarning": "tree = tt.capture(model, x)",
    "TooLargeError": "tt.capture(model, x, y, loss=loss, budget=1000)",
    "UnbuiltModelError": 'lazy = torch.nn.ModuleDict({"head": torch.nn.LazyLinear(1), "rnn": model})\n'
    "tt.capture(lazy, x, y, loss=loss)",
    "UnsupportedModelError": 'tt.capture("model.keras", x, y)',
    "VerdictError": "tt.assertions.assert_reaches(model, x, y, lag=50, loss=loss)",
}
OLD_NAMES = {
    "detect_nans": "see_rnn.detect_nans(np.array([1.0, np.nan]))",
    "features_0D": "fig, axes = see_rnn.features_0D(outputs)",
    "features_1D": "fig, axes = see_rnn.features_1D(x)",
    "features_2D": "fig, axes = see_rnn.features_2D(x)",
    "features_hist": "fig, axes = see_rnn.features_hist(outputs)",
    "features_hist_v2": "fig, axes = see_rnn.features_hist_v2([[outputs], [2 * outputs]])",
    "get_full_name": 'see_rnn.get_full_name(model, "lst")',
    "get_gradients": 'see_rnn.get_gradients(model, "lstm", x, y).shape',
    "get_layer": 'see_rnn.get_layer(model, "lst").name',
    "get_outputs": "outputs.shape",
    "get_rnn_weights": '[each.shape for each in see_rnn.get_rnn_weights(model, "lstm")]',
    "get_weight_penalties": "see_rnn.get_weight_penalties(model)",
    "get_weights": '[each.shape for each in see_rnn.get_weights(model, "lstm")]',
    "hist_clipped": "see_rnn.hist_clipped(outputs)",
    "rnn_heatmap": 'picture = see_rnn.rnn_heatmap(model, "lstm")',
    "rnn_histogram": 'fig, axes = see_rnn.rnn_histogram(model, "lstm")',
    "rnn_summary": 'see_rnn.rnn_summary(model, "lstm")',
    "scalefig": "fig, axes = see_rnn.features_0D(outputs)\nsee_rnn.scalefig(fig)",
    "weight_loss": "see_rnn.weight_loss(model)",
    "weights_norm": 'see_rnn.weights_norm(model, "lstm")',
}
EXAMPLES = {
    **{f"throughtime.picture.{name}": (PLOT, code) for name, code in PLOTS.items()},
    **{f"throughtime.{name}": (ERROR, code) for name, code in ERRORS.items()},
    **{f"throughtime.compat.see_rnn.{name}": (SEE_RNN, code) for name, code in OLD_NAMES.items()},
    "throughtime.diagnostics.NonFinite": (
        PLOT,
        'tree["rnn"]["hidden"][0, 3] = float("nan")\ntt.diagnostics.first_nonfinite(tree)',
    ),
    "throughtime.diagnostics.Difference": (
        PLOT,
        'other = tree.copy(deep=True)\nother["rnn"]["hidden"][0, 3] += 1\n'
        "tt.diagnostics.first_difference(tree, other)",
    ),
    "throughtime.diagnostics.Leak": (PLOT, LEAK),
}


def example(name: str) -> list[str]:
    """Run an example in a folder of its own, and give it as a session with what it showed."""
    setup, code = EXAMPLES[name]
    names: dict[str, Any] = {}
    lines = [f">>> {line}" for line in (setup + code).strip().splitlines()]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return lines + _shown(setup + code, names)


def _shown(code: str, names: dict[str, Any]) -> list[str]:
    """Run code; give what it printed, the value of its last line, its warning or its error."""
    *before, last = ast.parse(code).body  # each a line, or a simple statement
    printed = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(printed):
        warnings.simplefilter("always")
        exec(compile(ast.Module(before, []), "example", "exec"), names)  # our own text
        caught.clear()
        try:
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), "example", "eval"), names)
                if value is not None:
                    printed.write(repr(value))
            else:
                exec(compile(ast.Module([last], []), "example", "exec"), names)
        except Exception as error:
            return _traceback(error)
        finally:
            if sys.modules.get("trackio", caught) is None:
                del sys.modules["trackio"]
    ours = (each for each in caught if issubclass(each.category, tt.ThroughTimeWarning))
    warned = [f"{each.category.__name__}: {each.message}" for each in ours]
    return printed.getvalue().splitlines() + warned[:1]


def _traceback(error: Exception) -> list[str]:
    words = f"{type(error).__name__}: {error}".splitlines()
    return ["Traceback (most recent call last):", "    ...", *words]


def add_example(app: object, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Give a docstring without an example the one from here, before numpydoc reads it."""
    if name in EXAMPLES and not any(">>>" in line for line in lines):
        lines += ["", "Examples", "--------", *example(name), ""]
