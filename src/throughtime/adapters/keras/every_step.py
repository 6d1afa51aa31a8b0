"""Finds what lies within a cell's steps, all steps at once: gates, gradients of gates, inputs and weights.

The loop has found every state and its gradient. One step of the cell, run on all steps as if they were
samples, gives the rest by the framework's autodiff, and on request the Jacobian from state to state.
Gradients of inputs and weights are thus found twice, by the loop and from the steps, and the certificate
compares them. Where input and state enter a cell by products, those of the steps follow from the gradients of
gates; elsewhere autodiff finds them here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from math import prod
from operator import add

from throughtime.adapters.records import Request

from . import cell as cells
from . import products
from .cell import CELL
from .contracts import Layer, Masks, Model, Tensor, Variable
from .dialect import Dialect, Mark
from .library import dtype_of, is_float, shape_of
from .loop import EMITTED, GATES, in_processing_order, where_valid, wide

# The tensor from one stacked cell to the next: not "input", the name of a gate, and no name of a state.
BETWEEN = "from below"
# Quantities that need the gradients of gates.
OF_GATES = frozenset({"gate_gradient", "step_contribution", "certificate"})


@dataclass(frozen=True)
class EveryStep:
    """One direction of one call, as a step that a framework can differentiate."""

    keras: Dialect
    layer: Layer
    request: Request
    handed_on: Sequence[str]  # this, `some`, `kept` and `initial` as `loop.Loop` has left them
    some: int | None
    kept: dict[str, Tensor]
    initial: Sequence[Tensor]
    input: Tensor  # (sample, time, …) in input time
    mask: Tensor | None  # (sample, time) or None
    dropout: Sequence[Masks]  # by inner cell; empty where none is active
    entering: Tensor | None  # (time, sample, column) what `products.entering` has made of the input
    gradients: dict[str, Tensor]  # of `kept`, total, (time, sample, …), where there is one

    @property
    def _needs_all_gradients(self) -> bool:
        """Whether gradients that the certificate compares do not follow from those of gates."""
        kinds, training = cells.PRODUCTS, self.request.training
        parts = cells.inner_cells(self.layer.cell)
        follow = all(cells.standard_kind(one) in kinds and not cells.drops(one, training) for one in parts)
        return "certificate" in self.request.quantities and not follow

    def weights(self) -> dict[str, Variable]:
        """Return the variables whose gradients the certificate compares."""
        own = enumerate(self.layer.weights if self._needs_all_gradients else ())
        return {f"weight_{place}": each for place, each in own if is_float(dtype_of(each))}

    def __call__(self, mark: Mark) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Run every step; return what is differentiated, and the gates (time, sample, gate, …)."""
        if self.entering is not None:
            return self._of_some(mark), {}
        keras, ops, layer, x = self.keras, self.keras.ops, self.layer, self.input
        if self._needs_all_gradients and is_float(dtype_of(x)):
            x = mark("input", x)
        x, valid = self._processed(x), self._valid()
        steps = ops.shape(x)[0]
        terms: list[Tensor] = []
        left: dict[str, Tensor] = {}
        for place, part in enumerate(cells.inner_cells(layer.cell)):
            names = cells.state_names(part)
            x = mark(f"tap_{place}.{BETWEEN}", x) if place else x
            done = self._stepped(part, place, x, mark)
            new = {f"{place}.{name}": state for name, state in zip(names, done.states, strict=True)}
            new[f"{place}.{EMITTED}"] = done.output
            for name in filter(self.gradients.__contains__, new):
                arriving = self._flat(self.gradients[name])  # at masked steps it passes unchanged
                arriving = where_valid(keras, valid, arriving, ops.zeros_like(arriving))
                terms.append(ops.sum(wide(keras, new[name]) * wide(keras, arriving)))
            if done.gates and self.request.quantities & {"gate_activation", *OF_GATES}:
                gates = ops.stack(done.gates, axis=1)
                left[f"{place}.gate_activation"] = ops.reshape(gates, (steps, -1, *gates.shape[1:]))
            x = self.kept[self.handed_on[place]]
        return reduce(add, terms) if terms else None, left

    def _valid(self) -> Tensor | None:
        """Return the mask (time, sample) in processing order; None where there is none."""
        return None if self.mask is None else self._processed(self.keras.ops.cast(self.mask, "bool"))

    def _processed(self, tensor: Tensor) -> Tensor:
        return in_processing_order(self.keras, self.layer, tensor)

    def _before(self, place: int, some: int | None = None) -> list[Tensor]:
        """Return the states of an inner cell before each step, (time · sample, …)."""
        names = [cells.state_names(part) for part in cells.inner_cells(self.layer.cell)]
        initial = self.initial[sum(map(len, names[:place])) :]
        join = self.keras.ops.concatenate
        return [
            self._flat(join([start[None, :some], self.kept[f"{place}.{name}"][:-1, :some]], axis=0))
            for start, name in zip(initial, names[place], strict=False)
        ]

    def _stepped(self, part: Layer, place: int, x: Tensor, mark: Mark) -> cells.Stepped:
        """Run one inner cell, time beside samples, from the states that the loop has found."""
        ops, names = self.keras.ops, cells.state_names(part)
        zeros = ops.zeros_like(self.kept[f"{place}.{names[0]}"])
        gates = cells.gate_names(part)
        taps = {}
        if gates and self.request.quantities & OF_GATES:
            stacked = mark(f"tap_{place}.{GATES}", ops.stack([zeros] * len(gates), axis=2))
            taps = dict(zip(gates, ops.unstack(stacked, len(gates), axis=2), strict=True))
        if gates and CELL in names:
            taps[CELL] = mark(f"tap_{place}.{CELL}", zeros)
        taps = {name: self._flat(tap) for name, tap in taps.items()}
        return self._at_all_steps(part, place, self._flat(x), self._before(place), taps, ops.shape(x)[0])

    def _of_some(self, mark: Mark) -> Tensor | None:
        """Let gradients of gates follow from those of states in some samples; the loop has all."""
        keras, ops, cell, some = self.keras, self.keras.ops, self.layer.cell, self.some
        assert self.entering is not None
        x, valid, terms = mark(f"tap_0.{GATES}", self.entering[:, :some]), self._valid(), []

        def kept(name: str, new: Tensor, _: Tensor) -> Tensor:
            arriving = self.gradients.get(f"0.{name}")
            if arriving is not None:
                arriving = self._flat(arriving[:, :some])
                arriving = where_valid(keras, valid, arriving, ops.zeros_like(arriving))
                terms.append(ops.sum(new * arriving))
            return ops.stop_gradient(new)

        products.step(keras, cell, self._flat(x), self._before(0, some), kept)
        return reduce(add, terms) if terms else None

    def _at_all_steps(
        self,
        part: Layer,
        place: int,
        x: Tensor,
        old: Sequence[Tensor],
        taps: Mapping[str, Tensor] | None,
        steps: int,
    ) -> cells.Stepped:
        with self.keras.with_dropout_masks(part, self.dropout[place] if self.dropout else {}, steps):
            return cells.step(self.keras, part, x, old, taps, training=self.request.training)

    def jacobians(self, model: Model) -> dict[str, Tensor]:
        """Return ds_t/ds_{t-1} (time, sample, state, state) of the inner cells without a closed form."""
        parts = enumerate(cells.inner_cells(self.layer.cell))
        wanted = [each for each in parts if wants_jacobian(self.keras, each[1], self.request)]
        found = {f"{place}.state_jacobian": self._jacobian(model, place, part) for place, part in wanted}
        return {name: jacobian for name, jacobian in found.items() if jacobian is not None}

    def _jacobian(self, model: Model, place: int, part: Layer) -> Tensor | None:
        """Run a copy of all steps for each element of the state, and differentiate element i in copy i.

        None where a state has no gradient, or the states have several dtypes.
        """
        keras, ops, old = self.keras, self.keras.ops, self._before(place)
        shapes, dtypes = [shape_of(each)[1:] for each in old], {*map(dtype_of, old)}
        if len(dtypes) > 1 or not all(map(is_float, dtypes)):
            return None
        ends = list(accumulate(map(prod, shapes), initial=0))
        size = ends[-1]
        x = self.kept[self.handed_on[place - 1]] if place else self._processed(self.input)
        steps = ops.shape(x)[0]

        def copied(tensor: Tensor) -> Tensor:
            return ops.tile(tensor, (size, *(1,) * (len(tensor.shape) - 1)))

        def joined(states: Sequence[Tensor]) -> Tensor:
            flat = [ops.reshape(each, (-1, prod(shape))) for each, shape in zip(states, shapes, strict=True)]
            return ops.concatenate(flat, axis=1)

        def each_element(mark: Mark) -> tuple[Tensor | None, dict[str, Tensor]]:
            before = mark("before", copied(joined(old)))
            slices = zip(ends, ends[1:], shapes, strict=False)
            states = [ops.reshape(before[:, start:end], (-1, *shape)) for start, end, shape in slices]
            done = self._at_all_steps(part, place, copied(self._flat(x)), states, None, steps * size)
            after = ops.reshape(joined(done.states), (size, -1, size))
            return ops.sum(wide(keras, after * ops.eye(size, dtype=after.dtype)[:, None])), {}

        rows = keras.differentiated(model, each_element, {})[1].get("before")
        rows = ops.zeros_like(copied(joined(old))) if rows is None else rows
        by_time = ops.swapaxes(ops.swapaxes(ops.reshape(rows, (size, steps, -1, size)), 0, 1), 1, 2)
        valid = self._valid()
        if valid is None:
            return by_time
        return ops.where(valid[:, :, None, None], by_time, ops.eye(size, dtype=by_time.dtype))

    def _flat(self, tensor: Tensor) -> Tensor:
        """(time, sample, …) to (time · sample, …)."""
        return self.keras.ops.reshape(tensor, (-1, *tensor.shape[2:]))


def wants_jacobian(keras: Dialect, cell: Layer, request: Request) -> bool:
    """Whether the Jacobian of a cell is asked for, and does not follow from its weights."""
    is_asked = "state_jacobian" in request.quantities
    return is_asked and not cells.has_closed_form(keras, cell, request.activations)
