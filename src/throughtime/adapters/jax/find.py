"""Names the loops of a program: by the module whose weights they use, a named scope, or their function."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from throughtime.adapters.records import escape
from throughtime.adapters.selection import Selection

from . import both, weights
from .loop import Loop
from .program import Program

_HINT = (
    "; a JAX program's layers are its loops: jax.lax.scan with a floating carry that has a sample axis. A "
    "Python loop is unrolled and shows none, and jax.lax.associative_scan is no loop"
)
_TRANSFORM = re.compile(r"^(?:\w+\()+(.*?)\)+$")


@dataclass(frozen=True)
class Found:
    """A loop as `selection.Entry` describes it.

    Attributes
    ----------
    weights, cell : tuple of int
        Numbers of its parameters, and of those among them that are a known cell's.
    names : dict of int to str
        Of each, from the layer on.
    backward : Found or None
        The other half of a layer that reads in both directions.
    """

    path: str
    name: str
    layer: Any  # a Loop; of a model that is described only, its weights by name
    class_name: str
    weights: tuple[int, ...]
    cell: tuple[int, ...]
    names: Mapping[int, str]
    is_container: bool = False
    is_recurrent: bool = True
    is_part: bool = False
    backward: Found | None = None

    @property
    def halves(self) -> tuple[Found, ...]:
        """The loop, or both of them."""
        return (self,) if self.backward is None else (self, self.backward)


def entries(
    program: Program, loops: Sequence[Loop], parameters: int, others: int, paths: Sequence[tuple[str, ...]]
) -> list[Found]:
    """Name every loop.

    Parameters
    ----------
    parameters, others : int
        How many of the program's inputs come first: the trained arrays, and arrays that are no data.
    paths : where each parameter is in the model
    """
    origins = _origins(program, parameters, others)
    found: list[Found] = []
    for loop in loops:
        values = _given(loop)
        reached = [origins.get(value, _NOTHING) for value in values if isinstance(value, int)]
        numbers = sorted({number for one in reached if not one.has_data for number in one.parameters})
        place, cell = _place(loop.kind, {number: paths[number] for number in numbers})
        path = _path(loop, place)
        count = sum(one.path.partition("@")[0] == path for one in found)
        path = path if not count else f"{path}@{count + 1}"
        names = {n: ".".join(_below(paths[n], place)) for n in numbers}
        name = path.replace("/", ".")
        found.append(Found(path, name, loop, _function(loop), tuple(numbers), cell, names))
    return both.paired(found)


def _given(loop: Loop) -> list[Any]:
    """List what a layer is given once: of one cell among several, what its gates and its states use."""
    consts, initial, _ = loop.parts(loop.op.inputs)
    if loop.only is None:
        return [*consts, *initial]
    used = loop.sources(loop.only)
    keys = loop.parts(loop.body.inputs)[0]
    own = [value for value, key in zip(consts, keys, strict=True) if key in used]
    return own + [initial[place] for place in loop.only.states]


def _below(path: tuple[str, ...], place: tuple[str, ...]) -> tuple[str, ...]:
    return path[len(place) :] if path[: len(place)] == place else path


def selection(found: Sequence[Found], *, has_marks: bool) -> Selection:
    """Prepare the search among them; a program that has marks need not have a loop."""
    return Selection(found, [one.layer for one in found], Loop, _HINT, may_be_found=has_marks)


@dataclass(frozen=True)
class _Origin:
    """What a value is computed from."""

    parameters: frozenset[int] = frozenset()
    has_data: bool = False


_NOTHING = _Origin()


def _origins(program: Program, parameters: int, others: int) -> Mapping[int, _Origin]:
    found = {
        key: _Origin(frozenset({k}) if k < parameters else frozenset(), k >= parameters + others)
        for k, key in enumerate(program.inputs)
    }
    for op in program.ops:
        given = [found.get(value, _NOTHING) for value in op.inputs if isinstance(value, int)]
        origin = _Origin(
            frozenset().union(*(one.parameters for one in given)), any(one.has_data for one in given)
        )
        found.update(dict.fromkeys(op.outputs, origin))
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
    scopes = [_plain(scope) for scope in str(loop.op.eqn.source_info.name_stack).split("/")]
    if any(scopes):
        return "/".join(escape(scope) for scope in scopes if scope)
    info: Any = loop.op.eqn.params["jaxpr"].jaxpr.debug_info
    line = f":{info.func_lineno}" if getattr(info, "func_lineno", None) else ""
    return escape(f"{_function(loop)}{line}")


def _plain(scope: str) -> str:
    """Take a scope's name out of `vmap(jit(name))`."""
    found = _TRANSFORM.match(scope)
    return found[1] if found else scope


def _function(loop: Loop) -> str:
    info: Any = loop.op.eqn.params["jaxpr"].jaxpr.debug_info
    return str(getattr(info, "func_name", "") or "scan").replace("<lambda>", "lambda").rpartition(".")[2]
