"""Tensors of the backend, and the arrays of a batch that become such; what to give where one cannot."""

from __future__ import annotations

from typing import Any

import keras
from keras.src.backend.common.tensor_attributes import get_tensor_attr, set_tensor_attr

from throughtime._errors import BatchError
from throughtime.adapters.keras.batches import PAD, is_ragged

_VECTORISE = "Give numbers. Text is taken on TensorFlow alone, by a model that begins with TextVectorization."


def batch(model: Any, *structures: Any) -> tuple[Any, ...]:
    """Turn x, y and sample weights into tensors that share no mask or history with the caller's.

    Raises
    ------
    BatchError
        The backend has no tensor for such data, or the axes of x are not those that the model declares.
    """
    found = tuple(
        None if structure is None else keras.tree.map_structure(_tensor, structure)
        for structure in structures
    )
    check_inputs(model, found[0])
    return found


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
    if is_ragged(array):
        return PAD
    is_text = getattr(getattr(array, "dtype", None), "kind", "") in ("U", "S", "O", "T")
    return _VECTORISE if is_text else "Give dense arrays of numbers."


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


def beside(tensor: Any, name: str) -> Any:
    """Return what Keras keeps beside a tensor, its mask or logits; None for nothing."""
    return get_tensor_attr(tensor, name)


def set_beside(tensor: Any, name: str, value: Any) -> None:
    """Keep something beside a tensor, None for nothing."""
    if value is not None:
        set_tensor_attr(tensor, name, value)
    elif hasattr(tensor, name):
        delattr(tensor, name)
