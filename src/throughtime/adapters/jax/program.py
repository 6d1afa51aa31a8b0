"""A JAX program as a flat list of operations: jit, remat and the like inlined, scans with their bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from jax.extend.core import Literal

if TYPE_CHECKING:
    from jax import Array
    from jax.core import ShapedArray
    from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var

_INLINED = frozenset({"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"})
_CHECKPOINTS = frozenset({"remat", "remat2", "checkpoint"})
_CUSTOM = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"})
_JAXPRS = ("jaxpr", "call_jaxpr", "fun_jaxpr")

Value = int | Literal  # the key of a value, or a constant
Params = Mapping[str, Any]  # of a primitive, each with its own


@dataclass(frozen=True, eq=False)
class Op:
    """One equation; `body` is what a scan repeats, `has_custom_rule` marks one within a custom rule."""

    eqn: JaxprEqn | None  # None for a value that passes under a new key
    inputs: tuple[Value, ...]
    outputs: tuple[int, ...]
    body: Program | None = None
    has_custom_rule: bool = False

    @property
    def name(self) -> str:
        """Name of the primitive."""
        return "carried" if self.eqn is None else str(self.eqn.primitive.name)

    @property
    def params(self) -> Params:
        """Parameters of the primitive."""
        return {} if self.eqn is None else self.eqn.params

    @property
    def name_stack(self) -> str:
        """Named scopes and transformations around it, from the outside in."""
        return "" if self.eqn is None else str(self.eqn.source_info.name_stack)

    @property
    def line(self) -> str:
        """Where the caller wrote it, `model.py:12 in decode`; empty if unknown."""
        return line_of(getattr(self.eqn, "source_info", None))


@dataclass(eq=False)
class Program:
    """Operations in order, between keys of values."""

    ops: list[Op] = field(default_factory=list)
    consts: dict[int, Array] = field(default_factory=dict)
    inputs: tuple[int, ...] = ()
    outputs: tuple[Value, ...] = ()
    shapes: dict[Value, ShapedArray] = field(default_factory=dict)  # of every value
    checkpoint: Params | None = None  # params of a remat whose content is inlined

    def shape_of(self, value: Value) -> ShapedArray:
        """Return shape and dtype of a value."""
        return self.shapes[value] if isinstance(value, int) else cast("ShapedArray", value.aval)

    def walk(self) -> Iterator[Op]:
        """Yield every operation, those of loops' bodies included."""
        for op in self.ops:
            yield op
            if op.body is not None:
                yield from op.body.walk()


def flat(closed: ClosedJaxpr) -> Program:
    """Flatten a closed jaxpr. Two traces of one model get the same keys."""
    return _Flattening().program(closed)


class _Flattening:
    def __init__(self) -> None:
        self._keys = count()

    def program(self, closed: ClosedJaxpr) -> Program:
        jaxpr, program = closed.jaxpr, Program()
        names: dict[Var, Value] = {}
        program.consts = dict(
            zip([self._new(v, names, program) for v in jaxpr.constvars], closed.consts, strict=True)
        )
        program.inputs = tuple(self._new(v, names, program) for v in jaxpr.invars)
        self._inline(jaxpr, names, program)
        program.outputs = tuple(_read(v, names) for v in jaxpr.outvars)
        return program

    def _body(self, params: Params) -> Program:
        """Flatten what a scan repeats; each carry that changes gets a key that no other value has."""
        program, (first, last) = self.program(params["jaxpr"]), places_of_carries(params)
        outputs, taken = list(program.outputs), set(program.inputs)
        for place, given in enumerate(program.inputs[first:last]):
            value = outputs[place]
            if not isinstance(value, int):
                continue
            if value != given and value in taken:
                outputs[place] = key = next(self._keys)
                program.shapes[key] = program.shapes[value]
                program.ops.append(Op(None, (value,), (key,)))
                value = key
            taken.add(value)
        program.outputs = tuple(outputs)
        return program

    def _new(self, variable: Var, names: dict[Var, Value], program: Program) -> int:
        key = names[variable] = next(self._keys)
        program.shapes[key] = cast("ShapedArray", variable.aval)
        return key

    def _inline(
        self, jaxpr: Jaxpr, names: dict[Var, Value], program: Program, *, is_custom: bool = False
    ) -> None:
        for eqn in jaxpr.eqns:
            inputs = tuple(_read(v, names) for v in eqn.invars)
            primitive = eqn.primitive.name
            inner = _inner(eqn.params)
            is_rule = primitive in _CUSTOM and inner is not None and _has_loop(inner[0])
            if inner is not None and (primitive in _INLINED or is_rule):
                if primitive in _CHECKPOINTS:
                    program.checkpoint = eqn.params
                inside, consts = inner
                below: dict[Var, Value] = dict(zip(inside.invars, inputs, strict=True))
                for variable, value in zip(inside.constvars, consts, strict=True):
                    program.consts[self._new(variable, below, program)] = value
                self._inline(inside, below, program, is_custom=is_custom or is_rule)
                names.update(zip(eqn.outvars, (_read(v, below) for v in inside.outvars), strict=True))
                continue
            body = self._body(eqn.params) if primitive == "scan" else None
            outputs = tuple(self._new(v, names, program) for v in eqn.outvars)
            program.ops.append(Op(eqn, inputs, outputs, body, is_custom))


def places_of_carries(scan: Params) -> tuple[int, int]:
    """Return the first place of a carry among what enters a scan, and the place after the last one."""
    if "ft_in" in scan:  # JAX 0.12
        consts, carries, _ = (len(list(each)) for each in scan["ft_in"].unpack())
    else:
        consts, carries = scan["num_consts"], scan["num_carry"]
    return int(consts), int(consts + carries)


def _read(variable: Var | Literal, names: dict[Var, Value]) -> Value:
    return variable if isinstance(variable, Literal) else names[variable]


def _inner(params: Params) -> tuple[Jaxpr, Sequence[Array]] | None:
    """Open what an equation calls: its jaxpr, and its constants."""
    found = next((params[name] for name in _JAXPRS if name in params), None)
    return None if found is None else (getattr(found, "jaxpr", found), getattr(found, "consts", ()))


# Operations that take longer than reading their operands.
_LONG = frozenset(
    {
        *("dot_general", "conv_general_dilated", "ragged_dot", "scan", "while", "cond", "sort", "fft"),
        *("cholesky", "lu", "qr", "svd", "eig", "eigh", "triangular_solve", "tridiagonal_solve"),
        *("custom_vjp_call", "custom_vjp_call_jaxpr", "threefry2x32", "random_bits", "pure_callback"),
    }
)


def is_cheap(op: Op) -> bool:
    """Whether an operation may run twice: it takes little time and has no side effects."""
    inner = _inner(op.params)
    eqns = [] if inner is None else inner[0].eqns
    return op.eqn is None or not (
        op.name in _LONG or op.eqn.effects or any(not is_cheap(Op(eqn, (), ())) for eqn in eqns)
    )


def _has_loop(jaxpr: Jaxpr) -> bool:
    inner = (sub[0] for eqn in jaxpr.eqns if (sub := _inner(eqn.params)) is not None)
    return any(eqn.primitive.name == "scan" for eqn in jaxpr.eqns) or any(map(_has_loop, inner))


def evaluate(
    program: Program,
    arguments: Sequence[Array],
    *,
    change: Callable[[int, Array], Array] = lambda _, value: value,
    run: Callable[[Op, list[Array]], Sequence[Array]] | None = None,
    consts: Mapping[int, Array] | None = None,
) -> Callable[[Value], Array]:
    """Compute a program; return what reads its values.

    Each operation is computed by `run`, by default as it is; each value passes through `change`.
    """
    values = dict(program.consts if consts is None else consts)
    values.update(zip(program.inputs, arguments, strict=True))

    def read(value: Value) -> Array:
        return cast("Array", value.val) if isinstance(value, Literal) else values[value]

    for op in program.ops:
        results = (run or bind)(op, [read(value) for value in op.inputs])
        for key, result in zip(op.outputs, results, strict=True):
            values[key] = change(key, result)
    return read


def bind(op: Op, values: list[Array]) -> Sequence[Array]:
    """Compute one operation."""
    if op.eqn is None:
        return values
    primitive = op.eqn.primitive
    found = primitive.get_bind_params(op.eqn.params)
    functions, params = found if isinstance(found, tuple) else ((), found)
    results = primitive.bind(*functions, *values, **params)
    return results if primitive.multiple_results else [results]


_LIBRARIES = ("/jax/", "/flax/", "/equinox/", "/haiku/", "/throughtime/", "/jaxtyping/", "/optax/")


def line_of(source_info: object) -> str:
    """Find the innermost line of the caller's own that an equation came from."""
    traceback = getattr(source_info, "traceback", None)
    for frame in getattr(traceback, "frames", ()):
        place = str(frame.file_name).replace("\\", "/")
        is_ours = "/throughtime/adapters/jax/" in place
        if not is_ours and not any(f"/site-packages{library}" in place for library in _LIBRARIES):
            name = str(frame.function_name).rpartition(".")[2]
            return f"{place.rpartition('/')[2]}:{frame.line_num} in {name}"
    return ""
