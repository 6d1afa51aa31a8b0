"""Collects what a program has computed into records: one per loop, in input time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from throughtime._data.structures import to_numpy
from throughtime.adapters.needs import INSIDE
from throughtime.adapters.records import (
    UNREACHED,
    Array,
    Attribute,
    LayerRecord,
    ModelRecord,
    SolvedRecord,
)

from . import settings, weights
from .computed import Computation
from .find import Found
from .loop import State
from .marked import in_loop, outside_of_loops
from .models import Model

_NO_INPUT = "nothing floating with an axis of samples enters this loop step by step"
_NO_NAMES = (
    "the model is a function, whose arrays have no names: pass the module itself, or "
    "jax.tree_util.Partial(function, parameters)"
)
_SHOWS = "this loop is no LSTM, GRU or simple cell that could be recognised: tt.mark(value, name) shows more"
_INNER = "the loop holds another loop ({lines}), whose states it does not show"
_NAMED = INSIDE | {"input", "input_gradient", "output", "output_gradient", "valid"}
_AXES = ("unit", "row", "column", "depth")


def records(
    computation: Computation, model: Model, results: Mapping[str, Any], reduced: tuple[float, str] | None
) -> ModelRecord:
    """Turn a finished pass into records."""
    found = computation.found
    leaves = tuple(
        _Leaf(computation, model, results, number, entry).record() for number, entry in enumerate(found)
    )
    leaves += outside_of_loops(computation, results, [leaf.path for leaf in leaves])
    attributes: dict[str, Attribute] = {
        **settings.of_framework(),
        "order_of_calls": ", ".join(entry.path for entry in found),
        "time": "each loop's own input, in input order",
    }
    if reduced is None:
        attributes["gradients"] = "none: the capture was made without labels"
    else:
        attributes["loss_reduction"] = reduced[1]
    return ModelRecord(
        layers=leaves,
        attributes=attributes,
        loss=None if reduced is None else float(results["loss"]),
        reduction_factor=None if reduced is None else reduced[0],
        weight=float(computation.traced.samples.count),
    )


@dataclass
class _Leaf:
    """Reads one loop."""

    computation: Computation
    model: Model
    results: Mapping[str, Any]
    number: int
    entry: Found
    dims: dict[str, tuple[str, ...]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loop, self.wanted = self.entry.layer, self.computation.wanted
        self.own: Mapping[str, Any] = self.results["loops"][self.number]
        self.gradients: Mapping[str, Any] = self.own.get("gradients", {})
        self.within: Mapping[str, Any] = self.own.get("within", {})

    def record(self) -> LayerRecord:
        """Make the record."""
        arrays = {**self._outside(), **self._transitions(), **self._weights()}
        kept = {name: array for name, array in arrays.items() if self._is_wanted(name)}
        if self.loop.inner:
            lines = ", ".join(dict.fromkeys(op.line or "of a library" for op in self.loop.inner))
            self.missing["inner_loop"] = _INNER.format(lines=lines)
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
            flags=settings.of_loop(self.entry),
            missing={n: why for n, why in self.missing.items() if self._is_wanted(n) or n == "inner_loop"},
            inside=inside,
            states=tuple(state.name for state in self.loop.shown) if self.loop.kind == "rnn" else (),
            dims=self.dims,
        )

    def _is_wanted(self, name: str) -> bool:
        if name in ("carried_by_state", "carried_gradient"):
            return "carried_gradient" in self.wanted
        return name in self.wanted or name not in _NAMED

    # Arrays of steps.

    def _series(self, array: Any, axis: int | None) -> Array:
        """(time, …) as the program has it to (sample, time, …) in input time."""
        found = to_numpy(array)
        found = found[:, None] if axis is None else np.moveaxis(found, axis + 1, 1)
        found = found[::-1] if self.loop.is_flipped else found
        found = np.swapaxes(found, 0, 1)
        return found[..., None] if found.ndim == 2 else found

    def _once(self, array: Any, axis: int | None) -> Array:
        found = to_numpy(array)
        found = found[None] if axis is None else np.moveaxis(found, axis, 0)
        return found[:, None] if found.ndim == 1 else found

    def _outside(self) -> dict[str, Array]:
        loop, states = self.loop, self.loop.shown
        samples = self._series(self.own["states"][0], states[0].axis).shape[0]
        arrays: dict[str, Array] = {"valid": np.ones((samples, loop.length), bool)}
        if loop.input is None:
            self.missing |= {"input": _NO_INPUT, "input_gradient": _NO_INPUT}
        else:
            axis = loop.axis(loop.parts(loop.body.inputs)[2][loop.input])
            arrays["input"] = self._series(self.own["input"], axis)
            if self.gradients:
                arrays["input_gradient"] = self._series(self.gradients["input"], axis)
        arrays |= self._output()
        for name, last in (("input", "feature"), ("output", "output_unit")):
            if arrays.get(name, np.empty(0)).ndim > 3:
                axes = tuple(f"{name}_{axis}" for axis in _AXES[1 : arrays[name].ndim - 2])
                self.dims |= dict.fromkeys((name, f"{name}_gradient"), ("sample", "time", last, *axes))
        return arrays

    def _output(self) -> dict[str, Array]:
        """Read what is handed out at each step; where nothing is, the first state."""
        state, position = self.loop.output_state, self.loop.output
        if position is None:
            assert state is not None
            arrays = {"output": self._series(self.own["states"][0], state.axis)}
            gradient = np.zeros_like(arrays["output"])
        else:
            axis = self.loop.axis(self.loop.emitted[position])
            arrays = {"output": self._series(self.own["output"], axis)}
            gradient = np.zeros_like(arrays["output"])
            gradient += self._series(self.gradients["output"], axis) if self.gradients else 0
        if not self.gradients:
            return arrays
        if state is not None:
            last = 0 if self.loop.runs_backward else -1
            gradient[:, last] += self._once(self.gradients["final"], state.axis)
        if not gradient.any() and not any(np.any(one) for one in self.gradients["states"]):
            self.missing["output_gradient"] = UNREACHED
            return arrays
        return {**arrays, "output_gradient": gradient}

    def _transitions(self) -> dict[str, Array]:
        """Norm of what the next step hands back."""
        norms = self.within.get("carried", [])
        each = [
            self._shifted(norm) for state, norm in zip(self.loop.states, norms, strict=False) if state.name
        ]
        if not each:
            return {}
        by_state = np.stack(each, -1)
        return {"carried_by_state": by_state, "carried_gradient": np.sqrt(np.square(by_state).sum(-1))}

    def _shifted(self, norm: Any) -> Array:
        handed = np.atleast_2d(to_numpy(norm)) if np.ndim(norm) > 1 else to_numpy(norm)[:, None]
        handed = (handed[::-1] if self.loop.is_flipped else handed).T
        found = np.zeros_like(handed)
        if self.loop.runs_backward:
            found[:, 1:] = handed[:, :-1]
        else:
            found[:, :-1] = handed[:, 1:]
        return found

    # Weights.

    def _weights(self) -> dict[str, Array]:
        if not self.model.paths:
            self.missing |= dict.fromkeys(("weights", "weight_gradients"), _NO_NAMES)
        values, gradients = self.model.parameters, self.results["parameters"]
        of_values = {n: to_numpy(values[n]) for n in self.entry.weights if "weights" in self.wanted}
        of_gradients = {n: to_numpy(gradients[n]) for n in self.entry.weights if n in gradients}
        return {**self._named(of_values, ""), **self._named(of_gradients, "_gradient")}

    def _named(self, arrays: Mapping[int, Array], ending: str) -> dict[str, Array]:
        names = self.entry.names
        of_cell = {names[n]: array for n, array in arrays.items() if n in self.entry.cell}
        found = weights.oriented(self.loop.kind, of_cell) or {}
        rest = {names[n]: array for n, array in arrays.items() if not found or n not in self.entry.cell}
        states = {state.name for state in self.loop.shown}
        found |= weights.own(rest, states, is_standard=self.loop.kind != "rnn")
        return {f"{name}{ending}": np.array(array) for name, array in found.items()}

    # Inside.

    def _inside(self, outside: Mapping[str, Array]) -> SolvedRecord:
        arrays: dict[str, Array] = {}
        for number, state in enumerate(self.loop.states):
            if state.name:
                arrays |= self._of_state(number, state)
        arrays |= self._gates()
        pairs = self.within.get("weights", []), self.within.get("inputs", [])
        ours = {f"const_{n}_gradient": to_numpy(pair[0]) for n, pair in enumerate(pairs[0])}
        theirs = {f"const_{n}_gradient": to_numpy(pair[1]) for n, pair in enumerate(pairs[0])}
        found, input_gradient = self._input_gradients(pairs[1]) or (None, None)
        back = {} if found is None else {"input_gradient": found}
        initial = [self._once(one, state.axis) for state, one in self._shown(self.own["initial"])]
        first = arrays[self.loop.shown[0].name]
        marks = in_loop(self.loop, self.within, self._series, {*arrays, *outside})
        dims = marks.dims(first, _AXES[: first.ndim - 2])
        self.dims |= {name: ("sample", "time", *axes) for name, axes in dims.items()}
        return SolvedRecord(
            arrays={**ours, **arrays, **marks.arrays, **back},
            gates=marks.gates,
            marks=marks.names,
            weight_gradients=theirs,
            input_gradient=input_gradient,
            initial=tuple(initial),
            hidden_before=self._hidden_before(arrays, initial[0]) if self.loop.gates else None,
        )

    def _shown(self, values: Sequence[Any]) -> list[tuple[State, Any]]:
        pairs = zip(self.loop.states, values, strict=True)
        return [(state, value) for state, value in pairs if state.name]

    def _of_state(self, number: int, state: State) -> dict[str, Array]:
        arrays = {state.name: self._series(self.own["states"][number], state.axis)}
        if self.gradients:
            arrays[f"{state.name}_gradient"] = self._series(self.gradients["states"][number], state.axis)
            first = self._once(self.gradients["initial"][number], state.axis)
            arrays[f"initial_{state.name}_gradient"] = first
        self._name_axes(state.name, arrays[state.name].shape[2:], ("", "_gradient"))
        return arrays

    def _name_axes(self, name: str, shape: tuple[int, ...], endings: Sequence[str]) -> None:
        """Give a state whose axes are not (unit), or not those of the first one, names for them."""
        first = self.loop.shown[0]
        size = self._series(self.own["states"][self.loop.states.index(first)], first.axis).shape[2:]
        if len(shape) == 1 and shape == size:
            return
        prefix = "" if shape == size else f"{name}_"
        axes = tuple(f"{prefix}{axis}" for axis in _AXES[: len(shape)])
        for ending in endings:
            self.dims[f"{name}{ending}"] = ("sample", "time", *axes)
            self.dims[f"initial_{name}{ending}"] = ("sample", *axes)

    def _gates(self) -> dict[str, Array]:
        if not self.loop.gates or not self.within:
            return {}
        keys = {name: gate.value for name, gate in self.loop.gates.items()}
        parts = {"gate_activation": self.within["values"]}
        if "gradients" in self.within:
            parts["gate_gradient"] = self.within["gradients"]
        found = {}
        for name, values in parts.items():
            each = [self._series(values[f"gate {gate}"], self.loop.axis(key)) for gate, key in keys.items()]
            found[name] = np.stack(each, 2) if len(each) > 1 else each[0]
        if len(keys) == 1:
            del found["gate_activation"]
        return found

    def _input_gradients(self, pairs: Sequence[tuple[Any, Any]]) -> tuple[Array, Array] | None:
        """dL/dx_t of all that enters step by step, found twice, (1, time, everything)."""
        if not pairs:
            return None
        ours, theirs = (
            np.concatenate([to_numpy(pair[side]).reshape(self.loop.length, -1) for pair in pairs], 1)[None]
            for side in (0, 1)
        )
        return ours, theirs

    def _hidden_before(self, arrays: Mapping[str, Array], initial: Array) -> Array:
        """h_{t−1} at every step."""
        hidden = arrays["hidden"]
        if self.loop.runs_backward:
            return np.concatenate([hidden[:, 1:], initial[:, None]], 1)
        return np.concatenate([initial[:, None], hidden[:, :-1]], 1)


def _is_of(name: str, states: int) -> bool:
    return "hidden" in name or ("cell" in name and states > 1)
