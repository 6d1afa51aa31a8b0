"""Collects a sequence of calls of one cell: a record whose time is the order of the calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from throughtime._record import UNREACHED, Array, Attribute, DirectionRecord, LayerRecord

from . import settings, transitions, weights
from .call import Call
from .finished import STATES_ONLY, TOGETHER, Pass
from .stepwise import Step
from .structure import name_of, numpy

_TIME = "the order of the cell's calls"


def leaf(done: Pass, call: Call) -> LayerRecord:
    """Make the record of one sequence."""
    arrays, missing = _outside(done, call)
    given = call.steps[-1].weights
    marks = [[step.marked[place] for step in _steps(done, call)] for place in range(len(given))]
    own, unreached = done.weights(call.kind, given, marks)
    reasons = {name: why for name, why in missing.items() if name in done.wanted}
    own_flags: dict[str, Attribute] = {"time": _TIME, "states_changed": int(_is_changed(done, call))}
    dtype = call.autocast or name_of(call.steps[0].out[0].plain.dtype)
    return LayerRecord(
        path=call.path(),
        kind=call.kind,
        arrays={
            **{name: array for name, array in arrays.items() if name in done.wanted},
            **_transitions(done, call),
            **own,
        },
        flags={**settings.of_recurrent(call, done.frozen), **own_flags, "dtype": dtype},
        missing={**reasons, **unreached},
        inside=(_inside(done, call, arrays),) if done.wants_inside else (),
    )


def _outside(done: Pass, call: Call) -> tuple[dict[str, Array], dict[str, str]]:
    """Everything that enters and leaves, with the reasons for what does not exist."""
    steps = call.steps
    arrays = {
        "valid": np.ones((len(steps[0].input), len(steps)), bool),
        "input": _over_time([step.input for step in steps]),
        "output": _over_time([step.out[0].plain for step in steps]),
    }
    gradients = {
        "input_gradient": _gradients(done, [[step.input] for step in steps], arrays["input"]),
        "output_gradient": _gradients(done, [[step.out[0].mark] for step in steps], arrays["output"]),
    }
    missing = {name: UNREACHED for name, gradient in gradients.items() if gradient is None}
    if missing.get("output_gradient") and any(
        _total(done, call, place) is not None for place in range(len(steps[0].out))
    ):
        missing["output_gradient"] = STATES_ONLY
    if _is_changed(done, call):
        missing["output_gradient"], gradients["output_gradient"] = TOGETHER, None
    return arrays | {name: found for name, found in gradients.items() if found is not None}, missing


def _inside(done: Pass, call: Call, arrays: dict[str, Array]) -> DirectionRecord:
    """Each call as a pass of one step, from the state given to the state handed out."""
    steps = call.steps
    hidden, *cell = (_total(done, call, place) for place in range(len(steps[0].out)))
    marks = [{id(step.marked[k]): step.marked[k] for step in steps} for k in range(len(steps[0].marked))]
    own = [done.gradients.total(each.values()) for each in marks]
    return DirectionRecord(
        weights=weights.oriented(call.kind, [numpy(weight, copy=True) for weight in steps[-1].weights]),
        weight_gradients=weights.oriented(call.kind, own, "_gradient"),
        inputs=arrays["input"],
        hidden=arrays["output"],
        output_gradient=hidden,
        input_gradient=arrays.get("input_gradient"),
        valid=None,
        zero_output=False,
        runs_backward=False,
        initial=tuple(_over_time([step.states[k] for step in steps]) for k in range(len(steps[0].states))),
        final_gradients=(None, *cell),
        windows=(1,) * len(steps),
    )


def _transitions(done: Pass, call: Call) -> dict[str, Array]:
    """Which samples are reset before a call, and what goes back from it."""
    if len(call.steps) < 2 or not {"reset", "carried_gradient"} & done.wanted:
        return {}
    crossings = [
        [_crossing(done, place, *pair) for place in range(len(pair[0].out))]
        for pair in zip(call.steps, call.steps[1:], strict=False)
    ]
    found = transitions.variables(crossings, lambda states: states, done.gradients.unscaled)
    return found if done.has_labels else {"reset": found["reset"]}


def _crossing(done: Pass, place: int, before: Step, after: Step) -> transitions.Crossing:
    left, source = before.out[place], after.sources[place]
    is_unchanged = source is not None and source.step is before and source.is_unchanged
    gradient = done.gradients.tensor(after.states[place])
    given = after.states[place] if is_unchanged else after.given[place]
    return transitions.Crossing(left.plain, left.edge, given, gradient, is_unchanged)


def _total(done: Pass, call: Call, place: int) -> Array | None:
    """dL/d(state handed out) at each call: what others ask of it, and what later calls do."""
    uses: dict[int, list[torch.Tensor]] = {id(step): [step.out[place].mark] for step in call.steps}
    for step in _steps(done, call):
        for state, source in zip(step.states, step.sources, strict=True):
            if source is not None and source.is_unchanged and source.place == place:
                uses.get(id(source.step), []).append(state)
    like = numpy(call.steps[0].out[place].plain)
    return _gradients(done, [uses[id(step)] for step in call.steps], like[:, None])


def _is_changed(done: Pass, call: Call) -> bool:
    own = {id(step) for step in call.steps}
    sources = (source for step in _steps(done, call) for source in step.sources if source is not None)
    return any(id(source.step) in own and not source.is_unchanged for source in sources)


def _steps(done: Pass, call: Call) -> Iterator[Step]:
    """Give all calls of the cell, of whichever sequence."""
    for one in done.calls_of(call):
        yield from one.steps


def _over_time(tensors: Sequence[torch.Tensor]) -> Array:
    """Put the calls' tensors one after another: (sample, time, …)."""
    return numpy(torch.stack([tensor.detach() for tensor in tensors], 1))


def _gradients(done: Pass, uses: Sequence[Sequence[torch.Tensor]], like: Array) -> Array | None:
    """Sum the gradients over the uses at each call, 0 where there is none: (sample, time, …)."""
    found = [done.gradients.total(tensors) for tensors in uses]
    if all(gradient is None for gradient in found):
        return None
    zeros = np.zeros_like(like[:, 0])
    return np.stack([zeros if gradient is None else gradient for gradient in found], 1)
