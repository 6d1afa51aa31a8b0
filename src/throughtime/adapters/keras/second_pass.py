"""Solves what lies within the steps of recurrent layers, once the loop has found states and their gradients.

Fills an `every_step.Recorded` from the first pass and runs it through the framework that ran that pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from throughtime.adapters.records import Request

from .dialect import Dialect
from .every_step import EveryStep, Recorded
from .loop import MARKED
from .loss_scale import run_scaled
from .seen import Result, SeenCall, SeenInside, lies_within_steps

Place = tuple[int, int]  # position of the call, direction
NOTHING = Result({}, {})


@dataclass(frozen=True)
class SecondPass:
    """Solves the layers of one traced model, and keeps the traces.

    Attributes
    ----------
    keras : Dialect
    trace : callable (EveryStep, inputs, has_loss) -> callable (inputs) -> Result
    request : Request
    is_scaled : bool
        Small gradients need a scaled loss, see `loss_scale`.
    """

    keras: Dialect
    trace: Callable[[EveryStep, Any, bool], Callable[[Any], Result]]
    request: Request
    is_scaled: bool
    _traces: dict[Any, Callable[[Any], Result]] = field(default_factory=dict)

    def __call__(self, calls: Sequence[SeenCall], first: Result) -> dict[Place, Result]:
        """Solve every direction that ran in the loop.

        Parameters
        ----------
        calls, first
            What the first pass saw, and what it gave.
        """
        found = {}
        for position, call in enumerate(calls):
            for part, known in enumerate(call.inside):
                if known.is_closed:
                    continue
                cell = known.layer().cell
                if known.draws or not lies_within_steps(self.keras, cell, self.request.quantities):
                    found[position, part] = NOTHING
                else:
                    found[position, part] = self._solved(call, part, self._recorded(call, part, first))
        return found

    def _solved(self, call: SeenCall, part: int, recorded: Recorded) -> Result:
        if not self.is_scaled or not recorded.gradients:
            return self._run(call, part, recorded)
        return run_scaled(self.keras, lambda scale: self._run(call, part, replace(recorded, scale=scale)))

    def _run(self, call: SeenCall, part: int, recorded: Recorded) -> Result:
        known, inputs = call.inside[part], recorded.as_structure()
        # Which gradients exist may change from batch to batch: a loss may be flat in one of them.
        shape, has_mask = tuple(recorded.input.shape), recorded.mask is not None
        key = call.index, part, shape, has_mask, frozenset(recorded.gradients)
        if key not in self._traces:
            program = EveryStep(self.keras, known.layer(), known.handed_on, self.request)
            self._traces[key] = self.trace(program, inputs, bool(recorded.gradients))
        return self._traces[key](inputs)

    def _recorded(self, call: SeenCall, part: int, first: Result) -> Recorded:
        known, tensors = call.inside[part], first.tensors
        states = [name for name in known.kept if MARKED not in name]
        taps = {name: first.gradients.get(call.key(f"tap_{name}", part)) for name in states}
        return Recorded(
            input=tensors[call.key("input")],
            mask=tensors[call.key("inside_mask", part)] if known.has_mask else None,
            initial=[tensors[call.key(f"initial_{k}", part)] for k in range(known.initial_states)],
            dropout=self.keras.tree.map_structure(lambda key: key and tensors[key], known.dropout),
            kept={name: self._sequence(call, part, name, first) for name in states},
            gradients={name: gradient for name, gradient in taps.items() if gradient is not None},
        )

    def _sequence(self, call: SeenCall, part: int, name: str, first: Result) -> Any:
        """Take one state's sequence (time, sample, …), which may be the layer's output."""
        known: SeenInside = call.inside[part]
        if name == known.output:
            output = first.tensors[call.key("output")]
            is_array = isinstance(output, np.ndarray)  # as passes of Keras 2 return
            return output.swapaxes(0, 1) if is_array else self.keras.ops.swapaxes(output, 0, 1)
        return first.tensors[call.key(f"loop_{name}", part)]
