"""Follows a module's training: its first step, and the processes that train it together."""

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.overrides import TorchFunctionMode

from throughtime._errors import MonitorError

from . import structure
from .calls import Function
from .structure import T


class FirstStep(TorchFunctionMode):
    """Follows the training of a module by hooks, without a change of the loop.

    Before the first `backward` it calls `began(x, labels, loss)`, or `failed(reason)`; after each step of the
    first optimizer that has weights of the model `stepped(optimizer)`, until that returns False.
    """

    def __init__(self, model: nn.Module, **call: Function) -> None:
        super().__init__()
        self._model, self._call = model, call
        self._optimizer: torch.optim.Optimizer | None = None
        self._output: object = None
        self._recording = ExitStack()
        self._is_open = self._is_recording = False
        self._calls: list[tuple[Any, Any, Any]] = []  # tensors stay alive, so that their ids are theirs alone
        self._forward = model.register_forward_hook(self._seen, with_kwargs=True)
        self._step = register_optimizer_step_post_hook(self._after)

    def __torch_function__(self, func: Function, types: object, args: Any = (), kwargs: Any = None) -> Any:
        given = (args, kwargs or {})
        if self._is_recording and func is torch.Tensor.backward:
            self._is_recording = False
            self._forward.remove()
            self._found(args[0])
            self._calls, self._output = [], None
        result = func(*given[0], **given[1])
        if self._is_recording and structure.tensors(result):
            self._calls.append((func, given, result))
        return result

    def _seen(
        self, model: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object], output: object
    ) -> None:
        if not (model.training and torch.is_grad_enabled()):
            return
        x = arguments[0] if len(arguments) == 1 else arguments
        if keywords:
            x = dict(inspect.signature(model.forward).bind(*arguments, **keywords).arguments)
        reason = "The model was called more than once before backward()" if self._is_open else ""
        if not all(
            isinstance(leaf, torch.Tensor) or structure.is_packed(leaf) for leaf in structure.leaves(x)
        ):
            reason = "The model was called with arguments that are not tensors"
        if reason:
            self._stop()
            self._forward.remove()
            self._step.remove()
            self._call["failed"](reason)
            return
        self._x, self._output = structure.mapped(_kept, x), output
        self._samples = next((len(each) for each in structure.tensors(x) if each.ndim), 0)
        self._is_open = self._is_recording = True
        self._recording.enter_context(self)

    def _found(self, value: torch.Tensor) -> None:
        """Pass on batch, loss (the calls from output to `value`) and labels, which these calls only take."""
        needed: set[int] = {id(value)}
        calls: list[tuple[Any, Any, Any]] = []
        for call in reversed(self._calls):
            if needed & {*_places(call[2])}:
                calls.insert(0, call)
                needed |= {*_places(call[1])}
        outputs = _places(self._output)
        if not needed & {*outputs}:
            self._call["failed"](
                "backward() was called on a tensor that does not follow from the model's output"
            )
            return
        made = {*outputs, *(place for _, _, result in calls for place in _places(result))}
        taken = {id(each): each for _, given, _ in calls for each in structure.tensors(given)}
        labels = {
            place: each
            for place, each in taken.items()
            if place not in made and each.shape[:1] == (self._samples,) and not each.requires_grad
        }
        named = {*made, *labels}
        refer = partial(structure.mapped, lambda leaf: _Place(id(leaf)) if id(leaf) in named else leaf)
        again = [(function, refer(given), _places(result)) for function, given, result in calls]
        kept = tuple(map(_kept, labels.values())) or (torch.zeros(self._samples),)

        def loss(output: object, y: Sequence[torch.Tensor]) -> torch.Tensor:
            now = dict(zip((*outputs, *labels), (*structure.tensors(output), *y), strict=False))
            filled = partial(structure.mapped, lambda leaf: now[leaf] if isinstance(leaf, _Place) else leaf)
            for function, (args, kwargs), places in again:
                result = function(*filled(args), **filled(kwargs))
                now.update(zip(places, structure.tensors(result), strict=True))
            return now[id(value)]

        self._call["began"](self._x, kept, loss)

    def _after(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        self._stop()
        mine = {id(weight) for weight in self._model.parameters()}
        given = (weight for group in optimizer.param_groups for weight in group["params"])
        if self._optimizer is None and any(id(weight) in mine for weight in given):
            self._optimizer = optimizer
        if optimizer is self._optimizer and not self._call["stepped"](optimizer):
            self._step.remove()

    def _stop(self) -> None:
        if self._is_open:
            self._is_open = self._is_recording = False
            self._recording.close()


class _Place(int):
    """Stands for a tensor in a recorded call."""


def _places(value: object) -> list[int]:
    return list(map(id, structure.tensors(value)))


def _kept(leaf: object) -> object:
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf


PATIENCE = timedelta(minutes=2)
_REMEDY = (
    "Every process has to watch the model and to call step(), record() and end() alike. To record the batch "
    "of one process alone, watch the module within DistributedDataParallel, model.module, there."
)


class Processes:
    """A group of these global ranks on the CPU, beside training's; MonitorError if some do not watch."""

    def __init__(self, ranks: list[int]) -> None:
        self.rank, self._ranks, self._lost = ranks.index(dist.get_rank()), ranks, ""
        self._group = self._guarded(
            lambda: dist.new_group(ranks, timeout=PATIENCE, backend="gloo", use_local_synchronization=True)
        )

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order."""
        found = [None] * len(self._ranks)
        self._guarded(lambda: dist.all_gather_object(found, value, group=self._group))
        return found

    def add(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the sum over all processes."""
        total = torch.from_numpy(values.copy())
        self._guarded(lambda: dist.all_reduce(total, group=self._group))
        return np.asarray(total.numpy())

    def of_first(self, value: T) -> T:
        """Return the value of the first process."""
        found = [value]
        self._guarded(lambda: dist.broadcast_object_list(found, src=self._ranks[0], group=self._group))
        return found[0]

    def leave(self) -> None:
        """Exchange nothing from now on: this process stops, perhaps alone."""
        self._lost = "this process has stopped"

    def _guarded(self, exchange: Function) -> Any:
        if self._lost:
            raise MonitorError(f"The processes exchange nothing any more: {self._lost}. {_REMEDY}")
        try:
            return exchange()
        except (RuntimeError, ValueError, AssertionError) as error:
            # A timeout, or a process or a group that is gone.
            self._lost = f"{type(error).__name__}: {error}"
            raise MonitorError(
                f"The other processes did not answer within {PATIENCE.seconds} s, or are gone. {_REMEDY} "
                f"({error})"
            ) from error


def processes_of(model: nn.Module, of_all: bool) -> Processes | None:
    """Return the processes that train a module with DistributedDataParallel; None if there is one.

    With `of_all` the module is within one that cannot be reached, of all processes.
    """
    parallel = next((each for each in model.modules() if isinstance(each, DistributedDataParallel)), None)
    if parallel is None and not (of_all and dist.is_initialized()):
        return None
    ranks = dist.get_process_group_ranks(None if parallel is None else parallel.process_group)
    return Processes(ranks) if len(ranks) > 1 else None
