"""A model as a function of its arrays and the batch: Flax NNX modules, pytrees such as Equinox's, functions.

The caller's object is only read: what runs is made anew from its arrays, within the trace.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from throughtime._errors import UnsupportedModelError

Path = tuple[str, ...]
# Marks of the lengths that `nnx.RNN` is given, where it reads forward and where it turns sequences around.
LENGTHS = ("throughtime lengths", "throughtime lengths of sequences that are turned around")


@dataclass(frozen=True)
class Model:
    """A model taken apart."""

    parameters: list[Any]  # arrays that are trained
    others: list[Any]  # all other arrays: random keys, statistics, integers
    paths: list[Path]  # where each parameter is in the model
    call: Callable[[Sequence[Any], Sequence[Any], Any], Any]  # (parameters, others, x) -> output
    structure: Hashable  # models of one structure are one function of their arrays; None where it is unknown
    name: str  # class, or name of the function


def taken_apart(model: Any, *, training: bool) -> Model:
    """Take a model apart; UnsupportedModelError for a Linen module and for what cannot be called."""
    roots = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(model).__mro__}
    if "flax.linen.module.Module" in roots:
        raise UnsupportedModelError(
            f"Got the Linen module {type(model).__name__}, which does not hold its variables. Pass "
            "jax.tree_util.Partial(module.apply, variables)."
        )
    if not callable(model):
        raise UnsupportedModelError(
            f"Got a {type(model).__name__}, which cannot be called. Pass a Flax NNX or Equinox module, or a "
            "function of x; jax.tree_util.Partial(function, parameters) gives it weights with names."
        )
    if is_nnx(model):
        return _of_nnx(model, training=training)
    if "equinox._module._module.Module" in roots or any(each.startswith("equinox.") for each in roots):
        inference = sys.modules["equinox"].nn.inference_mode
        return _of_tree(inference(model, value=not training), is_of_one_sample=True)
    return _of_tree(model, is_of_one_sample=False)


def is_nnx(model: Any) -> bool:
    """Whether a model is a module of Flax NNX."""
    roots = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(model).__mro__}
    return bool(roots & {"flax.nnx.module.Module", "flax.nnx.pytreelib.Pytree"})


def _of_nnx(model: Any, *, training: bool) -> Model:
    nnx = sys.modules["flax.nnx"]
    graph, parameters, others = nnx.split(model, nnx.Param, ...)
    named, of_parameters = jax.tree_util.tree_flatten_with_path(parameters)
    kept, of_others = jax.tree_util.tree_flatten(others)

    def call(parameters: Sequence[Any], others: Sequence[Any], x: Any) -> Any:
        trees = of_parameters.unflatten(parameters), of_others.unflatten(others)
        merged = nnx.merge(graph, *trees)
        for _, module in nnx.iter_modules(merged):
            if isinstance(module, nnx.RNN):
                module.__class__ = _with_lengths(module.__class__)
        (merged.train if training else merged.eval)()
        return _called(merged, x)

    paths = [_path(keys, ends=("value",)) for keys, _ in named]
    arrays = [array for _, array in named]
    return Model(arrays, kept, paths, call, ("nnx", graph, of_parameters, of_others), type(model).__name__)


@cache
def _with_lengths(kind: Any) -> Any:
    """Make the class of our own copy of an `nnx.RNN`, which marks the lengths that it is given."""

    def call(self: Any, inputs: Any, *, seq_lengths: Any = None, **options: Any) -> Any:
        if seq_lengths is not None:
            is_reversed = self.reverse if options.get("reverse") is None else options["reverse"]
            seq_lengths = checkpoint_name(seq_lengths, LENGTHS[int(is_reversed)])
        return kind.__call__(self, inputs, seq_lengths=seq_lengths, **options)

    return type(kind.__name__, (kind,), {"__call__": call})


def _of_tree(model: Any, *, is_of_one_sample: bool) -> Model:
    named, structure = jax.tree_util.tree_flatten_with_path(model)
    leaves = [leaf for _, leaf in named]
    arrays = {k: leaf for k, leaf in enumerate(leaves) if isinstance(leaf, (jax.Array, np.ndarray))}
    trained = [k for k, leaf in arrays.items() if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)]
    rest = [k for k in arrays if k not in set(trained)]
    fixed = {k: leaf for k, leaf in enumerate(leaves) if k not in arrays}

    def call(parameters: Sequence[Any], others: Sequence[Any], x: Any) -> Any:
        arrays = dict(zip([*trained, *rest], [*parameters, *others], strict=True))
        rebuilt = structure.unflatten([{**fixed, **arrays}[k] for k in range(len(leaves))])
        return _mapped(rebuilt, x) if is_of_one_sample else _called(rebuilt, x)

    # What a function closes over is not in the tree, and may be another array at the next call.
    known = (structure, tuple(fixed.items()), tuple(trained)) if trained else None
    return Model(
        parameters=[leaves[k] for k in trained],
        others=[leaves[k] for k in rest],
        paths=[_path(named[k][0]) for k in trained],
        call=call,
        structure=known if _is_hashable(known) else None,
        name=str(getattr(model, "__name__", type(model).__name__)),
    )


def _called(model: Any, x: Any) -> Any:
    """Call a model: a tuple is several arguments, a dict arguments by name where the model has them."""
    if isinstance(x, tuple):
        return model(*x)
    if isinstance(x, Mapping) and x.keys() <= _names(model):
        return model(**x)
    return model(x)


def _mapped(model: Any, x: Any) -> Any:
    """Call a model of one sample on each; one that takes the whole batch, as it is."""
    samples = next((leaf.shape[0] for leaf in jax.tree.leaves(x) if np.ndim(leaf)), 1)
    axes = jax.tree.map(lambda leaf: 0 if np.ndim(leaf) and leaf.shape[0] == samples else None, x)
    try:
        return jax.vmap(partial(_called, model), in_axes=(axes,))(x)
    except Exception as alone:  # whatever the model raises on one sample
        try:
            return _called(model, x)
        except Exception:
            raise alone from None


def _names(model: Any) -> set[str]:
    try:
        return set(inspect.signature(model).parameters)
    except (TypeError, ValueError):
        return set()


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _path(keys: Sequence[Any], ends: tuple[str, ...] = ()) -> Path:
    """Write the keys of a pytree as names, without what only wraps: `value`, a Partial's places, `params`."""
    names = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in keys]
    while len(names) > 1 and (names[0].isdigit() or names[0] == "params"):
        del names[0]
    return tuple(names[:-1] if len(names) > 1 and names[-1] in ends else names)
