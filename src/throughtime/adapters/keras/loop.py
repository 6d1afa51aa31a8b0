"""Runs a layer's own cells in the backend's loop, with a zero added to every state that a step returns.

The gradient with respect to such a zero is the state's total derivative through time, whatever the cell
computes. The loop takes the place of the layer's `inner_loop`: it is the pass from which the loss is
computed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from throughtime._errors import UnsupportedModelError
from throughtime.adapters.marking import listening, unique

from . import cell as cells
from . import products
from .contracts import Layer, LoopResult, Scanned, Tensor
from .dialect import Dialect, Mark
from .library import dtype_of, is_float, shape_of

# The output of a cell where it is none of the cell's states.
EMITTED = "emitted"
GATES = "all gates"
MARKED = "@"  # before what `mark` names: no state has it in its name
_COMPARED = 4  # samples that the layer's own loop runs on where no sample can differ from the others


@dataclass
class Loop:
    """One run over the time of one layer; tensors by time are (time, sample, …) as processed.

    `kept` has every state, `0.hidden`, what cells emit besides, `0.emitted`, and what `mark` names in them,
    `0.@forget`.
    """

    keras: Dialect
    layer: Layer
    # (name, tensor) -> a copy that the loss can be differentiated with respect to
    mark: Mark
    training: bool
    # the layer's own loop, to compare with; None where it would draw other random numbers
    own: Callable[..., LoopResult] | None = None
    drawn: Callable[[], dict[str, Tensor]] = dict  # what the cells have drawn at their last step
    error: Tensor | None = None  # largest relative error against the layer's own output and final states
    # states before the first step, inner cells one after the other
    initial: list[Tensor] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)  # what `drawn` gave, by step
    shows_gates: bool = False
    entering: Tensor | None = None  # inputs times the cell's kernel, where that can be before the loop
    gates: Tensor | None = None  # (time, sample, gate, unit), with `entering`
    some: int | None = None  # samples to compare, where no sample can differ from the others
    # for each inner cell, which of `kept` it hands to the next one
    handed_on: list[str] = field(default_factory=list)

    def __call__(
        self, sequences: Tensor, initial_state: object, mask: Any, training: bool = False
    ) -> LoopResult:
        """Return the last output, all outputs and the final states, as Keras 3's `RNN.inner_loop` does."""
        self.training = bool(training)
        ops, tree = self.keras.ops, self.keras.tree
        parts = cells.inner_cells(self.layer.cell)
        self.initial = [self.mark(f"initial_{k}", one) for k, one in enumerate(tree.flatten(initial_state))]
        by_time: dict[str, Any] = {"x": in_processing_order(self.keras, self.layer, sequences)}
        mask = mask[0] if tree.is_nested(mask) else mask
        if mask is not None:
            by_time["valid"] = in_processing_order(self.keras, self.layer, ops.cast(mask, "bool"))
        flat = products.entering(self.keras, self.layer, by_time["x"], self.training)
        if flat is not None:
            self.entering = by_time["x"] = self.mark(f"tap_0.{GATES}", flat) if self.shows_gates else flat
        if mask is None and not (training or self.layer.stateful) and all(map(cells.standard_kind, parts)):
            self.some = _COMPARED
        start, tapped = self._dry_step(parts, by_time["x"][0])
        steps = ops.shape(by_time["x"])[0]
        by_time["taps"] = {
            name: self.mark(f"tap_{name}", ops.zeros((steps, *ops.shape(tensor)), tensor.dtype))
            for name, tensor in tapped.items()
        }

        carry = (self.initial, [] if mask is None else [start])
        (final, last), kept = self.keras.scan(partial(self._advance, parts), carry, by_time)
        self.masks, self.gates = kept.pop("drawn", {}), kept.pop("gates", None)
        # A backend may have sorted them.
        self.kept = {name: kept[name] for name in [*tapped, *kept] if name in kept}
        last, outputs = self._output(list(final), list(last))
        if self.own is not None:
            some = slice(self.some)
            given = tree.map_structure(lambda one: ops.stop_gradient(one[some]), (sequences, initial_state))
            ours = [one[some] for one in (outputs if self.layer.return_sequences else last, *final)]
            self.error = self._error(ours, self.own(*given, mask, training))
        return last, outputs, tree.pack_sequence_as(initial_state, list(final))

    def _output(self, final: list[Tensor], last: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the last output, and all that are returned (sample, time, …)."""
        source = self.handed_on[-1]
        if last:
            outputs = self.kept.pop("output", None)
        else:  # nothing is masked: every output is what the last cell hands out
            outputs = self.kept[source]
            names = cells.state_names(cells.inner_cells(self.layer.cell)[-1])
            own = dict(zip(names, final[len(final) - len(names) :], strict=True))
            last = [own[name] if (name := source.partition(".")[2]) in own else outputs[-1]]
        if not self.layer.return_sequences:
            return last[0], last[0][:, None]
        return last[0], self.keras.ops.swapaxes(outputs, 0, 1)

    def _dry_step(self, parts: Sequence[Layer], x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the first step once: what a masked first step emits, and what zeros are added to, by name."""
        tapped: dict[str, Tensor] = {}
        position = 0
        for place, part in enumerate(parts):
            names = cells.state_names(part)
            old = self.initial[position : position + len(names)]
            done, marked = self._stepped(place, part, x, old, {})
            self._check_shapes(part, done.states, old)
            added = dict(zip(names, old, strict=True))
            if done.output_state is None:
                added[EMITTED] = done.output
            added = {f"{place}.{name}": tensor for name, tensor in added.items()} | marked
            tapped |= {name: tensor for name, tensor in added.items() if is_float(dtype_of(tensor))}
            source = EMITTED if done.output_state is None else names[done.output_state]
            self.handed_on.append(f"{place}.{source}")
            x, position = done.output, position + len(names)
        emits_state = done.output_state == 0 and _repeats_first_state(self.keras, self.layer)
        return old[0] if emits_state else self.keras.ops.zeros_like(x), tapped

    def _advance(self, parts: Sequence[Layer], carry: Any, now: Any) -> Scanned:
        """Take one step of all inner cells; masked steps pass their states unchanged."""
        before, repeated = carry
        valid, x, taps = now.get("valid"), now["x"], now["taps"]
        after: list[Tensor] = []
        left: dict[str, Any] = {}
        for place, part in enumerate(parts):
            names = [f"{place}.{name}" for name in cells.state_names(part)]
            old = before[len(after) : len(after) + len(names)]
            done, marked = self._stepped(place, part, x, old, now)
            left |= {name: self._handed_out(name, one) for name, one in zip(names, done.states, strict=True)}
            left |= marked
            x = done.output
            if done.output_state is None:
                x = left[f"{place}.{EMITTED}"] = _plus(x, taps.get(f"{place}.{EMITTED}"))
            after += done.states
        if drawn := self.drawn():
            left["drawn"] = drawn
        if valid is None:
            return (after, []), left
        (last,) = repeated
        if zeroes_masked_output(self.keras, self.layer):
            last = self.keras.ops.zeros_like(x)
        elif _repeats_first_state(self.keras, self.layer) and done.output_state != 0:
            last = old[0]
        output = where_valid(self.keras, valid, x, last)
        if self.layer.return_sequences:
            left["output"] = output
        return (after, [output]), left

    def _handed_out(self, name: str, state: Tensor) -> Tensor:
        """Cut off a state that no one reads step by step, whose gradient would be zeros at every step."""
        is_read = name == self.handed_on[-1] and self.layer.return_sequences
        return state if is_read else self.keras.ops.stop_gradient(state)

    def _stepped(
        self, place: int, part: Layer, x: Tensor, old: Sequence[Tensor], now: Mapping[str, Any]
    ) -> tuple[cells.Stepped, dict[str, Tensor]]:
        """Run one inner cell, and add the zeros of this step to its states and what it marks."""
        marked: dict[str, Tensor] = {}
        taps, valid = now.get("taps", {}), now.get("valid")

        def hear(name: str, tensor: Tensor) -> Tensor:
            shape = shape_of(tensor)
            if not shape or shape[0] != shape_of(x)[0]:  # it has no samples
                return tensor
            name = unique(f"{place}.{MARKED}{name}", marked)
            marked[name] = _plus(tensor, taps.get(name))
            return marked[name]

        def kept(name: str, new: Tensor, past: Tensor) -> Tensor:
            return _plus(where_valid(self.keras, valid, new, past), taps.get(f"{place}.{name}"))

        with listening(hear):
            if self.entering is not None:
                done = products.step(self.keras, part, x, old, kept)
                if now and self.shows_gates and len(done.gates) > 1:
                    marked["gates"] = self.keras.ops.stop_gradient(self.keras.ops.stack(done.gates, axis=1))
                return done, marked
            done = cells.step(self.keras, part, x, old, training=self.training)
        new = list(map(kept, cells.state_names(part), done.states, old))
        output = done.output if done.output_state is None else new[done.output_state]
        return cells.Stepped(output, new, []), marked

    def _error(self, found: Sequence[Tensor], results: LoopResult) -> Tensor:
        """Largest relative error ‖found − expected‖ / ‖expected‖ of the output and each final state."""
        ops, (last, outputs, final) = self.keras.ops, results
        known = (outputs if self.layer.return_sequences else last, *self.keras.tree.flatten(final))
        errors = []
        for ours, theirs in zip(found, known, strict=True):
            expected = ops.stop_gradient(wide(self.keras, theirs))
            size = ops.sqrt(ops.sum(ops.square(expected)))
            difference = ops.stop_gradient(wide(self.keras, ours)) - expected
            error = ops.sqrt(ops.sum(ops.square(difference)))
            relative = error / ops.where(size > 0, size, ops.ones_like(size))
            errors.append(ops.where(error > 0, relative, ops.zeros_like(size)))
        return ops.max(ops.stack([ops.cast(error, "float32") for error in errors]))

    def _check_shapes(self, part: Layer, after: Sequence[Tensor], before: Sequence[Tensor]) -> None:
        """Refuse a cell whose states grow."""
        for name, new, old in zip(cells.state_names(part), after, before, strict=True):
            now, then = shape_of(new), shape_of(old)
            lengths = zip(now, then, strict=False)
            if len(now) != len(then) or any(a != b for a, b in lengths if None not in (a, b)):
                raise UnsupportedModelError(
                    f"The state {name!r} of {type(part).__name__} has shape {then} before a step and {now} "
                    "after it, so no gradient flows through time. Make state_size or get_initial_state "
                    "return the shape that call returns, or pass quantities='output_gradient'."
                )


def in_processing_order(keras: Dialect, layer: Layer, tensor: Tensor) -> Tensor:
    """(sample, time, …) in input time to (time, sample, …) as the layer processes it."""
    swapped = keras.ops.swapaxes(tensor, 0, 1)
    return keras.ops.flip(swapped, axis=0) if layer.go_backwards else swapped


def zeroes_masked_output(keras: Dialect, layer: Layer) -> bool:
    """Whether a masked step of a recurrent layer emits 0: the unrolled loop on JAX never does."""
    return bool(layer.zero_output_for_mask) and not (layer.unroll and keras.BACKEND == "jax")


def _repeats_first_state(keras: Dialect, layer: Layer) -> bool:
    """Whether a masked step emits the first state, as the loop on JAX does, and not the output before it."""
    return keras.BACKEND == "jax" and not layer.unroll


def where_valid(keras: Dialect, valid: Tensor | None, value: Tensor, otherwise: Tensor) -> Tensor:
    """Choose `value` at valid samples; at all where nothing is masked."""
    if valid is None:
        return value
    ops = keras.ops
    return ops.where(ops.reshape(valid, (-1, *(1,) * (len(value.shape) - 1))), value, otherwise)


def wide(keras: Dialect, tensor: Tensor) -> Tensor:
    """Give half precision, and integers, in float32."""
    return tensor if dtype_of(tensor) in ("float32", "float64") else keras.ops.cast(tensor, "float32")


def _plus(value: Tensor, tap: Tensor | None) -> Tensor:
    return value if tap is None else value + tap
