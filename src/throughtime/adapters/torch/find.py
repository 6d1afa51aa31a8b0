"""Names every layer inside a torch module by a path; touches no tensor.

A wrapper that computes nothing itself (`torch.compile`, DistributedDataParallel) has no
name in a path.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils import parametrize

from throughtime._errors import UnbuiltModelError, UnsupportedModelError
from throughtime.adapters.records import escape, to_snake_case
from throughtime.adapters.selection import Entry, Selection

from .calls import names_of

_PARALLEL = (DistributedDataParallel, DataParallel)
UNSEEN = (
    " A custom module counts as recurrent if its forward is called again with a floating tensor that it "
    "returned. A state kept in an attribute, a loop written out in the model, and steps of another method "
    "are not seen: tt.mark(h, 'memory') in the loop shows h and its gradient. Pass a complex state as "
    "torch.view_as_real(h)."
)
_PARTS = "parametrizations"  # torch's own child, whose result is the layer's weight


@dataclass(frozen=True)
class Found(Entry):
    """A module; `inner` for one of the layers inside an `nn.LSTM`."""

    layer: nn.Module
    inner: int | None = None


def is_recurrent(module: nn.Module) -> bool:
    """Whether a module is an nn.RNN, LSTM, GRU, one of their cells, or derived from one."""
    return isinstance(module, (nn.RNNBase, nn.RNNCellBase))


def class_name(module: nn.Module) -> str:
    """Name a module's class, below the one that a parametrization makes."""
    kind = type(module)
    return kind.__bases__[0].__name__ if parametrize.is_parametrized(module) else kind.__name__


def unwrapped(module: nn.Module) -> nn.Module:
    """Take off what only wraps a module: a compiled model and a parallel one compute what it computes."""
    while True:
        # Not by class: that of a compiled module lives in a library that takes seconds to import.
        inner = dict(getattr(module, "_modules", {}).items()).get("_orig_mod")
        if inner is None and isinstance(module, _PARALLEL):
            inner = module.module
        if inner is None:
            return module
        module = inner


def checked(model: object) -> nn.Module:
    """Unwrap a model; refuse one that is no module, is scripted, or has weights without values."""
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(f"Expected a torch.nn.Module, got {type(model).__name__}.")
    model = unwrapped(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedModelError(
            "The model is a TorchScript module: its layers run inside a compiled graph and cannot be "
            "captured. Pass the Python module that it was scripted or traced from; "
            "load_state_dict(scripted.state_dict()) loads the weights of a saved one."
        )
    lazy = [name for name, weight in model.named_parameters() if nn.parameter.is_lazy(weight)]
    if lazy:
        raise UnbuiltModelError(
            f"{', '.join(lazy)} of the model have no shape yet: call the model once on a batch, model(x), "
            "and capture then."
        )
    meta = [name for name, weight in model.named_parameters() if weight.is_meta]
    if meta:
        raise UnbuiltModelError(
            f"{', '.join(meta)} of the model are on the meta device and have no values: move the model with "
            "model.to_empty(device='cpu') and load its weights."
        )
    return model


def walk(model: nn.Module) -> list[Found]:
    """List every layer of an unwrapped model, containers before their content, a layer before its parts."""
    found = list(_walk(model, "", "", {id(model)}))
    if found:
        return found
    name = to_snake_case(class_name(model))
    return list(_with_parts(name, name, model, is_container=False))


def _walk(container: nn.Module, path: str, name: str, seen: set[int]) -> Iterator[Found]:
    for own_name, child in children(container):
        if id(child) in seen:
            continue
        seen.add(id(child))
        place, dotted = f"{path}{escape(own_name)}", f"{name}{own_name}"
        is_container = bool(children(child))
        yield from _with_parts(place, dotted, child, is_container=is_container)
        if is_container:
            yield from _walk(child, f"{place}/", f"{dotted}.", seen)


def _with_parts(path: str, name: str, layer: nn.Module, *, is_container: bool) -> Iterator[Found]:
    kind = class_name(layer)
    yield Found(path, name, layer, kind, is_container, is_recurrent(layer))
    count = layer.num_layers if isinstance(layer, nn.RNNBase) else 1
    for place in range(count if count > 1 else 0):
        yield Found(f"{path}/{place}", f"{name}.{place}", layer, kind, False, True, True, inner=place)


def candidates(model: nn.Module, named: Sequence[Found], *, is_open: bool) -> list[Found]:
    """List the modules that could be recurrences: those asked for.

    With `is_open` also every module that has weights or buffers and holds none of torch's layers.
    """
    asked = {id(entry.layer) for entry in named}
    return [
        entry
        for entry in walk(model)
        if entry.layer is not model
        and not entry.is_recurrent
        and not isinstance(entry.layer, torch.jit.ScriptModule)
        and (id(entry.layer) in asked or (is_open and _may_carry(entry.layer)))
        and _takes_a_state(entry.layer)
    ]


def _may_carry(module: nn.Module) -> bool:
    """Whether a module is more than a helper, as for a sum, and its gates are not torch's own to show."""
    has_tensors = any(True for _ in (*module.parameters(), *module.buffers()))
    return has_tensors and not any(map(is_recurrent, module.modules()))


def _takes_a_state(module: nn.Module) -> bool:
    """Whether a module can take a state: beside an input, or alone, as none of torch's own layers does."""
    names = names_of(module.forward)
    is_torchs = type(module).__module__.startswith("torch.nn.") and not isinstance(module, nn.Sequential)
    return len(names) > int(is_torchs)


def children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Name a module's children, unwrapped."""
    if isinstance(module, torch.jit.ScriptModule) or is_recurrent(module):
        return []
    named = module.named_children()
    return [(name, unwrapped(child)) for name, child in named if name != _PARTS]


def selection(model: nn.Module) -> Selection[Found]:
    """Prepare the search in an unwrapped model; an int counts `model.children()`."""
    indexed = [child for _, child in children(model)] or [model]
    scripted = any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())
    hint = " Layers inside a TorchScript module cannot be captured." if scripted else ""
    # A recurrence, or a tensor that tt.mark names, shows when the model runs.
    return Selection(walk(model), indexed, nn.Module, hint, may_be_found=True)
