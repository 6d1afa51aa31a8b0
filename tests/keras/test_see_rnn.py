"""The names of see-rnn on Keras 3, against gradients by the backend's own autodiff."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from docs._examples import EXAMPLES, example
from tests import see_rnn_cases as cases
from tests.keras import plain_gradients as plain

import throughtime as tt
import throughtime.compat.see_rnn as see_rnn

LAYERS = [("LSTM", {}), ("GRU", {"backwards": True}), ("SimpleRNN", {}), ("LSTM", {"both_ways": True})]


def mse(y: Any, prediction: Any) -> Any:
    return keras.ops.mean(keras.ops.square(prediction - keras.ops.convert_to_tensor(y)))


@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_gradients_and_outputs_are_those_of_autodiff(kind: str, options: dict[str, bool]) -> None:
    model, (x, y) = cases.model_of(keras, kind, **options), cases.batch()
    first, second, dense = model.layers[1:]
    output = keras.ops.convert_to_numpy(first(x))
    np.testing.assert_allclose(see_rnn.get_outputs(model, "first", x), output, rtol=1e-5, atol=1e-6)
    expected = plain.gradient(lambda leaf: mse(y, dense(second(leaf))), output)
    np.testing.assert_allclose(see_rnn.get_gradients(model, 1, x, y), expected, rtol=1e-4, atol=1e-7)
    last = keras.ops.convert_to_numpy(second(output))
    expected = plain.gradient(lambda leaf: mse(y, dense(leaf)), last)
    np.testing.assert_allclose(see_rnn.get_gradients(model, "second", x, y), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_weight_gradients_are_those_of_autodiff(kind: str, options: dict[str, bool]) -> None:
    model, (x, y) = cases.model_of(keras, kind, **options), cases.batch()

    def loss(leaves: Any) -> Any:
        prediction, penalties = plain.call(model, x, weights=leaves)
        return mse(y, prediction) + sum(penalties), ()

    weights = [keras.ops.convert_to_numpy(each) for each in model.trainable_variables]
    expected = plain.gradients(loss, weights)[0]
    found = see_rnn.get_gradients(model, "*", x, y, mode="weights")
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-6)
    of_one = see_rnn.get_weights(model, 1, mode="grads", input_data=x, labels=y)
    for one, other in zip(of_one, expected, strict=False):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-6)


def test_sample_weights_and_the_phase_of_learning_are_heard() -> None:
    (x, y), keep = cases.batch(), np.array([0, 0, 1, 0, 0], "float32")
    found = see_rnn.get_gradients(cases.model_of(keras), 1, x, y, sample_weight=keep)
    assert np.abs(found[2]).max() > 0
    assert not found[[0, 1, 3, 4]].any()
    model = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Dropout(0.9, seed=0, name="drop")])
    assert (see_rnn.get_outputs(model, "drop", x, learning_phase=1) == 0).mean() > 0.5
    np.testing.assert_allclose(see_rnn.get_outputs(model, "drop", x), x)


def test_a_script_from_the_readme_runs(tmp_path: Any, capsys: Any) -> None:
    cases.check_readme_script(keras, tmp_path, capsys)


def test_weights_are_those_of_the_model() -> None:
    cases.check_weights(keras)


def test_layers_are_found_by_all_their_names() -> None:
    cases.check_layers(keras)


def test_what_has_no_meaning_is_refused_with_the_successor() -> None:
    cases.check_refusals(keras)


@pytest.mark.parametrize("name", cases.NAMES)
def test_an_argument_that_never_was_is_refused(name: str) -> None:
    cases.check_unknown_argument(keras, name)


@pytest.mark.parametrize("name", [name for name in cases.NAMES if name.startswith("features")])
def test_an_option_of_the_old_plots_works_or_is_refused(name: str) -> None:
    cases.check_old_option(name)


def test_pictures_take_the_old_arguments(monkeypatch: Any) -> None:
    cases.check_pictures(monkeypatch)


@pytest.mark.parametrize("name", [name for name in dir(see_rnn) if callable(getattr(see_rnn, name))])
def test_each_name_leads_to_its_successor(name: str) -> None:
    assert "New code: " in getattr(see_rnn, name).__doc__


def test_all_old_names_are_here_and_in_the_table() -> None:
    page = (cases.ROOT / "docs" / "coming_from" / "see_rnn.md").read_text("utf-8")
    for name in cases.NAMES:
        assert callable(getattr(see_rnn, name))
        assert f"`{name}" in page


def test_a_torch_module_is_refused_with_the_remedy() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(tt.UnsupportedModelError, match=r"tt\.capture\(model, x, y, loss=…\)"):
        see_rnn.get_gradients(torch.nn.LSTM(2, 3), 1, None, None)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if "see_rnn" in name])
def test_an_example_of_the_site_runs(name: str) -> None:
    assert "Traceback (most recent call last):" not in example(name)
