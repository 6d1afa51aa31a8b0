"""Names the loops of a program: by the module whose weights they use, a named scope, or their function."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from throughtime.adapters.records import escape
from throughtime.adapters.selection import Entry, Selection

from . import weights
from .loop import Loop, marked
from .program import Program, Value, places_of_carries

_HINT = (
    " A JAX program's layers are its loops: jax.lax.scan with a floating carry that has a sample axis. A "
    "Python loop is unrolled and shows none, and jax.lax.associative_scan is no loop."
)
_REFUSED = (
    "JAX cannot differentiate a while_loop in reverse: {lines}. Write it as jax.lax.scan, or as "
    "fori_loop with bounds that are Python numbers; a scan may skip steps with jax.lax.cond."
)
_TRANSFORM = re.compile(r"^(?:\w+\()+(.*?)\)+$")


@dataclass(frozen=True)
class Found(Entry):
    """A loop."""

    layer: Loop
    is_recurrent: bool = True
    weights: tuple[int, ...] = ()  # numbers of its parameters
    cell: tuple[int, ...] = ()  # of those among them that are a known cell's
    names: Mapping[int, str] = field(default_factory=dict)  # of each, from the layer on
    backward: Found | None = None  # the other half of a layer that reads in both directions

    @property
    def halves(self) -> tuple[Found, ...]:
        """The loop, or both of them."""
        return (self,) if self.backward is None else (self, self.backward)


def entries(
    program: Program, loops: Sequence[Loop], parameters: int, others: int, paths: Sequence[tuple[str, ...]]
) -> list[Found]:
    """Name every loop, of a program whose inputs are trained arrays, other arrays, and the batch."""
    origins = _origins(program)
    found: list[Found] = []
    for loop in loops:
        reached = [origins.get(value, frozenset()) for value in _given(loop) if isinstance(value, int)]
        own = [one for one in reached if all(number < parameters + others for number in one)]
        numbers = sorted({number for one in own for number in one if number < parameters})
        place, cell = _place(loop.kind, {number: paths[number] for number in numbers})
        path = _path(loop, place)
        count = sum(one.path.partition("@")[0] == path for one in found)
        path = path if not count else f"{path}@{count + 1}"
        names = {n: ".".join(_below(paths[n], place)) for n in numbers}
        name = path.replace("/", ".")
        found.append(Found(path, name, loop, _function(loop), weights=tuple(numbers), cell=cell, names=names))
    return _paired(found)


def _given(loop: Loop) -> list[Value]:
    """List what a layer is given once: of one cell among several, what its gates and its states use."""
    consts, initial, _ = loop.parts(loop.op.inputs)
    if loop.only is None:
        return [*consts, *initial]
    used = loop.sources(loop.only)
    keys = loop.parts(loop.body.inputs)[0]
    own = [value for value, key in zip(consts, keys, strict=True) if key in used]
    return own + [initial[place] for place in loop.only.states]


def _paired(found: Sequence[Found]) -> list[Found]:
    """Join each loop with the one after it that is its other half, by their names and shapes."""
    waiting, joined = list(found), []
    while waiting:
        first = waiting.pop(0)
        other = next((one for one in waiting if _are_halves(first, one)), None)
        if other is not None:
            waiting.remove(other)
            first, other = sorted((first, other), key=lambda one: bool(one.layer.runs_backward))
            path = first.path.rpartition("/")[0] or "bidirectional"
            first = replace(first, path=path, name=path.replace("/", "."), backward=other)
        joined.append(first)
    return joined


def _are_halves(first: Found, second: Found) -> bool:
    """Whether two loops are `forward…` and `backward…` of one module, alike but for their direction."""
    one, other = first.layer, second.layer
    places = [each.path.rpartition("/") for each in (first, second)]
    names = sorted(name for _, _, name in places)
    is_pair = names[0].startswith("backward") and names[1].startswith("forward")
    is_pair = is_pair and names[0][8:] == names[1][7:] and places[0][0] == places[1][0]
    is_pair = is_pair and one.outer is other.outer
    return is_pair and one.runs_backward != other.runs_backward and _shape(one) == _shape(other)


def _shape(loop: Loop) -> tuple[object, ...]:
    shapes = tuple((state.name, loop.body.shapes[state.key].shape) for state in loop.shown)
    return loop.kind, loop.length, loop.input is None, shapes


def _below(path: tuple[str, ...], place: tuple[str, ...]) -> tuple[str, ...]:
    return path[len(place) :] if path[: len(place)] == place else path


def selection(found: Sequence[Found], program: Program) -> Selection[Found]:
    """Prepare the search among them; a program that has marks need not have a loop."""
    hint = " ".join(filter(None, (_HINT, refused(program))))
    return Selection(found, [one.layer for one in found], Loop, hint, may_be_found=bool(marked(program)))


def refused(program: Program) -> str:
    """Name the lines of loops that JAX cannot differentiate, and the remedy; empty without such loops."""
    found = (op.line or "an unknown line" for op in program.walk() if op.name == "while")
    lines = ", ".join(dict.fromkeys(found))
    return lines and _REFUSED.format(lines=lines)


def _origins(program: Program) -> Mapping[int, frozenset[int]]:
    """Map every value to the numbers of the inputs that it is computed from."""
    found = {key: frozenset({k}) for k, key in enumerate(program.inputs)}
    for op in program.walk():  # a loop before its body
        given = [
            frozenset[int]() if not isinstance(one, int) else found.get(one, frozenset()) for one in op.inputs
        ]
        every = frozenset[int]().union(*given)
        found.update(dict.fromkeys(op.outputs, every))
        if op.body is not None:
            first, last = places_of_carries(op.params)
            given[first:last] = [every] * (last - first)
            found.update(zip(op.body.inputs, given, strict=True))
    return found


def _place(kind: str, paths: Mapping[int, tuple[str, ...]]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Find the module of a loop: that of a known cell, else what the paths of its weights have in common."""
    inner = sorted({path[:k] for path in paths.values() for k in range(len(path))}, key=len, reverse=True)
    for place in inner:
        own = {n: path[len(place) :] for n, path in paths.items() if path[: len(place)] == place}
        if weights.is_cell(kind, map(".".join, own.values())):
            return place, tuple(own)
    shared: list[str] = []
    for names in zip(*(path[:-1] for path in paths.values()), strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return tuple(shared), ()


def path_of(place: Sequence[str]) -> str:
    """Write the path of a module; the cell of a layer stands for the layer."""
    return "/".join(map(escape, place[:-1] if len(place) > 1 and place[-1] == "cell" else place))


def _path(loop: Loop, place: Sequence[str]) -> str:
    """Name a loop by its module, else by its named scope, else by its function and line."""
    if path := path_of(place):
        return path
    scopes = [_plain(scope) for scope in loop.op.name_stack.split("/")]
    if any(scopes):
        return "/".join(escape(scope) for scope in scopes if scope)
    info = loop.op.params["jaxpr"].jaxpr.debug_info
    line = f":{info.func_lineno}" if getattr(info, "func_lineno", None) else ""
    return escape(f"{_function(loop)}{line}")


def _plain(scope: str) -> str:
    """Take a scope's name out of `vmap(jit(name))`."""
    found = _TRANSFORM.match(scope)
    return found[1] if found else scope


def _function(loop: Loop) -> str:
    info = loop.op.params["jaxpr"].jaxpr.debug_info
    return str(getattr(info, "func_name", "") or "scan").replace("<lambda>", "lambda").rpartition(".")[2]
