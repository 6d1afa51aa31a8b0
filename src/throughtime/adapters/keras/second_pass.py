"""Repeats, step by step, the recurrent layers that have no closed form, once the first pass is done.

Fills an `unrolled.Recorded` from the first pass and runs it through the same `gradient_<backend>`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from throughtime.adapters.unrolling import Recorded

from . import loss_scale
from .program import Result, Seen, Traced
from .unrolled import Scan, Unrolled

Place = tuple[int, int]  # position of the call, direction


@dataclass(frozen=True)
class SecondPass:
    """Unrolls layers of one traced model, and keeps the traces.

    Attributes
    ----------
    trace : callable (program, values, inputs) -> Traced
    scan : Scan
    training : bool
    is_scaled : bool
        Small gradients need a scaled loss, see `loss_scale`.
    """

    trace: Callable[[Any, Sequence[Any], Any], Traced]
    scan: Scan
    training: bool
    is_scaled: bool = False
    _traces: dict[Any, Traced] = field(default_factory=dict)

    def __call__(
        self, model: Any, calls: Sequence[Seen], first: Result, values: Sequence[Any]
    ) -> dict[Place, Result]:
        """Unroll every direction that needs it.

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
                if not known.is_closed:
                    recorded = _recorded(seen, part, first)
                    if self.is_scaled:
                        recorded = replace(recorded, scale=keras.ops.ones((), "float32"))
                    run = self._traced(model, seen, part, recorded, values)
                    found[position, part] = self._run(run, values, recorded)
        return found

    def _run(self, run: Traced, values: Sequence[Any], recorded: Recorded) -> Result:
        if recorded.scale is None:
            return run(values, recorded.as_structure())
        return loss_scale.run_scaled(lambda scale: run(values, replace(recorded, scale=scale).as_structure()))

    def _traced(self, model: Any, seen: Seen, part: int, recorded: Recorded, values: Sequence[Any]) -> Traced:
        known = seen.inside[part]
        # Which gradients exist may change from batch to batch: a loss may be flat in one of them.
        given = tuple(g is not None for g in (recorded.output_gradient, *recorded.final_gradients))
        key = seen.index, part, known.input_shape, known.has_mask, given
        if key not in self._traces:
            program = Unrolled(model, known.layer(), self.scan, known.output_shape, training=self.training)
            program.has_loss = any(given)
            self._traces[key] = self.trace(program, values, recorded.as_structure())
        return self._traces[key]


def _recorded(seen: Seen, part: int, first: Result) -> Recorded:
    known, is_half = seen.inside[part], len(seen.inside) > 1
    tensors, gradients = first.tensors, first.gradients
    output = seen.key("half_output", part) if is_half else seen.key("output")
    states = range(known.initial_states)
    return Recorded(
        input=tensors[seen.key("input")],
        mask=tensors[seen.key("inside_mask", part)] if known.has_mask else None,
        initial=[tensors[seen.key(f"initial_{k}", part)] for k in states],
        dropout=keras.tree.map_structure(lambda key: key and tensors[key], known.dropout),
        output_gradient=gradients.get(output),
        final_gradients=[gradients.get(seen.key(f"state_{k}", part)) for k in states],
    )
