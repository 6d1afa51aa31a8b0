"""The models of `examples/zoo`, of the kinds that users bring: each is looked into and drawn, whole."""

from __future__ import annotations

import runpy
from functools import lru_cache
from importlib import util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from matplotlib import pyplot as plt

import throughtime as tt

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "zoo"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))
# Name and training=: one of them also with the dropout that is active when it trains.
CAPTURES = [(name, False) for name in NAMES] + [("weather_gru", True)]


@lru_cache
def example(name: str) -> Any:
    """The file as a module, and in it the model and the batch, made once."""
    spec = util.spec_from_file_location(f"zoo_{name}", FOLDER / f"{name}.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    keras.utils.set_random_seed(0)
    module.model, (module.x, module.y) = module.build(), module.batch()
    return module


@lru_cache
def captured(name: str, training: bool = False) -> dict[str, Any]:
    made = example(name)
    tree = tt.capture(made.model, made.x, made.y, training=training)
    return {node.path.removeprefix("/"): node.to_dataset() for node in tree.leaves}


def belongs(path: str, layer: str) -> bool:
    """Whether a leaf is the layer's own, or that of a part of it: a cell of a stack, what is distributed."""
    return path == layer or path.startswith(f"{layer}/")


def test_the_zoo_is_large_and_listed():
    assert len(NAMES) >= 20
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"[{name}]({name}.py)" not in listed] == []


@pytest.mark.parametrize("name", NAMES)
def test_batches_are_small_seeded_and_differ_by_seed(name):
    made = example(name)
    again, other = made.batch(), made.batch(seed=1)
    arrays, repeated, others = (keras.tree.flatten(each) for each in ((made.x, made.y), again, other))
    for array, same in zip(arrays, repeated, strict=True):
        np.testing.assert_array_equal(array, same)
    assert any((array != changed).any() for array, changed in zip(arrays, others, strict=True))
    assert {str(array.dtype) for array in arrays} <= {"float32", "int32"}
    assert sum(array.size for array in arrays) < 20_000


@pytest.mark.parametrize(("name", "training"), CAPTURES)
def test_every_recurrent_layer_is_looked_into(name, training):
    leaves, expected = captured(name, training), example(name).RECURRENT
    for layer in expected:
        inside = [leaf for path, leaf in leaves.items() if belongs(path, layer)]
        assert inside, f"{layer} is not in {list(leaves)}"
        for leaf in inside:
            reasons = {key: value for key, value in leaf.attrs.items() if key.startswith("missing_")}
            assert {"hidden", "hidden_gradient", "certificate_weights"} <= set(leaf.data_vars), reasons
            assert np.abs(leaf["hidden_gradient"]).max() > 0
    assert [path for path in leaves if not any(belongs(path, layer) for layer in expected)] == []


@pytest.mark.parametrize(("name", "training"), CAPTURES)
def test_everything_captured_is_finite(name, training):
    for path, leaf in captured(name, training).items():
        # What passes between stacked cells has no gradient of the framework's to compare with.
        wrong = [name for name, array in leaf.data_vars.items() if not np.isfinite(array).all()]
        assert wrong == (["certificate_time"] if path in ("stack/1", "stack/2") else []), path


@pytest.mark.parametrize(("name", "training"), CAPTURES)
def test_what_is_inside_reproduces_the_framework(name, training):
    for path, leaf in captured(name, training).items():
        errors = [leaf[each] for each in ("certificate_weights", "certificate_time") if each in leaf]
        assert not any((error > 1e-5).any() for error in errors), (path, errors)


@pytest.mark.parametrize("name", NAMES)
def test_the_classic_functions_draw_it(name):
    made, leaves = example(name), captured(name)
    layer = next(
        layer
        for layer in made.RECURRENT  # an encoder whose last states alone are used has no output gradient
        if any(belongs(path, layer) and "output_gradient" in leaf for path, leaf in leaves.items())
    )
    if f"{layer}@2" in made.RECURRENT:
        with pytest.raises(tt.NoGradientError, match="one leaf per call"):
            tt.get_rnn_gradients(made.model, made.x, made.y, layer_name=layer)
        gradients = leaves[layer]["output_gradient"].values
    else:
        gradients = tt.get_rnn_gradients(made.model, made.x, made.y, layer_name=layer)
    assert np.abs(gradients).max() > 0
    has_time = gradients.ndim > 2
    gradients = gradients.reshape(*gradients.shape[: 1 + has_time], -1)  # maps have rows and columns
    if keras.backend.backend() != "torch":  # what is drawn is an array: once is enough
        return
    for show in (tt.show_features_1D, tt.show_features_2D) if has_time else (tt.show_features_0D,):
        figure, _ = show(gradients[:2, ..., :8])
        assert figure.axes
        plt.close(figure)


def test_a_model_run_as_a_script_prints_its_layers_and_saves_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(FOLDER)
    runpy.run_path(str(FOLDER / "sentiment_lstm.py"), run_name="__main__")
    assert "/lstm" in capsys.readouterr().out
    assert (tmp_path / "sentiment_lstm.png").stat().st_size > 5_000
