"""Watches chosen layers during one pass: `forward` is wrapped on the instance and taken off afterwards.

Within the forward of a recurrent layer the call of torch's kernel is taken over, whatever the module does
around it: packing, states, a subclass's own forward.
"""

import functools
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import Node

from throughtime._common.memory.budget import Budget
from throughtime.adapters.marking import unique

from . import calls, kernels, layout, recurrence, structure
from .calls import Function
from .cuts import Cuts
from .find import Found, class_name, is_recurrent
from .layout import Meter
from .marks import OUTPUT, TAKEN, Gradients, Marks, Place
from .passes import Call


class Recorder:
    """Collects the calls of the watched layers, in order.

    `candidates` may be recurrent, `inputs` is what the model is called with, `named` what `mark` names.
    `unfit` describes the first call of a layer that cannot read its input; `time_major` has steps and samples
    of a model whose recurrent layer has them in this order, else nothing.
    """

    def __init__(
        self,
        found: Sequence[Found],
        candidates: Sequence[Found],
        quantities: frozenset[str],
        inputs: object,
        budget: Budget,
    ) -> None:
        self.calls: list[Call] = []
        self.named: list[tuple[str, calls.Leaving]] = []
        self._open_calls: list[dict[str, calls.Leaving]] = []
        self._candidates = {id(entry.layer): entry for entry in candidates}
        self._watched: dict[str, calls.Calls] = {}
        self._copies: dict[Node, Place] = {}
        self._plain_paths: set[str] = set()  # of modules that turned out to carry no state
        self._count_of_calls = 0
        self.meter = Meter(budget, quantities)
        self._is_open = True
        self.time_major: tuple[int, ...] = ()
        self._inputs = structure.tensors(inputs)
        self._first = 0, 0  # recurrent layer that is called: module, samples
        self._sequences = 0  # that it runs
        self.unfit = ""  # what the first recurrent layer that cannot be meant so was called with
        self.marks = Marks(quantities)
        self._entries = {id(entry.layer): entry for entry in found}
        self._cuts = Cuts()
        self._windows = defaultdict[int, kernels.Windows](
            functools.partial(kernels.Windows, ("states",), copies=self._copies)
        )

    def watch(self, model: nn.Module) -> None:
        """Wrap the forward of every watched layer; whoever calls this puts the attributes back."""
        for name, module in model.named_modules():
            entry, is_candidate = self._entries.get(id(module)), id(module) in self._candidates
            is_kernel = is_recurrent(module)
            if not (is_kernel or entry is not None or is_candidate):
                continue
            wrapped = forward = module.forward
            if is_kernel:
                wrapped = self._recurrent(entry, module, forward, name or class_name(module))
            elif entry is not None:
                wrapped = functools.partial(self._plain, entry, forward)
            if is_candidate:
                wrapped = self._loop_step(self._candidates[id(module)].path, calls.names_of(forward), wrapped)
            if wrapped is forward:
                continue
            # Straight into the dictionary: a module's attributes pass through torch's own bookkeeping.
            vars(module)["forward"] = functools.wraps(forward)(wrapped)

    def recurrences(self) -> list[Call]:
        """Find the modules that were called again with what they returned; each takes its calls' place."""
        of_layers = (node for call in self.calls for node in call.handed_out() if node is not None)
        found = recurrence.find(self._watched, frozenset(of_layers), is_single=self._rows == 1)
        entries = {entry.path: entry for entry in self._candidates.values()}
        again = []
        for path, each in found.items():
            entry = entries[path]
            self.calls = [one for one in self.calls if one.entry.layer is not entry.layer]
            self._first = self._first if self._first[0] else (id(entry.layer), each[0].samples)
            again += [
                Call(entry, number, kind="rnn", recurrence=one, order=one.steps[0].order)
                for number, one in enumerate(each, 1)
            ]
        self.calls = sorted([*self.calls, *again], key=lambda call: call.order)
        count = sum(id(call.entry.layer) == self._first[0] for call in self.calls)
        if count:  # each sample may have a sequence
            self._sequences = count if count >= self._rows else 1
        return again

    def calls_of(self, found: Sequence[Found]) -> list[Call]:
        """List the calls of some layers, in order."""
        layers = {id(entry.layer) for entry in found}
        return [call for call in self.calls if id(call.entry.layer) in layers]

    def close(self) -> None:
        """Record nothing more: what runs again later (checkpointing) has to run as it did, unseen."""
        self._is_open = False
        self.marks.is_open = False
        self._windows.clear()

    @property
    def sizes(self) -> list[int]:
        """List the numbers of samples that the call may have had: as layers see it, and by the input."""
        _, samples = self._first
        # A model that takes one sample after another calls its layer with each.
        is_known = samples > 1 or self._sequences == 1
        return [samples, self._rows] if is_known else [self._rows]

    @property
    def _rows(self) -> int:
        """Length of the first axis of the input."""
        return int(self._inputs[0].shape[0]) if self._inputs and self._inputs[0].ndim else 1

    def _plain(self, entry: Found, forward: Function, *arguments: object, **keywords: object) -> object:
        """Mark the first tensor that a layer returns, and pass a copy in its place."""
        result = forward(*arguments, **keywords)
        tensor = next(iter(structure.tensors(result)), None)
        call = self._new_call(entry, tensor)
        if tensor is None:
            return result
        if self._is_open:
            self.meter.add_output([tensor], is_watched=True)
        with _gradients_on():
            call.output = self.marks(OUTPUT, structure.ordinary(tensor))
            copy = call.output.clone()
        return structure.replaced(result, tensor, copy)

    def _loop_step(self, path: str, names: tuple[str, ...], forward: Function) -> Function:
        def watched(*arguments: object, **keywords: object) -> object:
            if torch._C._functorch.peek_interpreter_stack() is not None:
                return forward(*arguments, **keywords)
            is_plain = path in self._plain_paths
            if is_plain and all(one.requires_grad for one in structure.tensors([arguments, keywords])):
                return forward(*arguments, **keywords)
            if is_plain or not self._is_open:  # a checkpoint has to save what it saved before
                return calls.Calls(names).run(forward, arguments, keywords, 0)
            self._count_of_calls += 1
            noted = self._watched.get(path) or calls.Calls(names, copies=self._copies)
            self._watched[path] = noted
            self._open_calls.append({})
            try:
                result = noted.run(forward, arguments, keywords, self._count_of_calls)
            finally:
                of_call = self._open_calls.pop()
            noted.steps[-1].named = of_call
            if not noted.may_carry:
                self._plain_paths.add(path)
                del self._watched[path]
            elif len(noted.steps) > 1 and self.meter.is_due(id(noted)):
                results = [one.plain for one in noted.steps[-1].leaving.values()]
                self.meter.add_again(id(noted), results, self.sizes[0])
            return result

        return watched

    def hear(self, name: str, tensor: object) -> object:
        """Note what `mark` names, for every call that is under way, and give a copy in its place."""
        if not isinstance(tensor, torch.Tensor) or torch._C._functorch.peek_interpreter_stack() is not None:
            return tensor
        self.meter.add_output([tensor], is_watched=True)
        copy, edge = calls.copied(tensor) if tensor.is_floating_point() else (tensor, None)
        one = calls.Leaving(tensor, edge)
        self.named.append((name, one))
        for each in self._open_calls:
            each[unique(name, each)] = one
        return copy

    def named_outside(self) -> list[tuple[str, calls.Leaving]]:
        """List what `mark` names outside of every recurrence."""
        inside = {id(one) for call in self.calls for step in call.steps for one in step.named.values()}
        return [pair for pair in self.named if id(pair[1]) not in inside]

    def differentiate(
        self,
        loss: torch.Tensor | None,
        weights: Sequence[torch.Tensor],
        found: Sequence[Found],
        *,
        keep: bool,
    ) -> Gradients:
        """Differentiate the loss, see `Marks`; a state with hooks has the gradient that its hooks return."""
        places = self._places(found)
        steps = (step for call in self.calls for step in call.steps)
        each = [one for step in steps for one in step.leaving.values()]
        noted = [one.noted() for one in each]
        trained = {id(call.entry.layer) for call in self.calls if not call.is_cut}
        self._cuts.close(trained)
        gradients = self.marks.differentiate(loss, weights, places, keep=keep)
        for one, hooked in zip(each, noted, strict=True):
            if one.copy is not None and hooked:
                gradients.put(one.copy, hooked[-1])
        self._cuts.to_zero(trained, each, gradients)
        return gradients

    def _places(self, found: Sequence[Found]) -> list[Place]:
        """List the places, besides marks, whose gradients leaves contain; a single window has none."""
        has_inputs, edges = self.marks.has(TAKEN), []
        for loop in (call.recurrence for call in self.calls_of(found) if call.recurrence is not None):
            arguments = None if has_inputs else {state.argument for state in loop.states}
            steps = (one for one in loop.steps if loop.steps[1:] or not one.layers)
            edges += [edge for one in steps for edge in one.edges(arguments)]
        return edges + [one.edge for _, one in self.named_outside() if one.edge is not None]

    def _recurrent(
        self, entry: Found | None, module: layout.Recurrent, forward: Function, name: str
    ) -> Function:
        kernel = kernels.of_cell(module, forward)

        def watched(*arguments: object, **keywords: object) -> object:
            given = arguments[0] if arguments else next(iter(keywords.values()), None)
            if not self.calls or self.calls[-1].entry is not entry:  # the first step of a loop
                self.unfit = self.unfit or layout.why_unfit(name, module, given)
            if self._is_open:
                self._count(module, given, is_watched=entry is not None)
            if entry is None:
                return forward(*arguments, **keywords)
            if kernel and len(arguments) == 2 and not keywords and kernels.is_batch(kernel, *arguments):
                own = module._parameters  # torch's own search takes longer
                weights = [own[one] if one in own else getattr(module, one) for one in kernels.WEIGHTS]
                return self.run(entry, kernel, (*arguments, *weights))
            order = getattr(given, "unsorted_indices", None)
            with kernels.Taken(functools.partial(self.run, entry, order=order)):
                return forward(*arguments, **keywords)

        return watched

    def _count(self, module: layout.Recurrent, given: Any, *, is_watched: bool) -> None:
        """Note how many samples a recurrent layer is called with, and what it is going to take."""
        is_cell = isinstance(module, nn.RNNCellBase)
        if is_cell and not self.meter.is_due(id(module)):
            return
        if not self._first[0]:
            self._first = id(module), layout.count_samples(module, given)
        if id(module) == self._first[0] and not (is_cell and self._sequences):  # its calls are steps
            self._sequences += 1
        is_second = getattr(module, "batch_first", None) is False and getattr(given, "ndim", 0) == 3
        same = (one for one in self._inputs if is_second and given.data_ptr() == one.data_ptr())
        if any(given.shape == one.shape for one in same):
            self.time_major = tuple(given.shape[:2])
        self.meter.add(module, given, samples=self.sizes[0], is_watched=is_watched)

    def run(
        self, entry: Found, kernel: Function, arguments: tuple[Any, ...], order: torch.Tensor | None = None
    ) -> object:
        """Run a layer's kernel in parts, or one step of a cell."""
        layer, is_on = id(entry.layer), torch.is_grad_enabled()
        windows = self._windows[layer]
        if is_on:
            arguments = self._cuts.off(layer, arguments, windows)
        with _gradients_on():
            result, loop = windows.call(kernel, arguments, order, self.marks)
        if not is_on:
            self._cuts.add(layer, result)
        if len(loop.steps) == 1:
            call = self._new_call(entry, arguments[0])
            (call.kind, call.activation), call.recurrence = kernels.KINDS[kernel], loop
        elif self._cuts.has(layer):  # training does give the layer gradients
            next(call for call in self.calls if call.recurrence is loop).is_cut = False
        return result

    def _new_call(self, entry: Found, data: torch.Tensor | None) -> Call:
        self._count_of_calls += 1
        number = 1 + sum(one.entry.layer is entry.layer for one in self.calls)
        call = Call(entry, number, order=self._count_of_calls, is_beside=entry.is_container)
        call.is_cut = not torch.is_grad_enabled()
        if data is not None and torch.is_autocast_enabled(data.device.type):
            call.autocast = structure.name_of(torch.get_autocast_dtype(data.device.type))
        if self._is_open:
            self.calls.append(call)
        return call


def _gradients_on() -> AbstractContextManager[object]:
    """Record what runs, also where the model's own code has switched gradients off."""
    is_on = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    return nullcontext() if is_on else torch.inference_mode(False)  # which switches gradients on as well
