"""Gives the weights of known cells their names and one orientation: input rows, gates apart, units last.

Flax's and Equinox's cells are known by the names of their weights; all others keep their own.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import cast

import jax
import numpy as np

from throughtime._errors import MissingDependencyError, UnsupportedModelError
from throughtime._vocabulary import RESERVED, WEIGHTS
from throughtime.adapters.axes import GATE_ORDER, with_gates
from throughtime.adapters.records import Array

from .models import is_nnx

Layout = Callable[[str, Mapping[str, Array]], dict[str, Array]]
# Flax calls gates by letters, in the schema's order; `if` is a word of Python, so that NNX writes `if_`.
_LETTERS = {"lstm": ("i", "f", "g", "o"), "gru": ("z", "r", "n")}


def oriented(kind: str, arrays: Mapping[str, Array]) -> dict[str, Array] | None:
    """Orient the weights of a cell, named as `dense_i.kernel`, or their gradients; None for others.

    Layers that a loop runs one after another may have theirs in one array, which stays as it is.
    """
    plain = {_plain(name): array for name, array in arrays.items()}
    layout = _layout_of(kind, plain.keys())
    is_stack = any(array.ndim > 2 for array in plain.values())
    return None if layout is None or is_stack else layout(kind, plain)


def is_cell(kind: str, names: Iterable[str]) -> bool:
    """Whether weights of these names, and no others, are those of a known cell."""
    return _layout_of(kind, {_plain(name) for name in names}) is not None


def kind_of(arrays: Mapping[str, Array]) -> str:
    """Name the known cell whose weights these are, by their names and widths; empty for others."""
    if any(array.ndim > 2 for array in arrays.values()):
        return ""  # those of several cells
    for kind, gates in GATE_ORDER.items():
        joined = [array for name, array in arrays.items() if name in ("dense_h.kernel", "weight_hh")]
        if is_cell(kind, arrays) and all(max(one.shape) == min(one.shape) * len(gates) for one in joined):
            return kind
    return ""


def _plain(name: str) -> str:
    return name.replace("if_.", "if.")


def _layout_of(kind: str, names: Set[str]) -> Layout | None:
    if kind not in GATE_ORDER:
        return None
    products = [f"{side}{letter}" for side in "ih" for letter in _LETTERS.get(kind, ("",))]
    known: list[tuple[set[str], set[str], Layout]] = [
        ({"dense_i.kernel", "dense_h.kernel"}, {"dense_i.bias", "dense_h.bias"}, _joined),
        ({f"{one}.kernel" for one in products}, {f"{one}.bias" for one in products}, _apart),
        ({"weight_ih", "weight_hh"}, {"bias", "bias_n"}, _joined),
    ]
    return next((layout for has, may, layout in known if has <= names <= has | may), None)


_NAMES = {
    **dict.fromkeys(("dense_i.kernel", "weight_ih"), "kernel"),
    **dict.fromkeys(("dense_h.kernel", "weight_hh"), "recurrent_kernel"),
    **dict.fromkeys(("dense_i.bias", "dense_h.bias", "bias"), "bias"),
}


def _joined(kind: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Cells with one product for all gates: Flax' `dense_i`, Equinox' `weight_ih` (gate · unit, feature)."""
    turned = {own: array.T if own.startswith("weight_") else array for own, array in arrays.items()}
    found = {name: with_gates(kind, turned[own]) for own, name in _NAMES.items() if own in arrays}
    if "bias_n" in arrays:  # of Equinox' GRU, inside its reset
        zeros = np.zeros_like(arrays["bias_n"])
        found["recurrent_bias"] = np.stack([zeros, zeros, arrays["bias_n"]])
    return found


def _apart(kind: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Flax' cells with separate products for every gate: `ii`, `hi`."""
    letters = _LETTERS.get(kind, ("",))
    found = {}
    for side, name in (("i", "kernel"), ("h", "recurrent_kernel")):
        found[name] = np.stack([arrays[f"{side}{letter}.kernel"] for letter in letters], 1)
    zeros = np.zeros(found["recurrent_kernel"].shape[-1], found["kernel"].dtype)
    for side in "ih":
        names = [f"{side}{letter}.bias" for letter in letters]
        if any(name in arrays for name in names):
            # An LSTM adds both sides: its one bias is the input's, wherever the library keeps it.
            name = "recurrent_bias" if side == "h" and kind == "gru" else "bias"
            found[name] = np.stack([arrays.get(each, zeros) for each in names])
    return {name: array if kind != "simple_rnn" else _single(array) for name, array in found.items()}


def _single(array: Array) -> Array:
    return array[:, 0] if array.ndim == 3 else array[0]


def named(arrays: Mapping[str, Array], states: Set[str], *, is_standard: bool) -> dict[str, Array]:
    """Name weights as their module does, beside states and the words that have a meaning in the tree."""
    taken = states | (RESERVED if is_standard else RESERVED - set(WEIGHTS))
    plain = {re.sub(r"\W", "_", name): array for name, array in arrays.items()}
    return {f"{name}_parameter" if name in taken else name: array for name, array in plain.items()}


def weights_of(model: object) -> object:
    """Copy the state of an NNX module; other models never change, and are returned."""
    if not is_nnx(model):
        return model
    from flax import nnx  # noqa: PLC0415 - optional

    return jax.tree.map(lambda leaf: leaf, nnx.to_pure_dict(nnx.state(model)))


def load_weights(model: object, source: object) -> object:
    """Put weights into a model: a state, a dict, another model, a folder of Orbax or a file of Equinox."""
    path = Path(source) if isinstance(source, (str, os.PathLike)) else None
    if is_nnx(model):
        from flax import nnx  # noqa: PLC0415 - optional

        if callable(source):  # another module
            return source
        state = nnx.state(model)
        found = source if path is None else _restored(path, nnx.to_pure_dict(state))
        if isinstance(found, nnx.State):
            found = nnx.to_pure_dict(found)
        nnx.replace_by_pure_dict(state, cast("dict[str, object]", found))
        nnx.update(model, state)
        return model
    if path is None:
        return source
    if not any(cls.__module__.startswith("equinox") for cls in type(model).__mro__):
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot load a file. Pass checkpoints={{name: model with these weights}}."
        )
    import equinox  # noqa: PLC0415 - optional

    return equinox.tree_deserialise_leaves(path, model)


def _restored(path: Path, like: object) -> object:
    try:
        import orbax.checkpoint as orbax  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MissingDependencyError("An Orbax folder needs orbax: pip install orbax-checkpoint.") from error
    with orbax.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path.absolute(), like)
