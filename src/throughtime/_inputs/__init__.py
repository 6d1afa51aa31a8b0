"""Everything that a user passes: `takes` checks the arguments of a public function once, before it runs.

Most rules follow from the annotation or the name of a parameter, so that a new function needs none; only
special rules are passed to `takes`.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar, cast

from throughtime._errors import (
    ArgumentError,
    LayerNotFoundError,
    LossError,
    SchemaError,
    ThroughTimeError,
    TooLargeError,
    UnsupportedModelError,
)
from throughtime._inputs import rules
from throughtime._inputs.documented import complete
from throughtime._inputs.rules import Rule, require, several, whole

Function = TypeVar("Function", bound=Callable[..., Any])


def _layers(value: Any) -> Any:
    shape = getattr(value, "shape", None)
    require(shape is None or shape == ())
    return value if shape is None else operator.index(value)


def _tree(value: Any) -> Any:
    from xarray import Dataset, DataTree  # noqa: PLC0415 - needed only for trees

    require(isinstance(value, DataTree | Dataset))
    return value


def _captured(value: Any) -> Any:
    from xarray import DataArray  # noqa: PLC0415 - as above

    return value if isinstance(value, DataArray) else _tree(value)


def _departures(value: Any) -> str:
    from throughtime._inputs.departures import departures  # noqa: PLC0415 - as above

    return departures(value) if hasattr(value, "dims") else ""


_MAKE = "a capture or one of its layers, as tt.capture(model, x, y) returns it"
layers = Rule(
    _layers,
    "'recurrent', 'all', an index, a name, a path, a layer, a list of those, or a predicate on a layer",
    LayerNotFoundError,
)
loss = rules.where(
    lambda value: callable(value) or isinstance(value, str | dict | list | tuple),
    "a function of labels and output, or a loss of the framework or its name",
    LossError,
)
adapter = rules.where(lambda value: callable(value.Probe), "a module that has a Probe", UnsupportedModelError)
tree = Rule(_tree, _MAKE, SchemaError, explain=_departures)
captured = Rule(_captured, f"{_MAKE}, or a DataArray", SchemaError, explain=_departures)
model_or_tree = Rule(lambda value: value, "a model or a capture", explain=_departures)

_BY_ANNOTATION = {
    "int": whole(),
    "float": rules.number(),
    "bool": rules.flag,
    "bool | str": rules.either(rules.flag, rules.text),
    "str": rules.text,
    "str | os.PathLike[str]": rules.path,
    "Sequence[str]": several(rules.text),
    "Sequence[int]": several(whole()),
    "Iterable[int]": several(whole()),
    "float | Sequence[float]": several(rules.number(), least=1),
    "tuple[float, float]": rules.interval,
    "tuple[str, str]": several(rules.text, pair=True),
    "npt.ArrayLike": rules.array(),
    "Layer": tree,
    "xr.DataTree | xr.Dataset": tree,
    "Captured": captured,
}
_COLORS = ("color", "fill", "edge", "ink", "faint", "paper")
_COUNTS = {"samples", "steps", "units", "features", "batches", "bins", "columns", "resamples"}
_BY_NAME = {
    ("int", "seed"): whole(0),
    **{("int", name): whole(1, 1_000_000) for name in _COUNTS},
    **{("int", name): whole(1) for name in ("n_rows", "max_timesteps")},
    **{("str", name): rules.color for name in _COLORS},
    ("Any", "layers"): layers,
    ("Any", "loss"): loss,
    ("Any", "adapter"): adapter,
    ("Any", "optimizer"): rules.optional(rules.where(bool, "an optimizer of Keras or torch")),
}


def takes(error: type[ThroughTimeError] = ArgumentError, /, **rules: Rule) -> Callable[[Function], Function]:
    """Check the arguments of a function or class by rules, and raise `error` unless a rule has its own.

    The rules of parameters that have none here follow from annotation and name. A default value always
    passes. The docstring gets the type of the result and the errors of the rules, unless it has them.

    >>> @takes(low=rules.number(0))
    ... def double(low: float, times: int = 2) -> float:
    ...     return low * times
    >>> double(1.5)
    3.0
    >>> double(-1.0)
    Traceback (most recent call last):
    throughtime._errors.ArgumentError: low=-1.0: expected a finite number, 0 or more.
    """

    def decorate(function: Function) -> Function:
        if isinstance(function, type):
            function.__init__ = decorate(function.__init__)  # type: ignore[misc]
            complete(function, error, {**usual_rules(inspect.signature(function)), **rules})
            return function
        signature = inspect.signature(function)
        known = {**usual_rules(signature), **rules}
        complete(function, error, known)

        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True  # pytest then shows the line of the caller
            bound = None
            with suppress(TypeError):
                bound = signature.bind(*args, **kwargs)
            if bound is None:  # an argument too many, or one missing: Python raises its own error
                return function(*args, **kwargs)
            for name in filter(bound.arguments.__contains__, known):
                if bound.arguments[name] is not signature.parameters[name].default:
                    bound.arguments[name] = known[name](name, bound.arguments[name], error)
            try:
                return function(*bound.args, **bound.kwargs)
            except Exception as problem:
                explain(problem, known, bound.arguments)
                raise

        return cast("Function", checked)

    return decorate


def explain(problem: Exception, rules: Mapping[str, Rule], arguments: Mapping[str, Any]) -> None:
    """Raise an error of ours if memory, or an argument, explains a problem that no rule has found."""
    if isinstance(problem, (ThroughTimeError, Warning)):  # a warning raised as an error is not changed
        return
    if isinstance(problem, MemoryError):
        raise TooLargeError(f"There is not enough memory: {problem}") from problem
    for name in filter(arguments.__contains__, rules):
        reason = rules[name].explain
        if reason and (words := reason(arguments[name])):
            raise SchemaError(f"{words} It led to {type(problem).__name__}: {problem}") from problem


def usual_rules(signature: inspect.Signature) -> dict[str, Rule]:
    """Return the rules that follow from the annotations and names of parameters.

    >>> def draw(seed: int, title: str | None = None): ...
    >>> {name: rule.expected for name, rule in usual_rules(inspect.signature(draw)).items()}
    {'seed': 'a whole number, 0 or more', 'title': 'a text, or None'}
    """
    found = {}
    for name, parameter in signature.parameters.items():
        annotation = str(parameter.annotation)
        bare = annotation.removesuffix(" | None")
        if rule := _BY_NAME.get((bare, name)) or _BY_ANNOTATION.get(bare):
            found[name] = rule if bare == annotation else rules.optional(rule)
    return found
