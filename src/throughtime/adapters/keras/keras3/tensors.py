"""Turns a batch of arrays into the backend's tensors, and says what to give where that cannot be done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from throughtime._errors import BatchError, LossError, ThroughTimeError

_PAD = (
    "Pad it: x.to_tensor() gives zeros behind the shorter sequences; a Masking layer, or mask= where the "
    "recurrent layer is called, leaves them out."
)
_VECTORISE = "Give numbers. Text is taken on TensorFlow alone, by a model that begins with TextVectorization."


def tensors(structure: Any) -> Any:
    """Turn arrays into the backend's tensors, that share no mask or history with the caller's.

    Raises
    ------
    BatchError
        The backend has no tensor for such data.
    """
    return None if structure is None else keras.tree.map_structure(_tensor, structure)


def _tensor(array: Any) -> Any:
    if array is None:
        return None
    try:
        tensor = keras.ops.convert_to_tensor(array)
    except Exception as error:
        what = f"{type(array).__name__} of dtype {getattr(array, 'dtype', None)}"
        raise BatchError(
            f"A {what} cannot become a tensor on the {keras.backend.backend()} backend: "
            f"{type(error).__name__}: {str(error)[:200]}\n{_remedy(array)}"
        ) from error
    return tensor.detach() if hasattr(tensor, "detach") else tensor


def _remedy(array: Any) -> str:
    if _is_ragged(array):
        return _PAD
    is_text = getattr(getattr(array, "dtype", None), "kind", "") in ("U", "S", "O", "T")
    return _VECTORISE if is_text else "Give dense arrays of numbers."


def _is_ragged(array: Any) -> bool:
    return type(array).__name__ == "RaggedTensor"


@contextmanager
def ragged_told(x: Any) -> Iterator[None]:
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
        if not any(map(_is_ragged, keras.tree.flatten(x))):
            raise
        raise BatchError(
            f"The model cannot take a ragged tensor: {type(error).__name__}: {error}\n{_PAD}"
        ) from error


def shape_and_dtype(tensor: Any) -> str:
    """Tell tensors apart for which another trace is needed."""
    return "none" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}"


def batch_size(structure: Any) -> int:
    """Return the number of samples in a structure of arrays."""
    return int(keras.tree.flatten(structure)[0].shape[0])


def first_array(structure: Any) -> Any:
    """Bring the first tensor of a structure to NumPy, as floats; None stays None."""
    if structure is None:
        return None
    return np.asarray(keras.ops.convert_to_numpy(keras.tree.flatten(structure)[0]), float)


def first_sample(tensor: Any) -> tuple[str, Any] | None:
    """Name a tensor's dtype and bring its first sample to NumPy; None where it holds no floats."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if not keras.backend.is_float_dtype(dtype):
        return None
    return dtype, np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(tensor[0], "float32")))


def check_sizes(x: Any, y: Any, sample_weight: Any) -> None:
    """Refuse labels or weights for another number of samples.

    Raises
    ------
    LossError
    """
    size = batch_size(x)
    for name, structure in (("labels", y), ("sample_weight", sample_weight)):
        for array in keras.tree.flatten(structure) if structure is not None else ():
            shape = tuple(getattr(array, "shape", ()))
            if not shape or shape[0] != size:
                raise LossError(
                    f"x has {size} samples and {name} have shape {shape}: the first axes must agree."
                )


def check_inputs(model: Any, x: Any) -> None:
    """Refuse tensors whose axes are not those that a model declares for its inputs.

    Raises
    ------
    BatchError
    """
    declared, given = getattr(model, "inputs", None) or [], keras.tree.flatten(x)
    if isinstance(x, dict) or len(declared) != len(given):
        return  # matched by name, or by the model itself
    for expected, tensor in zip(declared, given, strict=True):
        expects, has = tuple(expected.shape), tuple(getattr(tensor, "shape", ()))
        if has and not _fits(expects, has):
            is_single = _fits(expects[1:], has)
            remedy = (
                " That is one sample without the axis of samples: x[None] is a batch." if is_single else ""
            )
            raise BatchError(f"x has shape {has}, and the model {model.name!r} expects {expects}.{remedy}")


def _fits(expects: tuple[int | None, ...], has: tuple[int | None, ...]) -> bool:
    if len(expects) == len(has):
        return all(None in (one, other) or one == other for one, other in zip(expects, has, strict=True))
    # Keras itself adds a last axis of length 1, or takes it away.
    longer, shorter = max(expects, has, key=len), min(expects, has, key=len)
    return longer[-1:] == (1,) and len(longer) == len(shorter) + 1


def rows_of(structure: Any, rows: Sequence[int]) -> Any:
    """Take samples of every tensor; None stays None."""

    def taken(tensor: Any) -> Any:
        return None if tensor is None else keras.ops.take(tensor, np.array(rows), axis=0)

    return keras.tree.map_structure(taken, structure)


def joined(first: Any, second: Any) -> Any:
    """Put the samples of two structures of tensors together; None stays None."""

    def both(one: Any, other: Any) -> Any:
        return None if one is None else keras.ops.concatenate([one, other], axis=0)

    return keras.tree.map_structure(both, first, second)


def with_copies(structure: Any, size: int) -> Any:
    """Replace every sample by the first; what has no sample axis stays, and what is not dense."""

    def copied(tensor: Any) -> Any:
        is_dense = type(tensor).__name__ not in ("RaggedTensor", "SparseTensor")
        has_samples = tensor is not None and len(tensor.shape) > 0 and tensor.shape[0] == size
        return rows_of(tensor, [0] * size) if is_dense and has_samples else tensor

    return keras.tree.map_structure(copied, structure)
