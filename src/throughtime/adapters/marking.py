"""`mark` names a tensor; during a capture an adapter listens, and other functions arrange what it heard.

Nothing here imports a framework: what is done for one is done only where the value is of it.
"""

import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from throughtime._errors import CellError
from throughtime._vocabulary import GATES, RESERVED

from .axes import AXES
from .records import UNREACHED, Array, LayerRecord

Tensor = TypeVar("Tensor")
Listener = Callable[[str, Any], Any]  # on a name and a tensor of its framework

PREFIX = "throughtime/"  # of a mark's name in a JAX program
GATE_NAMES = frozenset(gate for gates in GATES.values() for gate in gates)
_local = threading.local()


def mark(value: Tensor, name: str) -> Tensor:
    """Name a tensor, so that captures show it with its gradient; anywhere else nothing happens.

    Inside a recurrence the tree has the value at each step under this name, and dL/dvalue, total through
    time, under `<name>_gradient`. The names of gates (input, forget, candidate, output, update, reset) make
    it a gate: `gate_activation.sel(gate="forget")`; its `gate_gradient` is dL/d(gate), after the activation.
    Outside of any recurrence the marked tensor is a leaf with `output` and `output_gradient`.

    Parameters
    ----------
    value : tensor of PyTorch, JAX or TensorFlow
        Samples first. Inside Keras' layers any of the three.
    name : str
        A word in snake case that has no other meaning in a tree.

    Returns
    -------
    tensor
        `value` itself; a tensor equal to it during a capture and in a JAX program that is being traced. Use
        it in place of `value`: the gradient is what reaches it.

    Raises
    ------
    CellError
        The name is no word, or means something else in a tree.

    Examples
    --------
    >>> mark(0.5, "forget")
    0.5
    """
    if not (isinstance(name, str) and name.isidentifier()) or not _is_free(name):
        raise _refused(name)
    listening = getattr(_local, "listening", None)
    if listening is not None:
        listener, place = listening
        return value if listener is None or place != _place() else listener(name, value)
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(value, jax.core.Tracer):
        from jax.ad_checkpoint import checkpoint_name  # noqa: PLC0415 - JAX is there already

        named: Tensor = checkpoint_name(value, PREFIX + name)
        return named
    return value


def _is_free(name: str) -> bool:
    plain = name.removeprefix("missing_").removeprefix("initial_").removesuffix("_gradient")
    return name in GATE_NAMES or (plain == name and name not in RESERVED)


def _refused(name: object) -> CellError:
    if isinstance(name, str) and name.isidentifier():
        return CellError(
            f"A mark cannot be called {name!r}, which has another meaning in a tree. Choose another name, "
            f"such as 'my_{name}'; the names of gates are {', '.join(sorted(GATE_NAMES))}."
        )
    return CellError(f"A mark's name is a word in snake case, such as 'forget' or 'attention'; got {name!r}.")


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Hear every mark that this thread makes in the block, in this very trace; None hears nothing.

    The listener takes a name and a tensor, and returns the tensor that the code continues with.
    """
    before = getattr(_local, "listening", None)
    _local.listening = listener, _place()
    try:
        yield
    finally:
        _local.listening = before


def _place() -> tuple[object, ...]:
    """Name the trace or graph that code runs in: a tensor must not leave that of a loop or branch."""
    place: list[object] = []
    if "jax" in sys.modules:
        from jax.extend import core  # noqa: PLC0415 - as above

        if hasattr(core, "get_opaque_trace_state"):  # not in every JAX
            place.append(core.get_opaque_trace_state())
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and not tensorflow.executing_eagerly():
        place.append(tensorflow.compat.v1.get_default_graph())
    return tuple(place)


def unique(name: str, taken: Collection[str]) -> str:
    """Add a number to a name that is taken: forget, forget_2, forget_3."""
    numbered = (name if number == 1 else f"{name}_{number}" for number in range(1, len(taken) + 2))
    return next(each for each in numbered if each not in taken)


@dataclass(frozen=True)
class MarkedSteps:
    """Tensors that were marked inside a recurrence, as variables of its leaf, (sample, time, …).

    `gates` stand along the axis `gate` of `gate_activation`, `names` are those of all other variables.
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    gates: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def dims(self, hidden: Array, axes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Name the axes after sample and time: those of the hidden state, `axes`, where shapes agree."""
        found = {}
        for name in (*(["gate_activation"] if self.gates else []), *self.names):
            gate = ("gate",) if name == "gate_activation" else ()
            shape = self.arrays[name].shape[2 + len(gate) :]
            own = tuple(f"{'gate' if gate else name}_{axis}" for axis in AXES[: len(shape)])
            found[name] = (*gate, *(axes if shape == hidden.shape[2:] else own))
            found[gradient_of(name)] = found[name]
        return found


def gradient_of(name: str) -> str:
    """Name the variable with the gradient of a marked one."""
    return "gate_gradient" if name == "gate_activation" else f"{name}_gradient"


def of_steps(
    values: Mapping[str, Array],
    gradients: Mapping[str, Array | None],
    taken: Collection[str],
    *,
    has_gradients: bool,
) -> MarkedSteps:
    """Make variables of what was marked: gates of one shape side by side, everything else by its name.

    Values and gradients are (sample, time, …) by the marks' names; a gradient that is None is 0. `taken` are
    names of the cell's states and weights.
    """
    gates = [name for name in values if name in GATE_NAMES and values[name].ndim > 2]
    gates = [name for name in gates if values[name].shape == values[gates[0]].shape]
    variables: dict[str, str] = {}
    for name in values:
        if name not in gates:
            plain = f"{name}_gate" if name in GATE_NAMES else name
            variables[unique(f"{plain}_mark" if plain in taken else plain, variables)] = name
    arrays = {variable: values[name] for variable, name in variables.items()}
    back = {}
    if has_gradients:
        filled = {name: gradients.get(name) for name, value in values.items() if value.dtype.kind == "f"}
        back = {name: np.zeros_like(values[name]) if one is None else one for name, one in filled.items()}
        arrays |= {gradient_of(variable): back[name] for variable, name in variables.items() if name in back}
    if gates:
        arrays["gate_activation"] = np.stack([values[name] for name in gates], axis=2)
    if gates and back:
        arrays["gate_gradient"] = np.stack([back[name] for name in gates], axis=2)
    return MarkedSteps(arrays, tuple(gates), tuple(variables))


@dataclass(frozen=True)
class Marked:
    """A tensor marked outside of any recurrence; no gradient where the loss does not depend on it."""

    name: str
    value: Array
    gradient: Array | None


def leaves(
    marked: Sequence[Marked], wanted: frozenset[str], paths: Collection[str]
) -> tuple[LayerRecord, ...]:
    """Make a leaf of each marked tensor; those of one name that a loop marks without time are one sequence.

    `paths` are those of the other leaves.
    """
    found: dict[str, LayerRecord] = {}
    if not wanted & {"output", "output_gradient"}:
        return ()
    for name in dict.fromkeys(one.name for one in marked):
        each = [one for one in marked if one.name == name]
        is_loop = len(each) > 1 and each[0].value.ndim in (1, 2)
        is_loop = is_loop and len({one.value.shape for one in each}) == 1
        for one in [_sequence(each)] if is_loop else each:
            numbers = (f"{name}@{number}" if number > 1 else name for number in range(1, len(marked) + 2))
            path = next(path for path in numbers if path not in {*paths, *found})
            found[path] = _leaf(path, one, wanted, is_loop=is_loop)
    return tuple(found.values())


def _sequence(each: Sequence[Marked]) -> Marked:
    """Put what a loop marked one after another: (sample, time, …)."""
    gradient = None
    if any(one.gradient is not None for one in each):
        filled = [np.zeros_like(one.value) if one.gradient is None else one.gradient for one in each]
        gradient = np.stack(filled, axis=1)
    return Marked(each[0].name, np.stack([one.value for one in each], axis=1), gradient)


def _leaf(path: str, one: Marked, wanted: frozenset[str], *, is_loop: bool) -> LayerRecord:
    arrays = {"output": one.value} if "output" in wanted else {}
    missing = {}
    if "output_gradient" in wanted and one.gradient is not None:
        arrays["output_gradient"] = one.gradient
    elif "output_gradient" in wanted:
        missing["output_gradient"] = UNREACHED
    dims = ("sample", "time") if is_loop and one.value.ndim == 2 else ()
    return LayerRecord(
        path=path,
        kind="mark",
        arrays=arrays,
        flags={"dtype": one.value.dtype.name, **({"time": "the order of the marks"} if is_loop else {})},
        missing=missing,
        dims={"output": dims, "output_gradient": dims} if dims else {},
    )
