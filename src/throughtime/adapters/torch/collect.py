"""Collects the arrays of a finished pass into records: one per layer call, in input time."""

from collections.abc import Iterator

import torch
from torch import nn

from throughtime._errors import LayerNotFoundError
from throughtime.adapters import marking
from throughtime.adapters.records import UNREACHED, Array, LayerRecord, ModelRecord, to_snake_case

from . import collect_kernels, description
from .passes import Call, Pass
from .structure import name_of, numpy

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
        if call.recurrence is None:
            layers.append(_plain(done, call))
        else:
            layers += collect_kernels.leaves(done, call, call.recurrence)
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
