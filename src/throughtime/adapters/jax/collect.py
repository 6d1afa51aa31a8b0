"""Collects what a program has computed into records: one per loop, in input time."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import jax
import numpy as np
from jax.typing import ArrayLike

from throughtime._inputs.structures import owned, to_numpy
from throughtime.adapters.axes import AXES, of_series, of_state
from throughtime.adapters.loss_reduction import attributes_of
from throughtime.adapters.marking import Marked, MarkedSteps, leaves, of_steps
from throughtime.adapters.needs import INSIDE
from throughtime.adapters.records import UNREACHED, Array, LayerRecord, ModelRecord, SolvedRecord

from . import weights
from .computation import Computation
from .describe import join, of_framework, of_loop
from .find import Found
from .loop import Loop
from .models import Model
from .samples import real_parts, tree_map
from .scan import State
from .taps import Results

_NO_INPUT = "no floating-point array with a sample axis enters this loop step by step"
_NO_NAMES = (
    "the model is a function, whose arrays have no names: pass the module itself, or "
    "jax.tree_util.Partial(function, parameters)"
)
_SHOWS = "this loop was not recognised as LSTM, GRU or simple cell; tt.mark(value, name) shows values in it"
_COMPLEX = "a state is complex: carry real and imaginary part as two states"
_NAMED = INSIDE | {"input", "input_gradient", "output", "output_gradient", "valid", "reset"}


def brought(results: Results, factor: float) -> Results:
    """Bring results to NumPy, and undo the loss's factor on each sample in all gradients but parameters'."""
    places = set[int]()
    results = tree_map(lambda array: owned(to_numpy(array), places), results)
    names = ("gradients", "carried", "steps", "weights")
    of_layers = [layer.get(name) for layer in results["layers"].values() for name in names]
    for array in jax.tree.leaves((of_layers, results["mark_gradients"])) if factor != 1 else ():
        with np.errstate(over="ignore"):  # what overflows is found as such
            np.multiply(array, array.dtype.type(1 / factor), out=array)
    return results


def records(
    computation: Computation, model: Model, results: Results, reduced: tuple[float, str] | None
) -> ModelRecord:
    """Turn a finished pass into records."""
    found = computation.found
    own = (each for _, each in sorted(results["layers"].items()))
    each = [
        [_Leaf(computation, model, results, next(own), half).record() for half in entry.halves]
        for entry in found
    ]
    of_loops = tuple(join(entry, *halves) for entry, halves in zip(found, each, strict=True))
    marked = _outside_of_loops(computation, results, [leaf.path for leaf in of_loops])
    return ModelRecord(
        layers=of_loops + marked,
        attributes={
            **of_framework(),
            "order_of_calls": ", ".join(entry.path for entry in found),
            "time": "each loop's own input, in input order",
            "output_axes": max(map(np.ndim, jax.tree.leaves(computation.traced.output)), default=0),
            **attributes_of(reduced),
        },
        loss=None if reduced is None else float(results["loss"]),
        reduction_factor=None if reduced is None else reduced[0],
        is_undone=True,
        weight=float(computation.traced.samples.count),
    )


@dataclass
class _Leaf:
    """Reads one layer, or one direction of it."""

    computation: Computation
    model: Model
    results: Results
    own: Results
    entry: Found
    dims: dict[str, tuple[str, ...]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loop, self.wanted = self.entry.layer, self.computation.wanted
        self.around = [one.length for one in self.loop.around]
        self.outer = prod(self.around) if self.around else 0
        self.gradients: Results = self.own.get("gradients", {})

    def record(self) -> LayerRecord:
        """Make the record."""
        arrays = {**self._outside(), **self._transitions(), **self._weights()}
        kernel, given = arrays.get("kernel"), arrays.get("input")
        if kernel is not None and given is not None and kernel.shape[0] != given.shape[2]:
            # The cell reads what the step makes of its input.
            axes = ("sample", "time", *(f"input_{axis}" for axis in AXES[: given.ndim - 2]))
            self.dims |= dict.fromkeys(("input", "input_gradient"), axes)
        kept = {name: array for name, array in arrays.items() if self._is_wanted(name)}
        if self.loop.kind == "rnn":
            shown = [state.name for state in self.loop.shown]
            lacking = [name for name in INSIDE - {"certificate"} if not _is_of(name, len(shown))]
            self.missing |= dict.fromkeys(lacking, _SHOWS)
        inside = (self._inside(arrays),) if self.wanted & (INSIDE | {"certificate"}) else ()
        for name in inside[0].arrays if inside else ():
            self.missing.pop(name, None)
        return LayerRecord(
            path=self.entry.path,
            kind=self.loop.kind,
            arrays=kept,
            flags=of_loop(self.entry, has_jacobian="jacobian" in self.own),
            missing={n: why for n, why in self.missing.items() if self._is_wanted(n)},
            inside=inside,
            states=tuple(state.name for state in self.loop.shown) if self.loop.kind == "rnn" else (),
            dims=self.dims,
            outer_steps=self.outer,
        )

    def _is_wanted(self, name: str) -> bool:
        if name in ("carried_by_state", "carried_gradient"):
            return "carried_gradient" in self.wanted
        return name in self.wanted or name not in _NAMED

    # Arrays of steps.

    def _series(self, array: ArrayLike, axis: int | None) -> Array:
        """([outer step,] time, …) as the program has it to (sample, time, …) in input time."""
        found = self._in_input_time(self._samples_first(array, None if axis is None else axis + 1))
        return found[..., None] if found.ndim == 2 else found

    def _samples_first(self, array: ArrayLike, axis: int | None) -> Array:
        """Bring samples to the front, each with its outer steps."""
        found, outer = real_parts(to_numpy(array)), bool(self.outer)
        found = found.reshape(-1, *found.shape[len(self.around) :]) if outer else found
        found = found[None] if axis is None else np.moveaxis(found, axis + outer, 0)
        return found.reshape(-1, *found.shape[2:]) if outer else found

    def _in_input_time(self, array: Array) -> Array:
        """Turn what the program has turned, but leave the padding of each sample at its end."""
        if not self.loop.is_flipped:
            return array
        if self.own["lengths"] is None:
            return array[:, ::-1]
        lengths = self._samples_first(self.own["lengths"], 0)[:, None]
        order = (lengths - 1 - np.arange(self.loop.length)) % self.loop.length
        return np.take_along_axis(array, order.reshape(*order.shape, *(1,) * (array.ndim - 2)), 1)

    def _by_step(self, array: ArrayLike) -> Array:
        """(time, sample) to (sample, time)."""
        return self._in_input_time(self._samples_first(array, 1))

    def _once(self, array: ArrayLike, axis: int | None) -> Array:
        found = self._samples_first(array, axis)
        return found[:, None] if found.ndim == 1 else found

    def _outside(self) -> dict[str, Array]:
        arrays = {name: self._by_step(self.own[name]) for name in ("valid", "reset")}
        if self.own["input"] is None:
            self.missing |= {"input": _NO_INPUT, "input_gradient": _NO_INPUT}
        else:
            arrays |= self._both("input", self.loop.input_axis)
        state, reached = self.loop.shown[0], self.gradients.get("states", [])
        position = self.loop.output
        axis = state.axis if position is None else self.loop.axis(self.loop.emitted[position])
        arrays |= self._both("output", axis)
        back = arrays.get("output_gradient")
        if back is not None and not back.any() and not any(np.any(one) for one in reached):
            self.missing["output_gradient"] = UNREACHED
            del arrays["output_gradient"]
        for name, last in (("input", "feature"), ("output", "output_unit")):
            self.dims |= of_series(name, last, arrays[name].ndim if name in arrays else 0)
        return arrays

    def _both(self, name: str, axis: int | None) -> dict[str, Array]:
        found = {name: self._series(self.own[name], axis)}
        if self.gradients:
            found[f"{name}_gradient"] = self._series(self.gradients[name], axis)
        return found

    def _transitions(self) -> dict[str, Array]:
        """Norm of what the next step hands back."""
        if "carried" not in self.own:
            return {}
        by_state = np.stack([self._by_step(norm) for norm in self.own["carried"]], -1)
        return {"carried_by_state": by_state, "carried_gradient": np.hypot.reduce(by_state, -1)}

    # Weights.

    def _weights(self) -> dict[str, Array]:
        if not self.model.paths:
            self.missing |= dict.fromkeys(("weights", "weight_gradients"), _NO_NAMES)
        values, gradients = self.model.parameters, self.results["parameters"]
        of_values = {n: to_numpy(values[n]) for n in self.entry.weights if "weights" in self.wanted}
        of_gradients = {n: gradients[n] for n in self.entry.weights if n in gradients}
        return {**self._named(of_values, ""), **self._named(of_gradients, "_gradient")}

    def _named(self, arrays: Mapping[int, Array], ending: str) -> dict[str, Array]:
        names = self.entry.names
        of_cell = {names[n]: array for n, array in arrays.items() if n in self.entry.cell}
        found = weights.oriented(self.loop.kind, of_cell) or {}
        rest = {names[n]: array for n, array in arrays.items() if not found or n not in self.entry.cell}
        states = {state.name for state in self.loop.shown}
        found |= weights.named(rest, states, is_standard=self.loop.kind != "rnn")
        return {f"{name}{ending}": np.array(real_parts(array)) for name, array in found.items()}

    # Inside.

    def _inside(self, outside: Mapping[str, Array]) -> SolvedRecord:
        states = self.loop.shown
        arrays: dict[str, Array] = {}
        for number, state in enumerate(states):
            arrays |= self._of_state(number, state)
        arrays |= self._gates()
        marks = _in_loop(self.loop, self.own, self._series, {*arrays, *outside})
        first = arrays[states[0].name]
        dims = marks.dims(first, AXES[: first.ndim - 2])
        self.dims |= {name: ("sample", "time", *axes) for name, axes in dims.items()}
        weights = [tuple(map(real_parts, map(to_numpy, pair))) for pair in self.own.get("weights", [])]
        steps = None if self.own.get("steps") is None else self._samples_first(self.own["steps"], None)
        # Norms are compared: the loop's at each step, and that of the difference.
        back = {} if steps is None else {"input_gradient": steps}
        if "jacobian" in self.own:
            arrays["state_jacobian"] = self._series(self.own["jacobian"], 0)
        elif self.loop.is_complex:
            self.missing["state_jacobian"] = _COMPLEX
        before = self.own.get("hidden_before")
        initial = zip(self.own["initial"], states, strict=True)
        return SolvedRecord(
            arrays={
                **{f"const_{n}_gradient": pair[0] for n, pair in enumerate(weights)},
                **arrays,
                **marks.arrays,
                **back,
            },
            gates=marks.gates,
            marks=marks.names,
            weight_gradients={f"const_{n}_gradient": pair[1] for n, pair in enumerate(weights)},
            input_gradient=None if steps is None else steps * np.array([1, 0], steps.dtype),
            initial=tuple(self._once(one, state.axis) for one, state in initial),
            hidden_before=None if before is None else self._series(before, states[0].axis),
        )

    def _of_state(self, number: int, state: State) -> dict[str, Array]:
        arrays = {state.name: self._series(self.own["states"][number], state.axis)}
        if self.gradients:
            arrays[f"{state.name}_gradient"] = self._series(self.gradients["states"][number], state.axis)
            before = self._once(self.gradients["initial"][number], state.axis)
            arrays[f"initial_{state.name}_gradient"] = before
        first = self._series(self.own["states"][0], self.loop.shown[0].axis)
        self.dims |= of_state(state.name, arrays[state.name].shape[2:], first.shape[2:])
        return arrays

    def _gates(self) -> dict[str, Array]:
        both = ("gate_activation", self.own["gates"]), ("gate_gradient", self.gradients.get("gates"))
        return {name: self._stacked(gates) for name, gates in both if gates}

    def _stacked(self, gates: list[ArrayLike]) -> Array:
        """Put gates side by side, and release them."""
        each = [self._series(one, self.loop.gate_axis) for one in gates]
        gates.clear()
        return each[0] if len(each) == 1 else np.stack(each, 2)


def _is_of(name: str, states: int) -> bool:
    return "hidden" in name or ("cell" in name and states > 1)


def _outside_of_loops(
    computation: Computation, results: Results, paths: Sequence[str]
) -> tuple[LayerRecord, ...]:
    """Make a leaf of each value; `paths` are those of the loops."""
    gradients = results["mark_gradients"] or [None] * len(computation.marks)
    found = []
    for (name, key), value, gradient in zip(computation.marks, results["marks"], gradients, strict=True):
        axis = computation.traced.axes.get(key) or 0
        back = None if gradient is None else np.moveaxis(real_parts(gradient), axis, 0)
        is_reached = back is not None and back.any()
        found.append(Marked(name, np.moveaxis(real_parts(value), axis, 0), back if is_reached else None))
    return leaves(found, computation.wanted, paths)


def _in_loop(
    loop: Loop, own: Results, series: Callable[[ArrayLike, int | None], Array], taken: Collection[str]
) -> MarkedSteps:
    """Arrange what a step has marked; `taken` are names of the leaf's other arrays."""
    if not loop.marks:
        return MarkedSteps()
    values, gradients = (
        {name: series(array, loop.axis(loop.marks[name])) for name, array in side.get("marks", {}).items()}
        for side in (own, own.get("gradients", {}))
    )
    return of_steps(values, gradients, taken, has_gradients=bool(gradients))
