"""Takes one batch from arrays or a dataset, and records its origin.

This module imports no framework: arrays have a shape, datasets are iterated or indexed. Random states are
restored, so that taking a batch does not change the training that follows.
"""

import dis
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from typing import Any

import numpy as np

from throughtime._errors import BatchError, ThroughTimeError, warn
from throughtime._inputs.restoring import random_states_restored
from throughtime._inputs.rules import describe
from throughtime._inputs.structures import is_packed, leaves, to_numpy

_NO_MEMORY = "memory"  # every framework has this word in its message
_FRAMEWORKS = ("torch.", "keras.", "tf_keras.", "tensorflow.", "jax.", "flax.", "equinox.", "numpy.")
_COMPILED = (RuntimeError, NotImplementedError)  # raised by torch's compiled functions, which have no frame


@dataclass(frozen=True)
class Batch:
    """One batch: inputs, labels and sample weights as the model accepts them, and their origin as text."""

    x: Any
    y: Any
    sample_weight: Any
    origin: str

    def weighted_steps(self) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """Return which steps have weight in any sample, (time); None if steps have no separate weights."""
        shape, labels = (tuple(getattr(each, "shape", ())) for each in (self.sample_weight, self.y))
        is_by_step = len(shape) == 2 and shape[1:] == labels[1:2]
        return (to_numpy(self.sample_weight) != 0).any(axis=0) if is_by_step else None


def take(x: Any, y: Any = None, sample_weight: Any = None) -> Batch:
    """Take a batch from arrays, or the first one of a dataset.

    `x` is an array, a tensor, a nested list of numbers, a dict or tuple of those, or a dataset: anything that
    yields batches, such as tf.data.Dataset, DataLoader, PyDataset or a generator. A dataset contains its
    labels and weights. An empty batch or dataset, and labels passed twice, raise BatchError.
    """
    if isinstance(x, (str, PathLike)):
        raise BatchError(f"x={str(x)!r} is a name, not data: load the data, and pass arrays or a dataset.")
    if _is_data(x):
        batch = Batch(_arrays(x), _arrays(y), _arrays(sample_weight), "the arrays given")
    else:
        if y is not None or sample_weight is not None:
            raise BatchError(
                f"A {type(x).__name__} contains its labels and weights: do not pass y and sample_weight."
            )
        with random_states_restored(x):
            batch = _split(_first(x), f"the first batch of a {type(x).__name__}")
    _refuse_empty(batch)
    return batch


@contextmanager
def running_on(batch: Batch) -> Iterator[None]:
    """Describe the batch if a framework refuses it; errors of the user's code and of ours pass unchanged."""
    try:
        yield
    except ThroughTimeError:
        raise
    except Exception as error:
        is_memory = isinstance(error, MemoryError) or _NO_MEMORY in f"{type(error).__name__} {error}".lower()
        if is_memory or not _is_of_framework(error):
            raise
        parts = zip(("x", "y", "sample_weight"), (batch.x, batch.y, batch.sample_weight), strict=True)
        has = "; ".join(
            f"{name}: {', '.join(map(describe, leaves(part)))}" for name, part in parts if part is not None
        )
        causes = [f"{type(each).__name__}: {each}" for each in (error, error.__cause__) if each is not None]
        raise BatchError(
            f"The model, or its loss, cannot be run on this batch: {'; '.join(dict.fromkeys(causes))}\n"
            f"The batch has {has}. Pass the shapes and dtypes for which the model was built."
        ) from error


def _is_of_framework(error: BaseException) -> bool:
    """Whether a framework raised an error: the last frame is its own, or called compiled code that raised."""
    while error.__suppress_context__ and error.__cause__ is None and error.__context__ is not None:
        error = error.__context__  # Keras raises a new error with the layer's name and without its own frames
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    assert last is not None
    frame = last.tb_frame
    module = f"{frame.f_globals.get('__name__', '')}."
    has_raised = frame.f_code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return module.startswith(_FRAMEWORKS) or (type(error) in _COMPILED and not has_raised)


def take_several(x: Any, y: Any, sample_weight: Any, count: int) -> list[Batch]:
    """Take the first batches of a dataset; arrays are one batch. See `take`."""
    if count == 1 or _is_data(x):
        return [take(x, y, sample_weight)]
    if y is not None or sample_weight is not None:
        take(x, y, sample_weight)  # raises the error
    with random_states_restored(x):
        items = [x[index] for index in range(count)] if _is_indexed(x) else list(islice(iter(x), count))
    if not items:
        _first(x)  # raises the error
    _warn_of_consumption(x)
    batches = [_split(item, f"{len(items)} batches of a {type(x).__name__}") for item in items]
    for batch in batches:
        _refuse_empty(batch)
    return batches


def each_batch(x: Any) -> Iterator[Batch]:
    """Read all batches of a dataset, one after another."""
    with random_states_restored(x):
        for item in (x[index] for index in range(len(x))) if _is_indexed(x) else x:
            batch = _split(item, f"a batch of a {type(x).__name__}")
            _refuse_empty(batch)
            yield batch


def _is_indexed(dataset: Any) -> bool:
    return hasattr(dataset, "__getitem__") and not hasattr(dataset, "__iter__")


def _is_data(value: Any) -> bool:
    """Whether a value is an array, a tensor or a structure of them; anything else is a dataset."""
    if value is None or hasattr(value, "shape"):
        return True
    return isinstance(value, (Mapping, list, tuple, int, float)) or hasattr(value, "__dataframe__")


def _arrays(value: Any) -> Any:
    """Convert nested lists of numbers to arrays; keep arrays and structures of arrays."""
    if value is None or hasattr(value, "shape"):
        value = value.to_numpy() if hasattr(value, "to_numpy") else value
        return _native(value) if isinstance(value, np.ndarray) else value
    if isinstance(value, Mapping):
        return {key: _arrays(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        if any(_holds_arrays(item) for item in value):
            _refuse_several(value)
            items = [_arrays(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        return _as_array(value)
    return _as_array(value)


def _native(array: np.ndarray[Any, Any]) -> Any:
    """Convert an array to a byte order and format that every framework reads."""
    is_wide = array.dtype.kind == "f" and array.dtype.itemsize > np.dtype(np.float64).itemsize
    if array.dtype.kind in "cMm" or array.dtype.names is not None or isinstance(array, np.ma.MaskedArray):
        raise BatchError(
            f"Expected real numbers, got {describe(array)}. Pass the parts of complex numbers, array.real "
            "and array.imag, as features; fill a masked array with array.filled(0)."
        )
    return array.astype(np.float64 if is_wide else array.dtype.newbyteorder("="), copy=False)


def _refuse_several(value: Any) -> None:
    """Refuse a list of batches; a structure of arrays also has arrays at its top level."""
    nested = [isinstance(item, (list, tuple)) and _holds_arrays(item) for item in value]
    if isinstance(value, list) and all(nested):
        raise BatchError(f"Got a list of {len(value)} batches. Pass one of them, or an iterator over them.")


def _holds_arrays(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_arrays(item) for item in value)
    return hasattr(value, "shape") or isinstance(value, Mapping)


def _as_array(value: Any) -> Any:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise BatchError(
            f"A nested list must be rectangular to be a batch: {error} From a list of batches, pass one."
        ) from error
    if array.dtype.kind not in "biuf":
        raise BatchError(f"Expected numbers, got a {type(value).__name__} that NumPy reads as {array.dtype}.")
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _first(dataset: Any) -> Any:
    if _is_indexed(dataset):
        return dataset[0]
    if not hasattr(dataset, "__iter__"):
        raise BatchError(
            f"Cannot take a batch from a {type(dataset).__name__}. Pass arrays, a dict or tuple of "
            "arrays, or a dataset that yields batches (x, y) or (x, y, sample_weight)."
        )
    for batch in islice(iter(dataset), 1):
        _warn_of_consumption(dataset)
        return batch
    raise BatchError(f"The {type(dataset).__name__} yielded no batch: it is empty or used up.")


def _warn_of_consumption(dataset: Any) -> None:
    if isinstance(dataset, Iterator):
        what = f"The {type(dataset).__name__} can be read only once, and has lost the captured batch."
    elif _reshuffles(dataset):
        what = (
            f"The {type(dataset).__name__} reshuffles at each iteration: a later capture gets another batch."
        )
    else:
        return
    warn(f"{what} Pass a fixed batch instead: x, y = next(iter(data)).")


def _reshuffles(dataset: Any) -> bool:
    """Whether a tf.data pipeline, or a DataLoader's sampler, draws a new order at each iteration."""
    if type(getattr(dataset, "sampler", None)).__name__ in ("RandomSampler", "WeightedRandomSampler"):
        return True
    while dataset is not None:
        if getattr(dataset, "_reshuffle_each_iteration", False):
            return True
        dataset = getattr(dataset, "_input_dataset", None)
    return False


def _split(item: Any, origin: str) -> Batch:
    """Split a yielded item as Keras does: (x,), (x, y) or (x, y, sample_weight); anything else is x."""
    if isinstance(item, (tuple, list)) and not hasattr(item, "shape") and 1 <= len(item) <= 3:
        x, y, weight = (*item, None, None)[:3]
        return Batch(_arrays(x), _arrays(y), _arrays(weight), origin)
    return Batch(_arrays(item), None, None, origin)


def _refuse_empty(batch: Batch) -> None:
    for array in leaves(batch.x):
        shape = getattr(array.data if is_packed(array) else array, "shape", ())
        if not shape or 0 in tuple(shape):
            raise BatchError(
                f"The batch has shape {tuple(shape)}: expected samples on the first axis, and at least one."
            )
    if not leaves(batch.x):
        raise BatchError("There is no batch: x is None or an empty structure. Pass arrays or a dataset.")
