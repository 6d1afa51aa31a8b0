"""A model, of Flax NNX, a pytree such as Equinox's or a function, as a function of its arrays; its trace.

The caller's object is only read: a copy made from its arrays runs within the trace. A second trace,
with one sample more, shows the axis of samples: it is the one that grows.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from throughtime._errors import UnsupportedModelError

from .program import Program, Value, flat, places_of_carries
from .samples import Samples

if TYPE_CHECKING:
    from jax.core import ShapedArray
    from jax.extend.core import ClosedJaxpr

Function = Callable[..., object]
Path = tuple[str, ...]
# Marks of the lengths that `nnx.RNN` is given, where it reads forward and where it turns sequences around.
LENGTHS = ("throughtime lengths", "throughtime lengths of sequences that are turned around")


@dataclass(frozen=True)
class Model:
    """A model taken apart."""

    parameters: list[Array]  # arrays that are trained
    others: list[Array]  # all other arrays: random keys, statistics, integers
    paths: list[Path]  # where each parameter is in the model
    call: Callable[[Sequence[Array], Sequence[Array], object], object]  # (parameters, others, x) -> output
    structure: Hashable  # models of one structure are one function of their arrays; None where it is unknown
    name: str  # class, or name of the function


def taken_apart(model: object, *, training: bool) -> Model:
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
    if any(each.startswith("equinox.") for each in roots):
        inference = sys.modules["equinox"].nn.inference_mode
        return _of_tree(inference(model, value=not training), is_of_one_sample=True)
    return _of_tree(model, is_of_one_sample=False)


def is_nnx(model: object) -> bool:
    """Whether a model is a module of Flax NNX."""
    roots = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(model).__mro__}
    return bool(roots & {"flax.nnx.module.Module", "flax.nnx.pytreelib.Pytree"})


def _of_nnx(model: Function, *, training: bool) -> Model:
    nnx = sys.modules["flax.nnx"]
    graph, parameters, others = nnx.split(model, nnx.Param, ...)
    named, of_parameters = jax.tree_util.tree_flatten_with_path(parameters)
    kept, of_others = jax.tree_util.tree_flatten(others)

    def call(parameters: Sequence[Array], others: Sequence[Array], x: object) -> object:
        trees = jax.tree.unflatten(of_parameters, parameters), jax.tree.unflatten(of_others, others)
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


def _of_tree(model: Function, *, is_of_one_sample: bool) -> Model:
    named, structure = jax.tree_util.tree_flatten_with_path(model)
    leaves = [leaf for _, leaf in named]
    arrays = {k: leaf for k, leaf in enumerate(leaves) if isinstance(leaf, (jax.Array, np.ndarray))}
    trained = [k for k, leaf in arrays.items() if jax.numpy.issubdtype(leaf.dtype, jax.numpy.inexact)]
    rest = [k for k in arrays if k not in set(trained)]
    fixed = {k: leaf for k, leaf in enumerate(leaves) if k not in arrays}

    def call(parameters: Sequence[Array], others: Sequence[Array], x: object) -> object:
        arrays = dict(zip([*trained, *rest], [*parameters, *others], strict=True))
        rebuilt = jax.tree.unflatten(structure, [{**fixed, **arrays}[k] for k in range(len(leaves))])
        return _mapped(rebuilt, x) if is_of_one_sample else _called(rebuilt, x)

    # An array in a function's closure is not in the tree, and may be another one at the next call.
    known = (structure, tuple(fixed.items()), tuple(trained)) if trained else None
    return Model(
        parameters=[leaves[k] for k in trained],
        others=[leaves[k] for k in rest],
        paths=[_path(named[k][0]) for k in trained],
        call=call,
        structure=known if _is_hashable(known) else None,
        name=str(getattr(model, "__name__", type(model).__name__)),
    )


def _called(model: Function, x: object) -> object:
    """Call a model: a tuple is several arguments, a dict arguments by name where the model has them."""
    if isinstance(x, tuple):
        return model(*x)
    if isinstance(x, Mapping) and x.keys() <= _names(model):
        return model(**x)
    return model(x)


def _mapped(model: Function, x: object) -> object:
    """Call a model of one sample on each; one that takes the whole batch, as it is."""
    samples = next((leaf.shape[0] for leaf in jax.tree.leaves(x) if np.ndim(leaf)), 1)
    axes = jax.tree.map(lambda leaf: 0 if np.ndim(leaf) and leaf.shape[0] == samples else None, x)
    try:
        return jax.vmap(partial(_called, model), in_axes=(axes,))(x)
    except Exception as alone:  # whatever the model raises on one sample
        try:
            return _called(model, x)
        except Exception as together:
            raise alone from together


def _names(model: Function) -> set[str]:
    try:
        return set(inspect.signature(model).parameters)
    except (TypeError, ValueError):
        return set()


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _path(keys: Sequence[object], ends: tuple[str, ...] = ()) -> Path:
    """Write the keys of a pytree as names, without what only wraps: `value`, a Partial's places, `params`."""
    names = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in keys]
    while len(names) > 1 and (names[0].isdigit() or names[0] == "params"):
        del names[0]
    return tuple(names[:-1] if len(names) > 1 and names[-1] in ends else names)


@dataclass(frozen=True)
class Traced:
    """A model's program on batches of one shape; `output` is the structure of what it returns."""

    program: Program
    output: object
    samples: Samples
    axes: Mapping[Value, int]  # of samples, of the values that have one
    text: str


def traced(model: Model, x: object) -> Traced:
    """Trace a model on a structure of arrays."""
    closed, output = _jaxpr(model, x)
    program = flat(closed)
    text = "" if model.structure is not None else str(closed.jaxpr)
    samples, grown = _samples(model, x, program)
    return Traced(program, output, samples, _axes(program, samples, grown), text)


def _jaxpr(model: Model, x: object) -> tuple[ClosedJaxpr, object]:
    return jax.make_jaxpr(model.call, return_shape=True)(model.parameters, model.others, x)


def _samples(model: Model, x: object, program: Program) -> tuple[Samples, Program | None]:
    """Find the samples, and the program with one sample more; None if it cannot run so."""
    leaves = [leaf for leaf in jax.tree.leaves(x) if getattr(leaf, "shape", ())]
    if not leaves:
        return Samples(1, is_single=True), None
    shape, steps = leaves[0].shape, set()
    for axis in range(min(2, len(shape))):
        samples = Samples(shape[axis], axis)
        other = _grown(model, x, samples)
        if other is None or [op.name for op in other.walk()] != [op.name for op in program.walk()]:
            continue
        if _lengths(other) == _lengths(program) and _results(other) != _results(program):
            return samples, other
        steps.add(axis)
    if 0 not in steps:  # a model may fix the number of samples
        return Samples(shape[0]), None
    has_features = len(shape) > 2 or not jnp.issubdtype(leaves[0].dtype, jnp.inexact)  # or tokens
    if (
        1 not in steps
        and has_features
        and any(len(one) > 1 and one[0] == shape[1] for one in _carried(program))
    ):
        return Samples(shape[1], 1), None
    return Samples(1, is_single=True), None


def _grown(model: Model, x: object, samples: Samples) -> Program | None:
    """Trace with one sample more; None where the model cannot run so."""

    def more(leaf: Array) -> Array | jax.ShapeDtypeStruct:
        axis = samples.of_data(leaf) if hasattr(leaf, "shape") else None
        if axis is None:
            return leaf
        shape = tuple(length + (place == axis) for place, length in enumerate(leaf.shape))
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    try:
        return flat(_jaxpr(model, jax.tree.map(more, x))[0])
    except Exception:  # whatever a model raises on a batch of another size
        return None


def _lengths(program: Program) -> list[int]:
    return [op.params["length"] for op in program.walk() if op.name == "scan"]


def _carried(program: Program) -> list[tuple[int, ...]]:
    """List the shapes of what the loops carry."""
    found, shapes = [], _shapes(program)
    for op in program.walk():
        if op.name == "scan":
            first, end = places_of_carries(op.params)
            found += [tuple(shapes[key].shape) for key in op.outputs[: end - first]]
    return found


def _results(program: Program) -> list[tuple[int, ...]]:
    """List the shapes of what the loops carry and the program returns."""
    return [*_carried(program), *(tuple(program.shape_of(key).shape) for key in program.outputs)]


def _shapes(program: Program) -> dict[Value, ShapedArray]:
    found = dict(program.shapes)
    for op in program.walk():
        found.update({} if op.body is None else op.body.shapes)
    return found


def _axes(program: Program, samples: Samples, more: Program | None) -> dict[Value, int]:
    """Find the axis of samples of every value that has one; `more` is the program with one sample more."""
    found, of_more = {}, {} if more is None else _shapes(more)
    for key, value in _shapes(program).items():
        shape: Sequence[int] = getattr(value, "shape", ())
        grown = getattr(of_more.get(key), "shape", shape)
        axes = [axis for axis, (now, then) in enumerate(zip(shape, grown, strict=False)) if now != then]
        if more is None:
            # One series may have a first axis of length 1; the axis of units is not meant.
            last = len(shape) - samples.is_single
            axes = [axis for axis, length in enumerate(shape[:last]) if length == samples.count]
        if axes:
            found[key] = axes[0]
    return found
