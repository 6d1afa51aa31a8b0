"""Rows of the support table for data: whatever brings a batch must give the tree of the same arrays.

A `data` row's model gets a dataset, or arrays of another library; its twin is the batch as NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
import torch
from tests.matrix import Built, K, M, Options, T, dense, leaves_of, randomise, recurrent, special

SIZE = 4  # of a batch, half of what there is
RNG = np.random.default_rng(12)
X = RNG.normal(size=(2 * SIZE, T, M)).astype("float32")
Y = RNG.normal(size=(2 * SIZE, K)).astype("float32")
WEIGHT = RNG.uniform(0.5, 2, 2 * SIZE).astype("float32")


def model_on(shape: tuple[int, ...] = (T, M), *before: Any) -> tuple[Any, Any]:
    layer = recurrent("gru", name="recurrent")
    model = keras.Sequential([keras.Input(shape), *before, layer, dense()])
    randomise(model, 3)
    model.compile(loss="mse")
    return model, layer


def row(x: Any, y: Any = None, *, weight: bool = False, warns: str = "") -> Built:
    """A dataset of `X` and `Y` in order, against the first batch of them as arrays."""
    model, layer = model_on()
    arrays = {"capture": {"sample_weight": WEIGHT[:SIZE]}} if weight else {}
    twin = (model, X[:SIZE], Y[:SIZE], Options((), **arrays))
    return model, x, y, Options(leaves_of(layer), twin=twin, warns=warns)


def data(build: Callable[..., Built]) -> Callable[..., Built]:
    return special("data", "data")(build)


@data
def nested_lists(dtype: str = "float32") -> Built:
    return row(X[:SIZE].tolist(), Y[:SIZE].tolist())


@data
def tensors_of_the_backend(dtype: str = "float32") -> Built:
    return row(keras.ops.convert_to_tensor(X[:SIZE]), keras.ops.convert_to_tensor(Y[:SIZE]))


@data
def tensors_of_torch(dtype: str = "float32") -> Built:
    return row(torch.as_tensor(X[:SIZE]), torch.as_tensor(Y[:SIZE]))


@data
def labels_in_a_data_frame(dtype: str = "float32") -> Built:
    return row(X[:SIZE], pd.DataFrame(Y[:SIZE]))


@special("data", "data", "one_label_in_a_series", wide=False)
@special("data", "data", "inputs_in_a_data_frame", wide=True)
def data_frames(dtype: str = "float32", *, wide: bool) -> Built:
    """One column a step, one row a sample; labels in a Series."""
    layer = recurrent("gru", name="recurrent")
    head = keras.layers.Dense(1, name="head")
    model = keras.Sequential([keras.Input((T,)), keras.layers.Reshape((T, 1)), layer, head])
    randomise(model, 3)
    model.compile(loss="mse")
    x, y = X[:SIZE, :, 0], Y[:SIZE, 0]
    steps = pd.DataFrame(x, columns=[f"step {t}" for t in range(T)]) if wide else x
    twin = (model, x, y[:, None], Options(()))
    return model, steps, pd.Series(y), Options(leaves_of(layer), twin=twin)


@data
def tf_dataset(dtype: str = "float32") -> Built:
    return row(tf.data.Dataset.from_tensor_slices((X, Y)).batch(SIZE).prefetch(1))


@data
def tf_dataset_with_weights(dtype: str = "float32") -> Built:
    return row(tf.data.Dataset.from_tensor_slices((X, Y, WEIGHT)).batch(SIZE), weight=True)


@data
def tf_dataset_that_reshuffles(dtype: str = "float32") -> Built:
    first = tf.data.Dataset.from_tensor_slices((X[:SIZE], Y[:SIZE])).batch(SIZE)
    return row(first.repeat(2).shuffle(2).map(lambda x, y: (x, y)), warns="reshuffles")


def pairs() -> Any:
    return torch.utils.data.TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))


@data
def data_loader(dtype: str = "float32") -> Built:
    return row(torch.utils.data.DataLoader(pairs(), batch_size=SIZE))


@data
def data_loader_that_reshuffles(dtype: str = "float32") -> Built:
    same = torch.utils.data.Subset(pairs(), [0])
    model, layer = model_on()
    loader = torch.utils.data.DataLoader(same, batch_size=1, shuffle=True)
    twin = (model, X[:1], Y[:1], Options(()))
    return model, loader, None, Options(leaves_of(layer), twin=twin, warns="reshuffles")


class Sequence(keras.utils.PyDataset):
    """Batches by index, with sample weights."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        rows = slice(index * SIZE, (index + 1) * SIZE)
        return X[rows], Y[rows], WEIGHT[rows]


@data
def py_dataset(dtype: str = "float32") -> Built:
    return row(Sequence(), weight=True)


@data
def time_series_dataset(dtype: str = "float32") -> Built:
    """Windows of one long series, as Keras cuts them."""
    series = np.concatenate(X[:SIZE])
    windows = keras.utils.timeseries_dataset_from_array(
        series, Y[np.arange(len(series)) // T], sequence_length=T, sequence_stride=T, batch_size=SIZE
    )
    return row(windows)


@data
def generator_of_pairs(dtype: str = "float32") -> Built:
    return row(((X[k : k + SIZE], Y[k : k + SIZE]) for k in (0, SIZE)), warns="only once")


class Loader:
    """What other loaders look like, `grain` among them: iterable, and each time from the start."""

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        yield X[:SIZE], Y[:SIZE]


@data
def iterable_of_pairs(dtype: str = "float32") -> Built:
    return row(Loader())


@data
def dataset_of_dicts(dtype: str = "float32") -> Built:
    """Inputs and labels by name."""
    inputs = keras.Input((T, M), name="series")
    layer = recurrent("gru", name="recurrent")
    model = keras.Model({"series": inputs}, {"head": dense()(layer(inputs))})
    randomise(model, 3)
    model.compile(loss={"head": "mse"})
    named = ({"series": X}, {"head": Y})
    twin = (model, {"series": X[:SIZE]}, {"head": Y[:SIZE]}, Options(()))
    dataset = tf.data.Dataset.from_tensor_slices(named).batch(SIZE)
    return model, dataset, None, Options(leaves_of(layer), twin=twin)
