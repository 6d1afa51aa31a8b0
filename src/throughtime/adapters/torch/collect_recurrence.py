"""Collects a recurrence: a record whose time is the order of the module's calls."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch

from throughtime.adapters import axes
from throughtime.adapters.marking import MarkedSteps, of_steps
from throughtime.adapters.needs import INSIDE
from throughtime.adapters.records import (
    UNREACHED,
    Array,
    Attribute,
    DirectionRecord,
    LayerRecord,
    SolvedRecord,
)

from . import description, graph, weights
from .calls import Entering, Step
from .find import class_name
from .jacobians import step_jacobians
from .marks import Place, sum_of, without
from .passes import STATES_ONLY, Call, Pass
from .recurrence import Recurrence
from .staying import State
from .structure import Key, name_of, numpy

_NO_GRADIENTS = "the loop runs without gradients: remove torch.no_grad() from the calls of this module"
_NO_INPUT = "besides its states, the module takes no floating tensor that has one shape at every call"
_NO_INITIAL = "the first call receives no state of this shape"
ORDER = "the order of the module's calls"
_SHOWS = "a custom module has its states, and tensors that tt.mark names between them"
Edges = Iterable[Sequence[Place | None]]  # of each call
Parts = Sequence[torch.Tensor | None]  # of the gradients of all calls


class Leaf:
    """Reads one recurrence."""

    inner: int | None = None  # number among the layers of a fused one
    directions: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()  # of windows of time

    def __init__(self, done: Pass, call: Call, recurrence: Recurrence) -> None:
        self.done, self.call, self.recurrence = done, call, recurrence
        self.steps, self.states = recurrence.steps, recurrence.states
        self.transitions = graph.Transitions(recurrence, done.gradients)
        self.dims: dict[str, tuple[str, ...]] = {}
        self.missing: dict[str, str] = {}

    def record(self) -> LayerRecord:
        """Make the record."""
        wanted = self.done.wanted
        self.outside = self._outside()
        arrays = {name: array for name, array in self.outside.items() if name in wanted}
        if len(self.steps) > 1 and {"reset", "carried_gradient"} & wanted:
            arrays |= self._transitions()
        own, unreached = self._own()
        inside = tuple(self._inside()) if self.done.wants_inside else ()
        return LayerRecord(
            path=self.call.path(self.inner),
            kind=self.call.kind,
            arrays={**arrays, **own},
            directions=self.directions,
            flags=self._flags(),
            missing={name: why for name, why in self.missing.items() if name in wanted} | unreached,
            inside=inside,
            states=tuple(state.name for state in self.states) if self.call.kind == "rnn" else (),
            dims=self.dims,
            windows=self.lengths,
        )

    def _own(self) -> tuple[dict[str, Array], dict[str, str]]:
        return self.done.own_weights(self.call.entry.layer)

    def _flags(self) -> dict[str, Attribute]:
        first = self.steps[0].leaving[self.states[0].place].plain
        flags = {
            **description.of_layer(self.call, self.done.frozen),
            **self._of_kind(),
            "dtype": self.call.autocast or name_of(first.dtype),
        }
        if len(self.steps) > 1:
            flags["states_changed"] = int(not self.transitions.are_same)
        return {**flags, "ends": self.recurrence.reason} if self.recurrence.reason else flags

    def _of_kind(self) -> dict[str, Attribute]:
        carried = ", ".join(f"{state.name}: {'.'.join(state.argument)}" for state in self.states)
        return {"cell_class": class_name(self.call.entry.layer), "time": ORDER, "carried": carried}

    # Input and output.

    def _outside(self) -> dict[str, Array]:
        arrays = {"valid": self.valid}
        key = next(self._inputs(), None)
        if key is None:
            self.missing |= {"input": _NO_INPUT, "input_gradient": _NO_INPUT}
        else:
            arrays["input"] = self._series(step.entering[key].given for step in self.steps)
            marks = [[step.entering[key].mark] for step in self.steps]
            arrays |= self._gradient("input_gradient", marks, arrays["input"])
        arrays["output"] = self._outputs()
        arrays |= self._output_gradient(arrays["output"])
        for name, last in (("input", "feature"), ("output", "output_unit")):
            self.dims |= axes.of_series(name, last, arrays[name].ndim if name in arrays else 0)
        return arrays

    def _outputs(self) -> Array:
        return self._series(step.leaving[self._place].plain for step in self.steps)

    def _output_gradient(self, output: Array) -> dict[str, Array]:
        """Find what others ask of the output: of a state that is changed, all but what the next call does."""
        outputs = ((step, step.leaving[self._place].plain) for step in self.steps)
        asked = [[one.copy for one in step.leaving.values() if one.plain is made] for step, made in outputs]
        pairs = zip(self.steps, [*self.transitions.through, ()], strict=True)
        less = [self._handed_back(*pair) for pair in pairs]
        found = self._gradient("output_gradient", asked, output, less)
        edges = (one.edge for step in self.steps for one in step.leaving.values())
        if not found and any(self.done.gradients.tensor(edge) is not None for edge in edges):
            self.missing["output_gradient"] = STATES_ONLY
        return found

    def _handed_back(self, step: Step, back: Parts) -> torch.Tensor | None:
        """Sum what the next call hands back to the output of a call through a change of it."""
        output = step.leaving[self._place].plain
        pairs = zip(self.states, back, strict=False)  # nothing comes back to the last call
        return sum_of(one for state, one in pairs if step.leaving[state.place].plain is output)

    @cached_property
    def valid(self) -> Array:
        """Which steps count, (sample, call): not those of samples that have left or keep their states."""
        valid = self.recurrence.valid
        return numpy(valid & ~self.transitions.held.cpu() if len(self.steps) > 1 else valid)

    @cached_property
    def _place(self) -> int:
        for place in sorted(self.steps[0].leaving):
            each = (getattr(step.leaving.get(place), "plain", None) for step in self.steps)
            if self.recurrence.is_series(each):
                return place
        return self.states[0].place

    def _inputs(self) -> Iterator[Key]:
        """Name the arguments that are no states, and of one shape at every call."""
        carried = {state.argument for state in self.states}
        for key in self.steps[0].entering:
            given = (getattr(step.entering.get(key), "given", None) for step in self.steps)
            if key not in carried and self.recurrence.is_series(given):
                yield key

    def _gradient(self, name: str, edges: Edges, like: Array, less: Parts = ()) -> dict[str, Array]:
        if (found := self._summed(edges, like, less)) is not None:
            return {name: found}
        self.missing[name] = UNREACHED
        return {}

    def _summed(self, edges: Edges, like: Array, less: Parts = ()) -> Array | None:
        """Sum the gradients over the edges of each call, less a part; None where no call has one."""
        sums = [self.done.gradients.summed(each) for each in edges]
        if less:
            sums = [without(one, part) for one, part in zip(sums, less, strict=True)]
        if all(one is None for one in sums):
            return None
        found = numpy(self.done.gradients.unscaled(self.recurrence.series(sums)))
        return found.astype(np.result_type(like.dtype, np.float32), copy=False)

    def _series(self, tensors: Iterable[torch.Tensor | None]) -> Array:
        return numpy(self.recurrence.series(tensors))

    # States.

    def _inside(self) -> Iterator[DirectionRecord | SolvedRecord]:
        arrays: dict[str, Array] = {}
        for state in self.states:
            arrays[state.name] = self._series(step.leaving[state.place].plain for step in self.steps)
            own, first = (arrays[one.name].shape[2:] for one in (state, self.states[0]))
            self.dims |= axes.of_state(state.name, own, first)
            if self.done.has_labels:
                arrays |= self._of_state(state, arrays[state.name])
        marked = self._marked(arrays[self.states[0].name])
        known = ("hidden", "cell")[: len(self.states)] + (("gate",) if marked.arrays else ())
        other = INSIDE - {"certificate", "state_jacobian"}
        self.missing |= {name: _SHOWS for name in other if not any(one in name for one in known)}
        if "state_jacobian" in self.done.wanted:
            arrays |= self._jacobian()
        is_certified = self.done.has_labels and "certificate" in self.done.wanted
        ours, theirs = (
            graph.transported(self.recurrence, self.done.gradients) if is_certified else (None, None)
        )
        yield SolvedRecord(
            arrays={**arrays, **marked.arrays, **({} if ours is None else {"input_gradient": ours})},
            weight_gradients={},
            input_gradient=theirs,
            initial=tuple(map(self._initial, self.states)),
            gates=marked.gates,
            marks=marked.names,
        )

    def _marked(self, hidden: Array) -> MarkedSteps:
        each = [step.named for step in self.steps]
        plain = {name: [one[name].plain if name in one else None for one in each] for name in each[0]}
        names = [name for name in plain if self.recurrence.is_series(plain[name])]
        values = {name: self._series(plain[name]) for name in names}
        gradients = {name: self._summed([[one[name].edge] for one in each], values[name]) for name in names}
        of_hidden = self.dims.get(self.states[0].name, ("sample", "time", "unit"))[2:]
        taken = {*(state.name for state in self.states), *weights.by_name(self.call.entry.layer)}
        marked = of_steps(values, gradients, taken, has_gradients=self.done.has_labels)
        self.dims |= {name: ("sample", "time", *own) for name, own in marked.dims(hidden, of_hidden).items()}
        return marked

    def _of_state(self, state: State, values: Array) -> dict[str, Array]:
        name = f"{state.name}_gradient"
        found = self._gradient(name, [[step.leaving[state.place].edge] for step in self.steps], values)
        if not found and all(step.leaving[state.place].edge is None for step in self.steps):
            self.missing[name] = _NO_GRADIENTS
            return {}
        found = found or {name: np.zeros_like(values)}
        first = self._first(state)
        if first is None:
            self.missing[f"initial_{name}"] = _NO_INITIAL
            return found
        gradient = self.done.gradients.summed([first.mark])
        back = torch.zeros_like(first.given) if gradient is None else self.done.gradients.unscaled(gradient)
        past = self.transitions.past_first(self.states.index(state))
        back = back if past is None else back + past
        return {**found, f"initial_{name}": numpy(self.recurrence.by_sample(back.detach()))}

    def _jacobian(self) -> dict[str, Array]:
        is_given = all(self._first(state) is not None for state in self.states)
        if (found := step_jacobians(self.recurrence, is_given=is_given)) is not None:
            return {"state_jacobian": numpy(found)}
        self.missing["state_jacobian"] = _NO_GRADIENTS
        return {}

    def _first(self, state: State) -> Entering | None:
        """Find the state before the first step; none where it is nothing yet, or a number for all."""
        first = self.steps[0].entering.get(state.argument)
        shape = self.steps[0].leaving[state.place].plain.shape
        return first if first is not None and first.given.shape == shape else None

    def _initial(self, state: State) -> Array | None:
        first = self._first(state)
        return None if first is None else numpy(self.recurrence.by_sample(first.given.detach()), copy=True)

    # Transitions from call to call.

    def _transitions(self) -> dict[str, Array]:
        found = self.transitions.variables(self.recurrence.whole)
        found["reset"] &= numpy(self.recurrence.valid)
        for name in ("carried_gradient", "carried_by_state"):
            found[name][~self.valid] = self.recurrence.blank
        return found if self._shows_carried else {"reset": found["reset"]}

    @property
    def _shows_carried(self) -> bool:
        return self.done.has_labels and "carried_gradient" in self.done.wanted
