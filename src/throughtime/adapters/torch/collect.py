"""Collects the arrays of a finished pass into records: one per layer call, in input time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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

from . import description, graph, weights
from .collect_recurrence import CellLeaf, KernelLeaf, Leaf
from .layout import Packed
from .passes import STATES_ONLY, Call, Pass
from .recurrence import Recurrence
from .structure import name_of, numpy


def leaves(done: Pass, call: Call, recurrence: Recurrence) -> list[LayerRecord]:
    """One leaf, or one for each inner layer of torch's kernels that was asked for."""
    if call.kind == "rnn":
        return [Leaf(done, call, recurrence).record()]
    count = len(recurrence.steps[0].layers)
    if not count:
        return [CellLeaf(done, call, recurrence).record()]
    asked = [entry.inner for entry in done.found if entry.layer is call.entry.layer]
    chosen = [place for place in range(count) if None in asked or place in asked]
    return [_FusedLeaf(done, call, recurrence, place).record() for place in chosen]


class _FusedLeaf(KernelLeaf):
    """Reads one inner layer of a kernel; each call is a window of time."""

    def __init__(self, done: Pass, call: Call, recurrence: Recurrence, place: int) -> None:
        super().__init__(done, call, recurrence)
        self.layers = [step.layers[place] for step in self.steps]
        self.layouts = [step.layout for step in self.steps if step.layout is not None]
        self.lengths = tuple(layout.steps for layout in self.layouts) if len(self.steps) > 1 else ()
        self.place, count, both = place, len(self.steps[0].layers), len(self.layers[0].directions)
        self.inner = place if count > 1 else None
        self.first, self.sets = place * both, count * both
        self.directions = ("forward", "backward") if both > 1 else ()
        if weights.PROJECTION in self._named(0, self.steps):
            self.dims = weights.projected_dims(both > 1)

    def _of_kind(self) -> dict[str, Attribute]:
        is_last = self.place == len(self.steps[0].layers) - 1
        return {**super()._of_kind(), "inner_layer": self.place, "is_last": int(is_last)}

    def _outside(self) -> dict[str, Array]:
        """Everything that enters and leaves, as far as it is asked for or the inside needs it."""
        wanted, needed, layers = self.done.wanted, self.done.wants_inside, self.layers
        inputs = [layer.input for layer in layers]
        found = {"valid": self._joined([np.ones(tuple(one.shape[:-1]), bool) for one in inputs], inputs)}
        if "input" in wanted or needed:
            found["input"] = self._joined([numpy(one, copy=True) for one in inputs], inputs)
        if "output" in wanted or needed:
            found["output"] = self._joined([numpy(layer.output) for layer in layers], inputs)
        marks = {
            "output_gradient": [[layer.output] for layer in self.layers],
            "input_gradient": [[one.input for one in layer.directions] for layer in self.layers],
        }
        found |= {name: self._gradients(each) for name, each in marks.items()}
        self.missing |= {name: UNREACHED for name, one in found.items() if one is None}
        states = (state for layer in self.layers for one in layer.directions for state in one.final)
        is_reached = any(self.done.gradients.tensor(state) is not None for state in states)
        if found["output_gradient"] is None and is_reached:
            self.missing["output_gradient"] = STATES_ONLY
        return {name: one for name, one in found.items() if one is not None}

    def _gradients(self, marks: Sequence[Sequence[torch.Tensor]], *, of_states: bool = False) -> Array | None:
        """Read the gradients of what each window has, from its marks."""
        found = [self.done.gradients.of(*each) for each in marks]
        return self._joined(found, [each[0] for each in marks], of_states=of_states)

    def _joined(
        self, arrays: Sequence[Array | None], like: Sequence[torch.Tensor], *, of_states: bool = False
    ) -> Array | None:
        """Put windows one after another, 0 where a sample has left or nothing is; None where all is nothing."""
        known, parts = next((one for one in arrays if one is not None), None), []
        if known is None:
            return None
        for number, (layout, array, tensor) in enumerate(zip(self.layouts, arrays, like, strict=True)):
            filled = np.zeros(tuple(tensor.shape), known.dtype) if array is None else array
            part = layout.in_order(filled) if of_states else layout.by_sample(filled)
            if self.recurrence.rows:
                part = numpy(self.recurrence.whole(torch.from_numpy(part), number))
            parts.append(part)
        if not self.lengths:
            return parts[0]
        return np.stack(parts, 1) if of_states else np.concatenate(parts, 1)

    def _inside(self) -> Iterator[DirectionRecord]:
        output, output_gradient = self.outside["output"], self.outside.get("output_gradient")
        every, packed = [layer.directions for layer in self.layers], isinstance(self.layouts[0], Packed)
        units = output.shape[-1] // len(every[0])
        for number, windows in enumerate(zip(*every, strict=True)):
            own = slice(number * units, (number + 1) * units)
            initial = zip(*(one.initial for one in windows), strict=True)
            final = zip(*(one.final for one in windows), strict=True)
            own_weights, gradients = self.done.used(self.call.kind, self._named(number, self.steps))
            yield DirectionRecord(
                weights=own_weights,
                weight_gradients=gradients,
                inputs=self.outside["input"],
                hidden=output[..., own],
                output_gradient=None if output_gradient is None else output_gradient[..., own],
                input_gradient=self._gradients([[one.input] for one in windows]),
                valid=self.outside["valid"] if packed else None,
                zero_output=packed,
                runs_backward=number == 1,
                initial=tuple(
                    self._joined([numpy(one, copy=True) for one in each], each, of_states=True)
                    for each in initial
                ),
                final_gradients=tuple(
                    self._gradients([[one] for one in each], of_states=True) for each in final
                ),
                windows=self.lengths,
            )

    def _transitions(self) -> dict[str, Array]:
        """Put what crosses between calls at the last step of the earlier one; NaN elsewhere, solved later."""

        def rows(states: torch.Tensor, number: int) -> torch.Tensor:
            return self.recurrence.whole(states[self.place], number)

        found = graph.variables(self._crossings, self._through, rows, self.done.gradients.unscaled)
        valid, ends = self.outside["valid"], np.cumsum(self.lengths)
        reset = np.zeros(valid.shape, bool)
        reset[:, ends[:-1]] = found["reset"][:, 1:]
        reset &= valid
        if not self.done.has_labels:
            return {"reset": reset}
        across = found["carried_by_state"]
        carried = np.full((*reset.shape, across.shape[-1]), np.nan, across.dtype)
        carried[:, ends - 1] = across
        norms = np.sqrt(np.square(carried).sum(-1))
        return {"reset": reset, "carried_gradient": norms, "carried_by_state": carried}


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
    done: Pass, loss: float | None, reduced: tuple[float, str] | None, *, training: bool
) -> ModelRecord:
    """Turn a finished pass into records; LayerNotFoundError if no layer asked for was called."""
    called = {id(call.entry.layer) for call in done.calls}
    absent = [entry.path for entry in done.found if id(entry.layer) not in called]
    if not called and not done.named:
        raise LayerNotFoundError(f"The model did not call {', '.join(absent)} on this batch.")
    layers: list[LayerRecord] = []
    for call in done.calls:
        if call.recurrence is None:
            layers.append(_plain(done, call))
        else:
            layers += leaves(done, call, call.recurrence)
    layers += marking.leaves(list(_named(done)), done.wanted, {leaf.path for leaf in layers})
    paths = [leaf.path for leaf in layers]
    return ModelRecord(
        layers=tuple(layers),
        attributes={
            **description.of_capture(done.model, paths, absent, reduced),
            "training": int(training),
        },
        loss=loss,
        reduction_factor=None if reduced is None else reduced[0],
    )


def _named(done: Pass) -> Iterator[marking.Marked]:
    for name, one in done.named:
        back = done.gradients.of(one.edge)
        gradient = None if back is None else _samples_first(back, done.time_major)
        value = _samples_first(numpy(one.plain.detach()), done.time_major)
        yield marking.Marked(name, value, gradient)


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
