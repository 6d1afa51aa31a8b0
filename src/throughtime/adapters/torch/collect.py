"""Collects the arrays of a finished pass into records: one per layer call, in input time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import nn

from throughtime._errors import LayerNotFoundError
from throughtime.adapters import marking
from throughtime.adapters.records import (
    UNREACHED,
    Array,
    Attribute,
    DirectionRecord,
    LayerRecord,
    ModelRecord,
    to_snake_case,
)

from . import collect_recurrence, description, graph, weights
from .calls import Key
from .layout import Packed
from .passes import STATES_ONLY, Call, Pass
from .structure import name_of, numpy


def leaves(done: Pass, call: Call) -> list[LayerRecord]:
    """One leaf, or one for each inner layer that was asked for."""
    asked = [entry.inner for entry in done.found if entry.layer is call.entry.layer]
    chosen = [place for place in range(len(call.layers)) if None in asked or place in asked]
    return [_Leaf(done, call, place).record() for place in chosen]


class _Leaf:
    """Reads one inner layer of one sequence."""

    def __init__(self, done: Pass, call: Call, place: int) -> None:
        self.done, self.call, self.place = done, call, place
        windows = (call, *call.windows)
        self.layers = [one.layers[place] for one in windows]
        self.layouts = [one.layout for one in windows if one.layout is not None]
        self.lengths = tuple(layout.steps for layout in self.layouts) if call.windows else ()
        self.missing: dict[str, str] = {}

    def record(self) -> LayerRecord:
        """Make the record."""
        wanted, both = self.done.wanted, self.layers[0].directions
        arrays = self._outside()
        numbers = range(len(both) if self.done.wants_inside else 0)
        is_projected = weights.PROJECTION in weights.names(len(both[0].weights))
        kept = {name: array for name, array in arrays.items() if name in wanted}
        return LayerRecord(
            path=self.call.path(self.place if len(self.call.layers) > 1 else None),
            kind=self.call.kind,
            arrays={**kept, **self._weights(), **(self._transitions() if self.lengths else {})},
            directions=("forward", "backward") if len(both) > 1 else (),
            flags=self._flags(),
            missing=self.missing,
            inside=tuple(self._inside(number, arrays) for number in numbers),
            dims=weights.projected_dims(len(both) > 1) if is_projected else {},
            windows=self.lengths,
        )

    def _flags(self) -> dict[str, Attribute]:
        flags = description.of_recurrent(self.call, self.done.frozen)
        dtype = self.call.autocast or name_of(self.layers[0].output.dtype)
        is_last = self.place == len(self.call.layers) - 1
        if self.lengths:
            flags["states_changed"] = int(not graph.all_same(self._crossings))
        return {**flags, "inner_layer": self.place, "is_last": int(is_last), "dtype": dtype}

    def _outside(self) -> dict[str, Array]:
        """Everything that enters and leaves, as far as it is asked for or the inside needs it."""
        wanted, needed, found = self.done.wanted, self.done.wants_inside, dict[str, Array]()
        if "input" in wanted or needed:
            found["input"] = self._over_time([numpy(layer.input, copy=True) for layer in self.layers])
        if "output" in wanted or needed:
            found["output"] = self._over_time([numpy(layer.output) for layer in self.layers])
        if "valid" in wanted:
            found["valid"] = np.concatenate([layout.valid for layout in self.layouts], 1)
        marks = {
            "output_gradient": [[layer.output] for layer in self.layers],
            "input_gradient": [[one.input for one in layer.directions] for layer in self.layers],
        }
        gradients = {name: self._gradient(each) for name, each in marks.items()}
        self.missing |= {name: UNREACHED for name, one in gradients.items() if one is None and name in wanted}
        states = (state for layer in self.layers for one in layer.directions for state in one.final)
        is_reached = any(self.done.gradients.of(state) is not None for state in states)
        if "output_gradient" in self.missing and is_reached:
            self.missing["output_gradient"] = STATES_ONLY
        return found | {name: one for name, one in gradients.items() if one is not None}

    def _over_time(self, arrays: Sequence[Array]) -> Array:
        parts = [layout.by_sample(array) for layout, array in zip(self.layouts, arrays, strict=True)]
        return np.concatenate(parts, 1) if self.lengths else parts[0]

    def _gradient(self, marks: Sequence[Sequence[torch.Tensor]]) -> Array | None:
        """Read the gradient of what each window has at every step, from its marks; None without any."""
        found = _filled([self.done.gradients.of(*each) for each in marks], [each[0] for each in marks])
        return None if found is None else self._over_time(found)

    def _weights(self) -> dict[str, Array]:
        each = []
        for number, direction in enumerate(self.layers[0].directions):
            every = [one for call in self.done.calls_of(self.call) for one in (call, *call.windows)]
            # A parametrization computes a weight anew for each call.
            made = (one.layers[self.place].directions[number].marked for one in every)
            marks = list(zip(*made, strict=True))
            arrays, missing = self.done.weights(self.call.kind, direction.weights, marks)
            self.missing |= missing
            each.append(arrays)
        if len(each) == 1:
            return each[0]
        return {name: np.stack([one[name] for one in each]) for name in each[0] if name in each[1]}

    def _inside(self, number: int, arrays: dict[str, Array]) -> DirectionRecord:
        windows = [layer.directions[number] for layer in self.layers]
        units = arrays["output"].shape[-1] // len(self.layers[0].directions)
        own, packed = slice(number * units, (number + 1) * units), isinstance(self.layouts[0], Packed)
        output_gradient = arrays.get("output_gradient")
        marks = zip(*(one.marked for one in windows), strict=True)
        own_weights, gradients = self.done.used(self.call.kind, windows[0].weights, marks)
        return DirectionRecord(
            weights=own_weights,
            weight_gradients=gradients,
            inputs=arrays["input"],
            hidden=arrays["output"][..., own],
            output_gradient=None if output_gradient is None else output_gradient[..., own],
            input_gradient=self._gradient([[one.input] for one in windows]),
            valid=self.layouts[0].valid if packed else None,
            zero_output=packed,
            runs_backward=windows[0].runs_backward,
            initial=tuple(
                self._of_calls(each, [numpy(state, copy=True) for state in each])
                for each in zip(*(one.initial for one in windows), strict=True)
            ),
            final_gradients=tuple(
                self._of_calls(each, [self.done.gradients.of(state) for state in each])
                for each in zip(*(one.final for one in windows), strict=True)
            ),
            windows=self.lengths,
        )

    def _of_calls(self, states: Sequence[torch.Tensor], arrays: Sequence[Array | None]) -> Array | None:
        found = _filled(arrays, states)
        if found is None:
            return None
        ordered = [layout.in_order(array) for layout, array in zip(self.layouts, found, strict=True)]
        return np.stack(ordered, 1) if self.lengths else ordered[0]

    # Transitions from call to call.

    @cached_property
    def _crossings(self) -> graph.Transitions:
        steps = self.call.steps
        states: list[tuple[Key, int]] = [(("states", str(place)), place) for place in steps[0].leaving]
        return graph.between(steps, states, self.done.gradients)

    def _transitions(self) -> dict[str, Array]:
        """Put what crosses between calls at the last step of the earlier one; NaN elsewhere, solved later."""
        if not {"reset", "carried_gradient"} & self.done.wanted:
            return {}
        through, unscaled = graph.through_changes(self._crossings), self.done.gradients.unscaled
        found = graph.variables(self._crossings, through, lambda states, _: states[self.place], unscaled)
        ends = np.cumsum(self.lengths)
        reset = np.zeros((self.layouts[0].samples, ends[-1]), bool)
        reset[:, ends[:-1]] = found["reset"][:, 1:]
        if not self.done.has_labels:
            return {"reset": reset}
        across = found["carried_by_state"]
        carried = np.full((*reset.shape, across.shape[-1]), np.nan, across.dtype)
        carried[:, ends - 1] = across
        norms = np.sqrt(np.square(carried).sum(-1))
        return {"reset": reset, "carried_gradient": norms, "carried_by_state": carried}


def _filled(arrays: Sequence[Array | None], like: Sequence[torch.Tensor]) -> list[Array] | None:
    """Put 0 where there is no array; None where there is none at all."""
    known = next((array for array in arrays if array is not None), None)
    if known is None:
        return None
    pairs = zip(arrays, like, strict=True)
    return [np.zeros(tuple(one.shape), known.dtype) if array is None else array for array, one in pairs]


_NO_TENSOR = "the layer returns no tensor"
_INTEGER = "its output is {dtype}, which has no gradient"
_NOT_RECURRENT = "inputs are captured for recurrent layers only"
_CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._LPPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
)
_SPACE = {1: ("time",), 2: ("row", "column"), 3: ("depth", "row", "column")}


def records(
    done: Pass, loss: torch.Tensor | None, reduced: tuple[float, str] | None, *, training: bool
) -> ModelRecord:
    """Turn a finished pass into records; LayerNotFoundError if no layer asked for was called."""
    called = {id(call.entry.layer) for call in done.calls}
    absent = [entry.path for entry in done.found if id(entry.layer) not in called]
    if not called and not done.named:
        raise LayerNotFoundError(f"The model did not call {', '.join(absent)} on this batch.")
    layers: list[LayerRecord] = []
    for call in done.calls:
        if call.layers:
            layers += leaves(done, call)
        elif call.recurrence is not None:
            reader = collect_recurrence.Leaf if call.kind == "rnn" else collect_recurrence.CellLeaf
            layers.append(reader(done, call, call.recurrence).record())
        else:
            layers.append(_plain(done, call))
    layers += marking.leaves(list(_named(done)), done.wanted, {leaf.path for leaf in layers})
    paths = [leaf.path for leaf in layers]
    return ModelRecord(
        layers=tuple(layers),
        attributes={
            **description.of_capture(done.model, paths, absent, reduced),
            "training": int(training),
            "output_axes": done.output_axes,
        },
        loss=None if loss is None else float(loss.detach()),
        reduction_factor=None if reduced is None else reduced[0],
    )


def _named(done: Pass) -> Iterator[marking.Marked]:
    for one in done.named:
        back = done.gradients.of(one.edge)
        gradient = None if back is None else _samples_first(back, done.time_major)
        value = _samples_first(numpy(one.plain.detach()), done.time_major)
        yield marking.Marked(one.name, value, gradient)


def _plain(done: Pass, call: Call) -> LayerRecord:
    arrays: dict[str, Array] = {}
    missing: dict[str, str] = {}
    if call.output is not None and "output" in done.wanted:
        arrays["output"] = _samples_first(numpy(call.output), done.time_major)
    if "output_gradient" in done.wanted:
        gradient = None if call.output is None else done.gradients.of(call.output)
        if gradient is None:
            missing["output_gradient"] = _why_no_gradient(call)
        else:
            arrays["output_gradient"] = _samples_first(gradient, done.time_major)
    if "input_gradient" in done.wanted:
        missing["input_gradient"] = _NOT_RECURRENT
    own, unreached = done.own_weights(call.entry.layer)
    return LayerRecord(
        path=call.path(),
        kind=to_snake_case(call.entry.class_name),
        arrays={**arrays, **own},
        flags=description.of_layer(call, done.frozen),
        missing={**missing, **unreached},
        dims={} if call.output is None else _dims(call.entry.layer, call.output.ndim),
    )


def _why_no_gradient(call: Call) -> str:
    if call.output is None:
        return _NO_TENSOR
    if not call.output.is_floating_point():
        return _INTEGER.format(dtype=name_of(call.output.dtype))
    return UNREACHED


def _samples_first(output: Array, time_major: tuple[int, ...]) -> Array:
    """Bring an output (time, sample, …) of a model that has its steps first into the order of records."""
    return output.swapaxes(0, 1) if output.ndim > 2 and output.shape[:2] == time_major else output


def _dims(module: nn.Module, rank: int) -> dict[str, tuple[str, ...]]:
    """Name the axes of a layer's output where they are not (sample, time, …, unit): channels come first."""
    if not isinstance(module, _CHANNELS_FIRST) or rank - 2 not in _SPACE:
        return {}
    axes = ("sample", "output_unit", *_SPACE[rank - 2])
    return {"output": axes, "output_gradient": axes}
