"""Leaves a module as it was found: stand-ins take the place of its tensors while a pass runs.

New leaves on the same memory stand in for parameters, so that gradients of frozen ones
exist and no hook on a parameter runs; buffers by copies, which a forward pass may write on.
"""

import sys
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from throughtime._inputs.restoring import Restored, Restorer, random_state_restorers
from throughtime.adapters.attributes import attributes_restorer
from throughtime.adapters.loss_reduction import Loss

from .structure import ordinary

_HOOKS = ("_backward_hooks", "_backward_pre_hooks")


def untouched(model: nn.Module, loss: Loss) -> Restored:
    """Take back every trace of a pass, also when it raises or is interrupted; see `gradients_on`."""
    modules = [*_modules(model), *_modules(loss)]
    values = (value for module in modules for value in vars(module).values())
    return Restored(
        [
            *random_state_restorers(),
            *(partial(one.set_state, one.get_state()) for one in values if isinstance(one, torch.Generator)),
            *(_content(tensor) for tensor in _written_in_place(modules)),
            *map(attributes_restorer, modules),
            # Scripted modules keep their mode out of reach of attributes.
            *(partial(setattr, each, "training", each.training) for each in modules if _is_scripted(each)),
            *_torch_settings(),
        ]
    )


def gradients_on() -> ExitStack:
    """Run a pass with gradients, uncompiled, and leave nothing of the stand-ins in the caller's autocast."""
    stack = ExitStack()
    torch.set_autocast_cache_enabled(False)  # `untouched` puts it back
    if "torch._dynamo" in sys.modules:  # something may be compiled
        stack.enter_context(torch.compiler.set_stance("force_eager"))
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.enable_grad())
    return stack


def _torch_settings() -> list[Restorer]:
    """Remember what contexts of torch, left by an interrupt on their way out, would leave switched."""
    functions = torch._C._len_torch_function_stack()

    def restore_functions() -> None:
        while torch._C._len_torch_function_stack() > functions:
            torch._C._pop_torch_function_stack()

    return [
        partial(torch.set_grad_enabled, torch.is_grad_enabled()),
        partial(torch.set_autocast_cache_enabled, torch.is_autocast_cache_enabled()),
        restore_functions,
    ]


def _modules(root: object) -> list[nn.Module]:
    return list(root.modules()) if isinstance(root, nn.Module) else []


def _is_scripted(module: object) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _written_in_place(modules: Sequence[nn.Module]) -> list[torch.Tensor]:
    """Tensors that no stand-in replaces: attributes that are no buffers, and all of scripted modules."""
    found = []
    for module in modules:
        if _is_scripted(module):
            found += list(module.buffers(recurse=False))
        for value in vars(module).values():
            several = value if isinstance(value, (list, tuple)) else [value]
            found += [each for each in several if isinstance(each, torch.Tensor) and not each.is_inference()]
    return [tensor for tensor in found if not isinstance(tensor, nn.Parameter)]


def _content(tensor: torch.Tensor) -> Restorer:
    content = tensor.detach().clone()

    def restore() -> None:
        # Not by the tensor's version: batch statistics are written without a trace in it.
        if not _is_same(tensor, content):
            with torch.no_grad():
                tensor.copy_(content)

    return restore


def _is_same(tensor: torch.Tensor, content: torch.Tensor) -> bool:
    if tensor.shape != content.shape:
        return False
    return bool(((tensor == content) | (tensor.isnan() & content.isnan())).all())


def stand_in(
    model: nn.Module, loss: Loss, watched: Sequence[nn.Module], *, training: bool
) -> dict[int, nn.Parameter]:
    """Replace all tensors, return stand-ins by id; `watched` weights get a gradient. See `untouched`."""
    chosen = {id(weight) for module in watched for weight in module.parameters()}
    stand_ins: dict[int, nn.Parameter] = {}
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


def _stand_in(module: nn.Module, stand_ins: dict[int, nn.Parameter], chosen: set[int]) -> None:
    for name, weight in module._parameters.items():
        if weight is not None:
            if id(weight) not in stand_ins:
                needed = weight.requires_grad or (id(weight) in chosen and weight.is_floating_point())
                stand_ins[id(weight)] = nn.Parameter(ordinary(weight.detach()), requires_grad=needed)
            module._parameters[name] = stand_ins[id(weight)]
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = buffer.detach().clone()
