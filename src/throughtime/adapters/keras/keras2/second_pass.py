"""Repeats, step by step, the recurrent layers that have no closed form, once the first pass is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from throughtime._record import Array
from throughtime.adapters.keras.unrolling import Recorded

from . import loss_scale
from .inside import Inside
from .program import Result, Traced
from .tap import Call
from .unrolled import Unrolled

Place = tuple[int, int]  # position of the call, direction


@dataclass(frozen=True)
class SecondPass:
    """Unrolls layers of one traced model, and keeps the traces.

    Attributes
    ----------
    trace : callable (computation, inputs) -> Traced
    is_scaled : bool
        Small gradients need a scaled loss, see `loss_scale`.
    """

    model: Any
    trace: Callable[[Any, Any], Traced]
    training: bool
    is_scaled: bool
    _traces: dict[Any, Traced] = field(default_factory=dict)

    def __call__(self, calls: Sequence[Call], first: Result) -> dict[Place, Result]:
        """Unroll every direction that needs it.

        Parameters
        ----------
        calls, first
            What the first pass saw, and what it gave.
        """
        found = {}
        for position, call in enumerate(calls):
            for part, known in enumerate(call.inside):
                if not known.is_closed:
                    recorded = _recorded(call, part, first)
                    run = self._traced((call.index, part), known, recorded)
                    found[position, part] = self._run(run, recorded)
        return found

    def _run(self, run: Traced, recorded: Recorded) -> Result:
        if not self._scales(recorded):
            return run(recorded.as_structure())
        return loss_scale.run_scaled(lambda scale: run(replace(recorded, scale=scale).as_structure()))

    def _scales(self, recorded: Recorded) -> bool:
        gradients = (recorded.output_gradient, *recorded.final_gradients)
        return self.is_scaled and any(gradient is not None for gradient in gradients)

    def _traced(self, place: Place, known: Inside, recorded: Recorded) -> Traced:
        # Which gradients exist may change from batch to batch: a loss may be flat in one of them.
        given = tuple(g is not None for g in (recorded.output_gradient, *recorded.final_gradients))
        key = place, recorded.input.shape, recorded.mask is not None, given
        if key not in self._traces:
            unrolled = Unrolled(
                self.model, known.layer, known.output_shape, training=self.training, has_loss=any(given)
            )
            if self._scales(recorded):
                recorded = replace(recorded, scale=np.float32(1.0))
            self._traces[key] = self.trace(unrolled, recorded.as_structure())
        return self._traces[key]


def _recorded(call: Call, part: int, first: Result) -> Recorded:
    known, is_half = call.inside[part], len(call.inside) > 1
    tensors, gradients = first.tensors, first.gradients

    def mask(key: str) -> Array:
        return tensors[key]

    return Recorded(
        input=tensors[call.key("input")],
        mask=tensors[call.key("inside_mask", part)] if known.has_mask else None,
        initial=[tensors[call.key(f"initial_{k}", part)] for k in range(known.initial)],
        dropout=[{what: list(map(mask, keys)) for what, keys in each.items()} for each in known.dropout],
        output_gradient=gradients.get(call.key("half_output", part) if is_half else call.key("output")),
        final_gradients=[gradients.get(call.key(f"state_{k}", part)) for k in range(known.initial)],
    )
