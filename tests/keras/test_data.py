"""Whatever brings a batch gives the tree of the same arrays, and nothing else about the data moves."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from tests.keras.comparison import difference
from tests.matrix import SPECIALS, Row, matrix_data

import throughtime as tt

BY_ARRAYS = [row for row in SPECIALS if row.oracle == "data"]


def name_of(row: Row) -> str:
    return row.name


@pytest.mark.parametrize("row", BY_ARRAYS, ids=name_of)
def test_tree_is_that_of_the_same_arrays(row: Row) -> None:
    model, x, y, options = row.build("float32")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", tt.ThroughTimeWarning)
        tree = tt.capture(model, x, y)
    said = [str(warning.message) for warning in caught if warning.category is tt.ThroughTimeWarning]
    assert len(said) == bool(options.warns), said
    assert all(options.warns in text for text in said)
    assert tree.attrs["batch"] == ("the arrays given" if y is not None else f"the first batch of a {name(x)}")
    twin_model, arrays, labels, twin = options.twin
    expected = tt.capture(twin_model, arrays, labels, **twin.capture)
    for variable in ("input", "output", "output_gradient", "hidden_gradient", "kernel_gradient"):
        found = tree["recurrent"][variable].values
        assert difference(found, expected["recurrent"][variable].values) <= 1e-6, variable


def name(thing: Any) -> str:
    return type(thing).__name__


def model_of(x: Any) -> Any:
    return matrix_data.model_on(x.shape[1:])[0]


def test_a_loader_with_a_generator_of_its_own_goes_on_as_if_nothing_was_taken() -> None:
    def epochs(*, captured: bool) -> list[Any]:
        generator = torch.Generator()
        generator.manual_seed(3)
        numbers = torch.utils.data.TensorDataset(
            torch.as_tensor(matrix_data.X), torch.as_tensor(matrix_data.Y)
        )
        loader = torch.utils.data.DataLoader(numbers, batch_size=2, shuffle=True, generator=generator)
        if captured:
            with pytest.warns(tt.ThroughTimeWarning, match="reshuffles"):
                tt.capture(model_of(matrix_data.X), loader)
        return [np.asarray(x) for _ in range(2) for x, _ in loader]

    assert np.array_equal(epochs(captured=False), epochs(captured=True))


class Noisy(keras.utils.PyDataset):
    """Draws noise from generators of its own, as augmentation does."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return matrix_data.X + self.rng.normal(size=matrix_data.X.shape).astype("float32"), matrix_data.Y


def test_a_dataset_that_draws_noise_draws_the_same_afterwards() -> None:
    dataset = Noisy()
    tree = tt.capture(model_of(matrix_data.X), dataset)
    assert np.array_equal(dataset[0][0], tree["recurrent"]["input"].values)


def test_a_ragged_tensor_is_told_how_to_be_padded() -> None:
    ragged = tf.RaggedTensor.from_tensor(matrix_data.X, lengths=[6, 3, 2, 1, 6, 5, 4, 3])
    model, _ = matrix_data.model_on((None, 2))
    with pytest.raises(tt.BatchError, match="to_tensor"):
        tt.capture(model, ragged, matrix_data.Y)
    assert tt.capture(model, ragged.to_tensor(), matrix_data.Y)["recurrent"].sizes["time"] == 6


def test_padding_and_a_mask_stand_for_a_ragged_tensor() -> None:
    """Each sample has the gradients that it has alone, at its own length."""
    lengths = [6, 3, 2, 1, 6, 5, 4, 3]
    ragged = tf.RaggedTensor.from_tensor(matrix_data.X, lengths=lengths)
    model, _ = matrix_data.model_on((None, 2), keras.layers.Masking())
    leaf = tt.capture(model, ragged.to_tensor(), matrix_data.Y)["recurrent"]
    assert leaf["valid"].values.sum(axis=1).tolist() == lengths
    alone = tt.capture(model, matrix_data.X[1:2, :3], matrix_data.Y[1:2])["recurrent"]
    assert difference(leaf["hidden_gradient"].values[1, :3], alone["hidden_gradient"].values[0]) <= 1e-5


def test_text_is_taken_where_keras_takes_it() -> None:
    words = keras.layers.TextVectorization(max_tokens=9, output_sequence_length=4)
    words.adapt(["to be or not to be"])
    embedding = keras.layers.Embedding(9, 3, mask_zero=True)
    text, y = np.array([["to be"], ["or not to be"]]), np.ones((2, 1), "float32")
    if keras.backend.backend() == "tensorflow":
        lstm, head = keras.layers.LSTM(3, name="lstm"), keras.layers.Dense(1)
        model = keras.Sequential([keras.Input((1,), dtype="string"), words, embedding, lstm, head])
        leaf = tt.capture(model, text, y, loss="mse")["lstm"]
        assert leaf["valid"].values.sum(axis=1).tolist() == [2, 4]
        assert float(leaf["certificate_time"]) <= 1e-5
    else:
        with pytest.raises(tt.BatchError, match="TextVectorization"):
            tt.capture(matrix_data.model_on()[0], text, y)
