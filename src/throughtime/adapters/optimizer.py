"""How far an optimizer's step goes, read from its attributes: its rate, and what it does to large gradients.

No framework is imported: Keras' optimizers and torch's name these things alike.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# If a weight's gradient keeps its size, one step moves the weight by about the rate; not so in Adadelta.
_BOUNDED = frozenset({"Adam", "AdamW", "Adamax", "NAdam", "Nadam", "RAdam", "RMSprop", "Adagrad", "Lion"})
_PLAIN = frozenset({"SGD", "ASGD", "GradientDescentOptimizer", "MomentumOptimizer"})


@dataclass(frozen=True)
class OptimizerStep:
    """How far one step moves weights, by the size of their gradient.

    The default `rate` is that of plain gradient descent, which is assumed where no optimizer `is_known`. A
    gradient is clipped by its norm, and each of its elements by its value. An optimizer that `rescales` takes
    steps as long for large gradients as for small ones, as Adam does; it adds `epsilon` to the divisor. If it
    `is_bounded`, a step moves no weight by much more than the rate.
    """

    rate: float = 0.01
    norm_limit: float = math.inf
    value_limit: float = math.inf
    rescales: bool = False
    epsilon: float | None = None
    is_known: bool = False
    is_bounded: bool = False

    @property
    def clips(self) -> bool:
        """Whether the optimizer limits its gradients."""
        return min(self.norm_limit, self.value_limit) < math.inf

    def relative(self, gradient_norm: float, weight_norm: float, count: float) -> float:
        """Change of so many weights by one step, times their norm; 0 where gradients are rescaled."""
        if self.rescales:
            return 0.0
        size = min(gradient_norm, self.norm_limit, self.value_limit * math.sqrt(count))
        return self.rate * size / weight_norm if weight_norm > 0 else math.nan


def optimizer_step(optimizer: object) -> OptimizerStep:
    """Read an optimizer of Keras, tf_keras or torch; None, or one without a rate, is plain gradient descent.

    >>> optimizer_step(None).rate
    0.01
    """
    inner = getattr(optimizer, "inner_optimizer", None) or optimizer  # under loss scaling
    group: dict[str, object] = next(iter(getattr(inner, "param_groups", None) or ()), {})  # torch's
    given = group.get("lr", getattr(inner, "learning_rate", None))
    if given is None:
        return OptimizerStep()
    rate = _number(given)
    names = {each.__name__ for each in type(inner).__mro__}
    limits = [_number(getattr(inner, name, None)) for name in ("clipnorm", "global_clipnorm")]
    value_limit = _number(getattr(inner, "clipvalue", None))
    return OptimizerStep(
        rate=OptimizerStep.rate if rate is None else rate,
        norm_limit=min([limit for limit in limits if limit], default=math.inf),
        value_limit=value_limit or math.inf,
        rescales=_PLAIN.isdisjoint(names),
        is_bounded=not _BOUNDED.isdisjoint(names),
        epsilon=_number(group.get("eps", getattr(inner, "epsilon", None))),
        is_known=True,
    )


def left_out(optimizer: object, model: object, paths: Iterable[str]) -> list[str]:
    """List the layers of which a torch optimizer holds no weight; none if it holds no weight of the model."""
    groups: Sequence[dict[str, Any]] = getattr(optimizer, "param_groups", None) or ()
    held = {id(weight) for group in groups for weight in group["params"]}
    modules = dict(getattr(model, "named_modules", dict)()) if held else {}
    ids = {name: {id(weight) for weight in each.parameters()} for name, each in modules.items()}
    if held.isdisjoint(ids.get("", ())):
        return []
    places = {path: path.partition("@")[0].replace("/", ".") for path in paths}
    own = {path: ids.get(place) or ids.get(place.rpartition(".")[0]) for path, place in places.items()}
    return [path for path, weights in own.items() if weights and held.isdisjoint(weights)]


def _number(value: object) -> float | None:
    """Read a number from whatever holds one; None where there is none, as in a graph that has not run."""
    if value is None:
        return None
    try:
        return float(np.asarray(value.numpy() if hasattr(value, "numpy") else value))
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return None
