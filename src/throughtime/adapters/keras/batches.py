"""What is asked of a batch, whatever its arrays are: how many samples, do they fit, some of them, copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from throughtime._errors import BatchError, LossError, ThroughTimeError

from .dialect import Dialect

PAD = (
    "Pad it: x.to_tensor() gives zeros behind the shorter sequences; a Masking layer, or mask= where the "
    "recurrent layer is called, leaves them out."
)


def batch_size(keras: Dialect, structure: Any) -> int:
    """Return the number of samples in a structure of arrays."""
    return int(keras.tree.flatten(structure)[0].shape[0])


def check_sizes(keras: Dialect, x: Any, y: Any, sample_weight: Any) -> None:
    """Refuse labels or weights for another number of samples.

    Raises
    ------
    LossError
    """
    size = batch_size(keras, x)
    for name, structure in (("labels", y), ("sample_weight", sample_weight)):
        for array in keras.tree.flatten(structure) if structure is not None else ():
            shape = tuple(getattr(array, "shape", ()))
            if array is not None and (not shape or shape[0] != size):
                raise LossError(
                    f"x has {size} samples and {name} have shape {shape}: the first axes must agree."
                )


def mapped(keras: Dialect, function: Any, structure: Any) -> Any:
    """Apply a function to every array; None stays None."""
    if structure is None:
        return None
    return keras.tree.map_structure(lambda each: None if each is None else function(each), structure)


def rows_of(keras: Dialect, structure: Any, rows: Sequence[int]) -> Any:
    """Take samples of every array."""
    return mapped(keras, lambda array: keras.taken(array, rows), structure)


def joined(keras: Dialect, one: Any, other: Any) -> Any:
    """Put the samples of two structures together."""
    return keras.tree.map_structure(lambda a, b: None if a is None else keras.joined(a, b), one, other)


def with_copies(keras: Dialect, structure: Any, size: int) -> Any:
    """Replace every sample by the first; what has no sample axis stays, and what is not dense."""

    def copied(array: Any) -> Any:
        is_dense = type(array).__name__ not in ("RaggedTensor", "SparseTensor")
        has_samples = is_dense and len(array.shape) > 0 and array.shape[0] == size
        return keras.taken(array, [0] * size) if has_samples else array

    return mapped(keras, copied, structure)


def first_array(keras: Dialect, structure: Any) -> Any:
    """Bring the first array of a structure to NumPy, as floats; None stays None."""
    if structure is None:
        return None
    return np.asarray(keras.numpy(keras.tree.flatten(structure)[0]), float)


def shapes(keras: Dialect, structure: Any) -> str:
    """Write down shapes and dtypes, to tell batches apart for which another trace is needed."""
    return str(mapped(keras, lambda array: f"{tuple(array.shape)} {array.dtype}", structure))


@contextmanager
def ragged_explained(keras: Dialect, x: Any) -> Iterator[None]:
    """Say what to do when a layer cannot take the ragged tensor it was given.

    Raises
    ------
    BatchError
    """
    try:
        yield
    except ThroughTimeError:
        raise
    except Exception as error:
        if not any(map(is_ragged, keras.tree.flatten(x))):
            raise
        raise BatchError(
            f"The model cannot take a ragged tensor: {type(error).__name__}: {error}\n{PAD}"
        ) from error


def is_ragged(array: Any) -> bool:
    """Whether sequences of several lengths stand in one tensor."""
    return type(array).__name__ == "RaggedTensor"
