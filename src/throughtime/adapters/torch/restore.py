"""Leaves a module as it was found: stand-ins take the place of its tensors while a pass runs.

Parameters are stood in for by leaves of their own on the same memory, so that gradients of frozen ones
exist and no hook on a parameter runs; buffers by copies, which a forward pass may write on.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from throughtime._random_states import random_states_restored
from throughtime.adapters.attributes import attributes_restored

from .structure import ordinary

_HOOKS = ("_backward_hooks", "_backward_pre_hooks")


@contextmanager
def untouched(model: Any, loss: Any) -> Iterator[None]:
    """Take back every trace of a pass, also when it raises or is interrupted; gradients are on inside."""
    modules = [*_modules(model), *_modules(loss)]
    with ExitStack() as stack:
        stack.enter_context(random_states_restored())
        stack.enter_context(torch.random.fork_rng(_cuda_devices(modules)))
        stack.enter_context(_tensors_restored(_written_in_place(modules)))
        for generator in _generators(modules):
            stack.callback(generator.set_state, generator.get_state())
        for module in modules:
            stack.enter_context(attributes_restored(module))
        stack.enter_context(_modes_restored(modules))
        stack.enter_context(_autocast_cache_off())
        if "torch._dynamo" in sys.modules:  # something may be compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield


def _modules(root: Any) -> list[Any]:
    return list(root.modules()) if isinstance(root, nn.Module) else []


def _is_scripted(module: Any) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _cuda_devices(modules: Sequence[Any]) -> list[torch.device]:
    tensors = (tensor for module in modules for tensor in _own_tensors(module))
    return list({tensor.device: None for tensor in tensors if tensor.device.type == "cuda"})


def _own_tensors(module: Any) -> list[torch.Tensor]:
    both = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return [tensor for tensor in both if not nn.parameter.is_lazy(tensor)]


def _written_in_place(modules: Sequence[Any]) -> list[torch.Tensor]:
    """Tensors that no stand-in replaces: attributes that are no buffers, and all of scripted modules."""
    found = []
    for module in modules:
        if _is_scripted(module):
            found += list(module.buffers(recurse=False))
        for value in vars(module).values():
            several = value if isinstance(value, (list, tuple)) else [value]
            found += [each for each in several if isinstance(each, torch.Tensor) and not each.is_inference()]
    return [tensor for tensor in found if not isinstance(tensor, nn.Parameter)]


@contextmanager
def _tensors_restored(tensors: Sequence[torch.Tensor]) -> Iterator[None]:
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, content in kept:
                # Not by the tensor's version: batch statistics are written without a trace in it.
                if not _is_same(tensor, content):
                    tensor.copy_(content)


def _is_same(tensor: torch.Tensor, content: torch.Tensor) -> bool:
    if tensor.shape != content.shape:
        return False
    return bool(((tensor == content) | (tensor.isnan() & content.isnan())).all())


def _generators(modules: Sequence[Any]) -> list[torch.Generator]:
    values = (value for module in modules for value in vars(module).values())
    return [value for value in values if isinstance(value, torch.Generator)]


@contextmanager
def _modes_restored(modules: Sequence[Any]) -> Iterator[None]:
    """Scripted modules keep their mode out of reach of `attributes_restored`."""
    modes = [(module, module.training) for module in modules if _is_scripted(module)]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _autocast_cache_off() -> Iterator[None]:
    """Keep what autocast makes of the stand-ins out of the cache that the caller's autocast holds."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def stand_in(model: Any, loss: Any, watched: Sequence[Any], *, training: bool) -> dict[int, torch.Tensor]:
    """Replace the tensors of all modules and set their mode; `untouched` puts both back.

    Parameters
    ----------
    model, loss
    watched : sequence of modules
        Those whose weights get a gradient, frozen or not.
    training : bool

    Returns
    -------
    dict of int to tensor
        The stand-in of each parameter, by the id of the parameter.
    """
    chosen = {id(weight) for module in watched for weight in module.parameters()}
    stand_ins: dict[int, torch.Tensor] = {}
    modules = [*_modules(model), *_modules(loss)]
    # In a model that is training some modules may be held in evaluation: they stay so.
    keeps_modes = training and model.training
    for module in modules:
        if not keeps_modes:
            module.training = training
        if _is_scripted(module):
            continue
        _stand_in(module, stand_ins, chosen)
        for name in _HOOKS:  # what a user's hooks see and change belongs to training
            if getattr(module, name, None):
                vars(module)[name] = OrderedDict()
        if isinstance(module, (DataParallel, DistributedDataParallel)):
            vars(module)["forward"] = module.module  # no gradients to share between processes
    return stand_ins


def _stand_in(module: Any, stand_ins: dict[int, torch.Tensor], chosen: set[int]) -> None:
    for name, weight in module._parameters.items():
        if weight is not None:
            if id(weight) not in stand_ins:
                needed = weight.requires_grad or (id(weight) in chosen and weight.is_floating_point())
                stand_ins[id(weight)] = nn.Parameter(ordinary(weight.detach()), requires_grad=needed)
            module._parameters[name] = stand_ins[id(weight)]
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = buffer.detach().clone()
