"""Numbers and texts about weights and arrays."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

import throughtime as tt
from throughtime._arguments import rules
from throughtime._errors import ArgumentError

from .arguments import refuse
from .fetching import get_weights
from .finding import EVERY, layers_of

Function = Callable[[Any], Any]


def weights_norm(
    model: Any,
    _id: Any = EVERY,
    *,
    layer: Any = None,
    norm_fn: Function | tuple[Function, Function] = (np.sqrt, np.square),
    omit_names: str | Collection[str] | None = None,
    **options: Any,
) -> dict[str, float]:
    """Return the norm of each weight by its name. New code: any statistic of `tt.weights(model, layer)`.

    `norm_fn` is a pair (outer, inner) for outer(Σ inner(w)), or one function f for Σ f(w); by default L2.
    """
    refuse("weights_norm", options)
    outer, inner = norm_fn if isinstance(norm_fn, tuple) and len(norm_fn) == 2 else (float, norm_fn)
    if not (callable(outer) and callable(inner)):
        raise ArgumentError(f"norm_fn={norm_fn!r}: expected a function, or a pair (outer, inner).")
    given = _id if layer is None else None
    weights = get_weights(model, given, layer=layer, omit_names=omit_names, as_dict=True)
    return {name: float(outer(np.sum(inner(np.asarray(array))))) for name, array in weights.items()}


def get_weight_penalties(model: Any) -> dict[str, float]:
    """Return what regularisers add to the loss, by layer and weight. New code: `tt.summary(model)`."""
    layers_of(model, EVERY)
    table = tt.summary(model, layers="all").to_dataframe().dropna(subset="penalty")
    return {f"{row.layer}/{row.weight}": float(row.penalty) for row in table.itertuples()}


def weight_loss(model: Any) -> float:
    """Return the sum of all weight penalties. New code: the column `penalty` of `tt.summary(model)`."""
    return sum(get_weight_penalties(model).values())


def rnn_summary(model: Any, _id: Any = None, *, layer: Any = None, **options: Any) -> None:
    """Print gates, directions and weights of recurrent layers. New code: `print(tt.summary(model))`."""
    refuse("rnn_summary", options)
    is_open = _id is None and layer is None
    found = layers_of(model, EVERY if is_open else _id, layer)
    print(tt.summary(model, layers="recurrent" if is_open else found))  # noqa: T201 - what it is for


def detect_nans(data: Any, include_inf: bool = True) -> str | None:
    """Write the shares of NaN and Inf, or None. New code: `tt.diagnostics.first_nonfinite(tree)`."""
    values = rules.array()("data", data)
    counts = {"NaN": np.isnan(values), **({"Inf": np.isinf(values)} if include_inf else {})}
    shares = {name: count.sum() / max(values.size, 1) for name, count in counts.items()}
    return ", ".join(f"{100 * share:.3g}% {name}" for name, share in shares.items() if share) or None
