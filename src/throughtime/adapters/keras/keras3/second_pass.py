"""Solves what lies within the steps of recurrent layers, once the loop has found states and their gradients.

Fills an `every_step.Recorded` from the first pass and runs it through the same `gradient_<backend>`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from throughtime._record import Request

from . import loss_scale
from .cell import lies_within_steps
from .every_step import EveryStep, Recorded
from .program import Result, Seen, Traced

Place = tuple[int, int]  # position of the call, direction
NOTHING = Result({}, {})


@dataclass(frozen=True)
class SecondPass:
    """Solves the layers of one traced model, and keeps the traces.

    Attributes
    ----------
    trace : callable (program, values, inputs) -> Traced
    request : Request
    is_scaled : bool
        Small gradients need a scaled loss, see `loss_scale`.
    """

    trace: Callable[[Any, Sequence[Any], Any], Traced]
    request: Request
    is_scaled: bool = False
    _traces: dict[Any, Traced] = field(default_factory=dict)

    def __call__(
        self, model: Any, calls: Sequence[Seen], first: Result, values: Sequence[Any]
    ) -> dict[Place, Result]:
        """Solve every direction that ran in the loop.

        Parameters
        ----------
        model : keras.Model
        calls : sequence of Seen
            What the first pass saw.
        first : Result
            What the first pass gave.
        values : sequence of the framework's tensors
            Of all variables.
        """
        found = {}
        for position, seen in enumerate(calls):
            for part, known in enumerate(seen.inside):
                if known.is_closed:
                    continue
                if known.draws or not lies_within_steps(known.layer().cell, self.request.quantities):
                    found[position, part] = NOTHING
                    continue
                recorded = _recorded(seen, part, first)
                if self.is_scaled:
                    recorded = replace(recorded, scale=keras.ops.ones((), "float32"))
                run = self._traced(model, seen, part, recorded, values)
                found[position, part] = self._run(run, values, recorded)
        return found

    def _run(self, run: Traced, values: Sequence[Any], recorded: Recorded) -> Result:
        if recorded.scale is None or not recorded.gradients:
            return run(values, recorded.as_structure())
        return loss_scale.run_scaled(lambda scale: run(values, replace(recorded, scale=scale).as_structure()))

    def _traced(self, model: Any, seen: Seen, part: int, recorded: Recorded, values: Sequence[Any]) -> Traced:
        known = seen.inside[part]
        # Which gradients exist may change from batch to batch: a loss may be flat in one of them.
        key = seen.index, part, known.input_shape, known.has_mask, frozenset(recorded.gradients)
        if key not in self._traces:
            program = EveryStep(model, known.layer(), known.handed_on, self.request)
            program.has_loss = bool(recorded.gradients)
            self._traces[key] = self.trace(program, values, recorded.as_structure())
        return self._traces[key]


def _sequence(seen: Seen, part: int, name: str, tensors: Mapping[str, Any]) -> Any:
    """Take one state's sequence (time, sample, …), which may be the layer's output."""
    if name == seen.inside[part].output:
        return keras.ops.swapaxes(tensors[seen.key("output")], 0, 1)
    return tensors[seen.key(f"loop_{name}", part)]


def _recorded(seen: Seen, part: int, first: Result) -> Recorded:
    known, tensors = seen.inside[part], first.tensors
    taps = {name: first.gradients.get(seen.key(f"tap_{name}", part)) for name in known.kept}
    return Recorded(
        input=tensors[seen.key("input")],
        mask=tensors[seen.key("inside_mask", part)] if known.has_mask else None,
        initial=[tensors[seen.key(f"initial_{k}", part)] for k in range(known.initial_states)],
        dropout=keras.tree.map_structure(lambda key: key and tensors[key], known.dropout),
        kept={name: _sequence(seen, part, name, tensors) for name in known.kept},
        gradients={name: gradient for name, gradient in taps.items() if gradient is not None},
    )
