"""Fingerprints, by which a run recognises its batch and the weights of its model."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from throughtime._data.structures import to_numpy

_MOST = 2**18  # elements of one weight that are hashed; a larger weight is sampled evenly


def fingerprint(batch: Any) -> dict[str, Any]:
    """Describe a batch: shapes, dtypes, and the SHA-256 of its contents.

    Examples
    --------
    >>> found = fingerprint(([[1.0, 2.0]], None))
    >>> found["arrays"]
    [{'shape': [1, 2], 'dtype': 'float64'}]
    >>> found["sha256"] == fingerprint(([[1.0, 3.0]], None))["sha256"]
    False
    """
    digest, arrays = hashlib.sha256(), []
    for array in _arrays(batch):
        described = {"shape": list(array.shape), "dtype": str(array.dtype)}
        content = repr(array.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(array).data
        digest.update(json.dumps(described).encode())
        digest.update(content)
        arrays.append(described)
    return {"arrays": arrays, "sha256": digest.hexdigest()}


def weights_fingerprint(model: Any) -> int:
    """Hash the exact values of a model's weights; 0 if they cannot be read.

    Parameters
    ----------
    model : Keras model, torch module, or pytree of JAX arrays
        A module's parameters are hashed, not its buffers: a checkpoint need not contain those.

    Examples
    --------
    >>> class Model:
    ...     def get_weights(self):
    ...         return [np.ones((2, 3), "float32")]
    >>> weights_fingerprint(Model()) == weights_fingerprint(Model()) != 0
    True
    """
    digest = hashlib.blake2b(digest_size=8)
    try:
        for weight in _weights_of(model):
            digest.update(_sample(weight).tobytes())
    except Exception:  # unknown kind of weights; "auto" does not continue a run without a fingerprint
        return 0
    return int.from_bytes(digest.digest(), "little", signed=True)


def _weights_of(model: Any) -> list[Any]:
    if hasattr(model, "get_weights"):
        return list(model.get_weights())
    if hasattr(model, "parameters"):
        return list(model.parameters())
    leaves = sys.modules["jax"].tree.leaves(model)
    found = [leaf for leaf in leaves if getattr(getattr(leaf, "dtype", None), "kind", "") == "f"]
    if not found:
        raise TypeError("a function has no weights")
    return found


def _sample(weight: Any) -> np.ndarray[Any, Any]:
    """Return all elements of a weight, or as many as can be hashed in a millisecond."""
    flat = (weight.detach() if hasattr(weight, "detach") else np.asarray(weight)).reshape(-1)
    return to_numpy(flat[:: max(1, -(-len(flat) // _MOST))])


def _arrays(part: Any) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the arrays of a batch in a fixed order, including those inside tuples and mappings."""
    if part is None:
        return
    if isinstance(part, Mapping):
        for name in sorted(part, key=str):
            yield from _arrays(part[name])
    elif isinstance(part, tuple) or (isinstance(part, list) and any(hasattr(each, "shape") for each in part)):
        for each in part:
            yield from _arrays(each)
    else:
        yield to_numpy(part)
