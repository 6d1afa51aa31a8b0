"""Compiles a program for all of a batch: loss, total derivatives, weights, each step again; losses alone."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.stages import Compiled
from jax.typing import ArrayLike

from throughtime._common.memory.budget import Need
from throughtime._errors import LossError, UnsupportedModelError
from throughtime.adapters import loss_reduction, records
from throughtime.adapters.loss_reduction import Loss, evaluated, weighted

from . import models
from .every_step import carried, every_step, jacobians, on_exit, transitions
from .find import Found, refused
from .loop import Loop, marked
from .models import Traced, traced
from .program import Op, Value
from .samples import have_steps, losses_of_steps, shapes_of
from .taps import Results, Seen, Taps, Zeros, run

Arrays = Sequence[Array]
Within = Mapping[Value, Array]  # gates, marks and entries of a step, by their keys
_MOST = 8  # compiled programs that are kept
_known: OrderedDict[Hashable, Callable[..., Array]] = OrderedDict()


check_loss = partial(loss_reduction.check_loss, model="JAX model", example="optax.squared_error")


def total(loss: Loss, output: object, y: object, sample_weight: ArrayLike | None) -> Array:
    """Evaluate the scalar loss of a batch, or raise LossError; values per sample are averaged."""
    value = evaluated(loss, output, y, _shapes)
    if not hasattr(value, "dtype") or not jnp.issubdtype(value.dtype, jnp.floating):
        found = f"an array of {value.dtype}" if hasattr(value, "dtype") else type(value).__name__
        raise LossError(f"The loss must return a real floating-point array; it returned {found}.")
    if sample_weight is not None:
        weight = jnp.asarray(sample_weight, value.dtype)
        if value.ndim < weight.ndim == 2 and have_steps((output, y), weight.shape):
            value = losses_of_steps(partial(total, loss, sample_weight=None), (output, y), weight.shape)
        value = weighted(value, weight)
    mean: Array = value.mean()
    return mean


def _shapes(structure: object) -> str:
    return ", ".join(str(tuple(np.shape(leaf))) for leaf in jax.tree.leaves(structure)) or "()"


def losses(
    model: object, x: object, y: object, sample_weight: object, *, loss: Loss, training: bool
) -> records.Array:
    """Evaluate what each sample loses alone, (sample) in float64; LossError if it fails on single samples."""
    check_loss(loss)
    taken = models.taken_apart(model, training=training)
    x, y, sample_weight = (jax.tree.map(jnp.asarray, data) for data in (x, y, sample_weight))
    arguments = taken.parameters, taken.others, x, y, sample_weight
    key = (taken.structure, loss, training, *map(shapes_of, arguments))
    compiled = _known.get(key) if taken.structure is not None else None
    if compiled is None:
        compiled = _known[key] = jax.jit(_of_each(taken, loss, x, y, sample_weight))
        while len(_known) > _MOST:
            _known.popitem(last=False)
    return np.asarray(compiled(*arguments), np.float64)


def _of_each(
    model: models.Model, loss: Loss, x: object, y: object, sample_weight: object
) -> Callable[..., Array]:
    """Make the function of all arrays that evaluates each sample's loss."""
    current = traced(model, x)
    samples = current.samples
    leaves = jax.tree.leaves((current.output, y, sample_weight))
    has_axis = any(samples.of_data(leaf) is not None for leaf in leaves)
    if samples.count > 1 and not has_axis:
        raise LossError("The model's output has no sample axis, so a single sample has no loss.")

    def each(parameters: Arrays, others: Arrays, x: object, y: object, sample_weight: Array) -> Array:
        data = (model.call(parameters, others, x), y, sample_weight)
        if not has_axis:
            return total(loss, *data)[None]
        return jax.vmap(lambda row: total(loss, *samples.rows(data, row)))(jnp.arange(samples.count))

    return each


# Quantities for which each step runs once more.
_WITHIN = frozenset(
    {"gate_activation", "gate_gradient", "step_contribution", "certificate", "carried_gradient"}
)


@dataclass
class Computation:
    """A traced model with the loops that are looked into, compiled when it first runs."""

    traced: Traced
    found: Sequence[Found]
    wanted: frozenset[str]  # quantities; no gradients where there are no labels
    loss: Loss | None
    reduced: tuple[float, str] | None = None  # what the loss does to samples; known after the first batch
    need: Need | None = None  # what the compiled program takes
    _compiled: Compiled | None = field(default=None, repr=False)

    @property
    def marks(self) -> list[tuple[str, int]]:
        """Values that `tt.mark` names outside of every loop."""
        program = self.traced.program
        floating = jnp.inexact
        return [each for each in marked(program) if jnp.issubdtype(program.shapes[each[1]].dtype, floating)]

    @cached_property
    def layers(self) -> list[Loop]:
        """Layers that are looked into, both halves of one that reads in both directions."""
        return [half.layer for one in self.found for half in one.halves]

    @cached_property
    def taps(self) -> list[Taps]:
        """The taps of each scan that lies in the body of no other scan."""
        outermost: list[Taps] = []
        known: dict[Op, Taps] = {}
        for layer in self.layers:
            beside = outermost
            for one in (*layer.around, layer):
                if one.op not in known:
                    known[one.op] = Taps(one, runs_again=self._runs_again(one))
                    beside.append(known[one.op])
                beside = known[one.op].inner
        return outermost

    def _runs_again(self, loop: Loop) -> bool:
        return bool(self.wanted & _WITHIN) or any(one.marks or one.below for one in loop.parts_of_scan)

    def compiled(self, arguments: Sequence[object]) -> Compiled:
        """Compile once; UnsupportedModelError if JAX cannot differentiate a loop."""
        if self._compiled is None:
            try:
                self._compiled = jax.jit(self._compute).lower(*arguments).compile()
            except ValueError as error:
                raise self._explained(error) from error
        return self._compiled

    def _explained(self, error: ValueError) -> Exception:
        why = refused(self.traced.program) if "everse-mode" in str(error) else ""
        return UnsupportedModelError(why) if why else error

    def _compute(
        self,
        parameters: Arrays,
        others: Arrays,
        consts: Arrays,
        x: Arrays,
        y: object,
        sample_weight: Array | None,
    ) -> Results:
        program = self.traced.program
        structure = jax.tree.structure(self.traced.output)

        def forward(zeros: tuple[list[Zeros], dict[Value, Array]], parameters: Arrays) -> tuple[Array, Any]:
            known = dict(zip(program.consts, consts, strict=True))
            read, seen = run(program, [*parameters, *others, *x], self.taps, *zeros, known)
            output = jax.tree.unflatten(structure, [read(value) for value in program.outputs])
            value = jnp.zeros(()) if self.loss is None else total(self.loss, output, y, sample_weight)
            return value, (output, seen, [read(key) for _, key in self.marks])

        shapes = {key: program.shapes[key] for _, key in self.marks}
        of_values: dict[Value, Array] = {
            key: jnp.zeros(shape.shape, shape.dtype) for key, shape in shapes.items()
        }
        zeros = [one.zeros() for one in self.taps], of_values
        if self.loss is None:
            (value, (output, seen, marks)), gradients = forward(zeros, parameters), None
            of_parameters = None
        else:
            differentiated = jax.value_and_grad(forward, argnums=(0, 1), has_aux=True)
            (value, (output, seen, marks)), found = differentiated(zeros, parameters)
            gradients, of_parameters = found
        return {
            "loss": value,
            "output": output,
            "layers": self._layers(self.taps, seen, None if gradients is None else gradients[0]),
            "parameters": {k: jnp.conj(of_parameters[k]) for k in self._needed} if of_parameters else {},
            "marks": marks,
            "mark_gradients": [jnp.conj(gradients[1][key]) for _, key in self.marks if gradients],
        }

    @property
    def _needed(self) -> set[int]:
        halves = [half for one in self.found for half in one.halves if "weight_gradients" in self.wanted]
        return {number for half in halves for number in half.weights}

    def _layers(
        self, each: Sequence[Taps], seen: Sequence[Seen], gradients: Sequence[Zeros] | None
    ) -> dict[int, Results]:
        """Choose what each layer, by number, brings to NumPy; scans in the bodies of scans are included."""
        found: dict[int, Results] = {}
        backs = [None] * len(seen) if gradients is None else gradients
        for taps, one, back in zip(each, seen, backs, strict=True):
            of_scan = partial(self._of_scan, taps)
            found |= (
                of_scan(one, back) if taps.loop.outer is None else taps.of_outer_steps(of_scan, one, back)
            )
        return found

    def _of_scan(self, taps: Taps, seen: Seen, back: Zeros | None) -> dict[int, Results]:
        own = [(number, layer) for number, layer in enumerate(self.layers) if layer.op is taps.loop.op]
        within = every_step(taps, seen, back) if own and self._runs_again(taps.loop) else {}
        of_layers = {
            number: {**self._of_layer(layer, seen, back, within), **transitions(layer, seen, seen.lengths)}
            for number, layer in own
        }
        return of_layers | self._layers(taps.inner, seen.inner, None if back is None else back.inner)

    def _of_layer(
        self, loop: Loop, seen: Seen, gradients: Zeros | None, within: Mapping[str, Any]
    ) -> Results:
        first, gates = loop.shown[0], loop.gates.values()
        output = seen.values[first.key] if loop.output is None else seen.emitted[loop.output]
        activations = [gate.value for gate in gates] if len(gates) > 1 else []
        found = _side(loop, seen, seen.values, output, within.get("values", {}), activations)
        found["lengths"] = seen.lengths
        if "step_contribution" in self.wanted and gates:
            # The state that a step computes with: where it was reset, the one in its place.
            found["hidden_before"] = seen.values.get(first.changes.entered, seen.entering[first.place])
        if "state_jacobian" in self.wanted and not loop.is_complex:
            found["jacobian"] = jacobians(loop, seen)
        if gradients is None:
            return found
        back, entering = within.get("gradients", {}), [gate.before for gate in gates]
        output = _output_gradient(loop, seen, gradients, back)
        of_gradients = _side(loop, gradients, gradients.states, output, back, entering)
        # A conjugate has the gradients of real and imaginary part.
        found["gradients"] = jax.tree.map(jnp.conj, of_gradients)
        if within:
            found |= {name: within[name] for name in ("weights", "steps")}
            back, norms = within["carried"], gradients.norms
            found["carried"] = [carried(loop, seen, one, back, norms) for one in loop.shown]
        return found


def _side(
    loop: Loop,
    of_scan: Seen | Zeros,
    states: Mapping[Value, Array | None],
    output: Array,
    within: Within,
    gates: Sequence[Value],
) -> Results:
    """Take a layer's values, or gradients, from those of its scan and from what lies `within` the steps."""
    return {
        "states": [states[state.key] for state in loop.shown],
        "initial": [of_scan.initial[state.place] for state in loop.shown],
        "input": _input(loop, of_scan.inputs, within),
        "output": output,
        "gates": [within[key] for key in gates if within],
        "marks": {name: within[key] for name, key in loop.marks.items() if within},
    }


def _input(loop: Loop, inputs: Sequence[Array | None], within: Within) -> Array | None:
    """Take a layer's input from the scan's, or from the cell below."""
    if loop.input is not None:
        return inputs[loop.input]
    return None if loop.below is None else within.get(loop.entry)


def _output_gradient(loop: Loop, seen: Seen, gradients: Zeros, within: Within) -> Array:
    """Sum what others ask of the output: of all that is handed out, of cells above, of the last state."""
    state = loop.output_state
    if loop.output is None:
        found = jnp.zeros_like(seen.values[loop.shown[0].key])
    else:
        key = loop.emitted[loop.output]
        both = zip(loop.emitted, gradients.emitted, strict=True)
        nothing = jnp.zeros_like(seen.emitted[loop.output])
        found = sum((one for value, one in both if value == key and one is not None), nothing)
    if state is None:
        return found
    for one in loop.parts_of_scan:
        if one.below is not None and one.below.place == state.place and within:
            found = found + within[one.entry]
    last = 0 if loop.reverse else -1
    final = gradients.final[state.place]
    return found if final is None else found.at[last].add(final * on_exit(seen, state)[last])
