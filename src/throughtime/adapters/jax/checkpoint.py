"""Weights of a whole JAX model: a state of Flax NNX, or a model itself, which is a pytree of its weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax

from throughtime._errors import MissingDependencyError, UnsupportedModelError

from .models import is_nnx


def weights_of(model: Any) -> Any:
    """Copy the state of an NNX module; other models never change, and are returned."""
    if not is_nnx(model):
        return model
    from flax import nnx  # noqa: PLC0415 - optional

    return jax.tree.map(lambda leaf: leaf, nnx.to_pure_dict(nnx.state(model)))


def load_weights(model: Any, source: Any) -> Any:
    """Put weights into a model: a state or dict of an NNX module, another model, or a checkpoint on disk.

    An NNX module reads a folder of Orbax, an Equinox module a file of `tree_serialise_leaves`.

    Raises
    ------
    UnsupportedModelError
        The model is a function, which has no weights to replace.
    MissingDependencyError
        orbax-checkpoint is not installed.
    """
    is_path = isinstance(source, (str, os.PathLike))
    if is_nnx(model):
        from flax import nnx  # noqa: PLC0415 - optional

        if callable(source):  # another module
            return source
        state = nnx.state(model)
        found = _restored(Path(source), nnx.to_pure_dict(state)) if is_path else source
        if isinstance(found, nnx.State):
            found = nnx.to_pure_dict(found)
        nnx.replace_by_pure_dict(state, found)
        nnx.update(model, state)
        return model
    if not is_path:
        return source
    if not any(cls.__module__.startswith("equinox") for cls in type(model).__mro__):
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot load a file. Pass checkpoints={{name: model with these weights}}."
        )
    import equinox  # noqa: PLC0415 - optional

    return equinox.tree_deserialise_leaves(os.fspath(source), model)


def _restored(path: Path, like: Any) -> Any:
    try:
        import orbax.checkpoint as orbax  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MissingDependencyError("An Orbax folder needs orbax: pip install orbax-checkpoint.") from error
    with orbax.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path.absolute(), like)
