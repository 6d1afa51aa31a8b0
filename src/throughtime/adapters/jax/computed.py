"""Compiles one program for everything: loss, total derivatives, weights, and each step once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from throughtime._errors import UnsupportedModelError
from throughtime._memory.budget import Need

from . import taps
from .find import Found
from .loop import Loop, marked
from .loss import total
from .models import Model
from .trace import Traced

# What a step has to be run once more for.
_WITHIN = frozenset(
    {"gate_activation", "gate_gradient", "step_contribution", "certificate", "carried_gradient"}
)


@dataclass
class Computation:
    """A traced model with the loops that are looked into, compiled when it first runs.

    Attributes
    ----------
    traced : Traced
    found : sequence of Found
    wanted : frozenset of str
        Quantities; no gradients where there are no labels.
    loss : callable or None
    reduced : what the loss does to samples, and the factor; known after the first batch
    need : what the compiled program takes
    """

    traced: Traced
    found: Sequence[Found]
    wanted: frozenset[str]
    loss: Any
    reduced: tuple[float, str] | None = None
    need: Need | None = None
    _compiled: Any = field(default=None, repr=False)

    @property
    def marks(self) -> list[tuple[str, int]]:
        """What `tt.mark` names outside of every loop."""
        program = self.traced.program
        floating = jnp.inexact
        return [each for each in marked(program) if jnp.issubdtype(program.shapes[each[1]].dtype, floating)]

    @property
    def loops(self) -> list[Loop]:
        """Loops that are looked into."""
        return [one.layer for one in self.found]

    def arguments(self, model: Model, x: Any, y: Any, sample_weight: Any, consts: Sequence[Any]) -> Any:
        """Gather what the compiled program takes."""
        return model.parameters, model.others, list(consts), jax.tree.leaves(x), y, sample_weight

    def compiled(self, arguments: Any) -> Any:
        """Compile for arguments of these shapes, once.

        Raises
        ------
        UnsupportedModelError
            JAX cannot differentiate a loop.
        """
        if self._compiled is None:
            try:
                self._compiled = jax.jit(self._compute).lower(*arguments).compile()
            except ValueError as error:
                raise self._explained(error) from error
        return self._compiled

    def _explained(self, error: ValueError) -> Exception:
        loops = [op for op in self.traced.program.walk() if op.name == "while"]
        if not loops or "everse-mode" not in str(error):
            return error
        lines = ", ".join(dict.fromkeys(op.line or "an unknown line" for op in loops))
        return UnsupportedModelError(
            f"JAX cannot differentiate a while_loop in reverse: {lines}. Write it as jax.lax.scan, or as "
            "fori_loop with bounds that are Python numbers; a scan may skip steps with jax.lax.cond."
        )

    def _compute(self, parameters: Any, others: Any, consts: Any, x: Any, y: Any, sample_weight: Any) -> Any:
        program, loops = self.traced.program, {loop.op: loop for loop in self.loops}
        structure = jax.tree.structure(self.traced.output)

        def forward(zeros: Any, parameters: Any) -> Any:
            known = dict(zip(program.consts, consts, strict=True))
            read, seen = taps.run(program, known, [*parameters, *others, *x], loops, zeros)
            output = structure.unflatten([read(value) for value in program.outputs])
            value = jnp.zeros(()) if self.loss is None else total(self.loss, output, y, sample_weight)
            return value, (output, seen, [read(key) for _, key in self.marks])

        shapes = {key: program.shapes[key] for _, key in self.marks}
        of_values = {key: jnp.zeros(shape.shape, shape.dtype) for key, shape in shapes.items()}
        zeros = [taps.zeros_of(loop) for loop in self.loops], of_values
        if self.loss is None:
            (value, (output, seen, marks)), gradients = forward(zeros, parameters), None
            of_parameters = None
        else:
            differentiated = jax.value_and_grad(forward, argnums=(0, 1), has_aux=True)
            (value, (output, seen, marks)), (gradients, of_parameters) = differentiated(zeros, parameters)
        leaves = [
            self._of_loop(loop, seen[number], None if gradients is None else gradients[0][number])
            for number, loop in enumerate(self.loops)
        ]
        return {
            "loss": value,
            "output": output,
            "loops": leaves,
            "parameters": self._needed(of_parameters),
            "marks": marks,
            "mark_gradients": [] if gradients is None else [gradients[1][key] for _, key in self.marks],
        }

    def _needed(self, gradients: Any) -> Any:
        if gradients is None or "weight_gradients" not in self.wanted:
            return {}
        return {number: gradients[number] for one in self.found for number in one.weights}

    def _of_loop(self, loop: Loop, left: Any, gradients: Any) -> dict[str, Any]:
        """Choose what is brought to NumPy."""
        found = {
            "states": left["states"],
            "initial": [left["initial"][state.place] for state in loop.states],
            "input": None if loop.input is None else left["inputs"][loop.input],
            "output": None if loop.output is None else left["emitted"][loop.output],
        }
        if self.wanted & _WITHIN or loop.marks:
            found["within"] = self._within(loop, left, gradients)
        if gradients is not None:
            found["gradients"] = self._chosen(loop, gradients)
        return found

    def _chosen(self, loop: Loop, gradients: Any) -> dict[str, Any]:
        state = loop.output_state
        return {
            "states": gradients["states"],
            "initial": [gradients["initial"][state.place] for state in loop.states],
            "input": None if loop.input is None else gradients["inputs"][loop.input],
            "output": None if loop.output is None else gradients["emitted"][loop.output],
            "final": None if state is None else gradients["final"][state.place],
        }

    def _within(self, loop: Loop, left: Any, gradients: Any) -> dict[str, Any]:
        found = taps.within(loop, left, gradients)
        if gradients is None:
            return found
        pairs = {
            "weights": _pairs(found.pop("consts"), gradients["consts"]),
            "inputs": _pairs(found.pop("inputs"), gradients["inputs"]),
        }
        carried = [_norm(loop, *each) for each in zip(loop.states, found.pop("carried"), strict=True)]
        return {**found, **pairs, "carried": carried}


def _pairs(ours: Sequence[Any], theirs: Sequence[Any]) -> list[tuple[Any, Any]]:
    return [(one, other) for one, other in zip(ours, theirs, strict=True) if one is not None]


def _norm(loop: Loop, state: Any, gradient: Any) -> Any:
    """Norm for each step and sample of what is handed back to a state."""
    if state.axis is None and not loop.is_single:
        return None
    kept = (0,) if state.axis is None else (0, state.axis + 1)
    axes = tuple(axis for axis in range(gradient.ndim) if axis not in kept)
    return jnp.sqrt(jnp.sum(jnp.square(gradient), axes))
