"""Losses that are functions (output, y), and how they reduce samples, found by trying a few of them.

A mean over the valid steps, for example, is no mean over samples: captures of parts would not add up.
"""

from collections.abc import Callable
from itertools import islice
from math import isfinite, nan
from typing import Any, Generic, TypeVar

from throughtime._errors import LossError, ThroughTimeError
from throughtime.adapters.records import MEAN, ONE_SAMPLE, SUM, Attribute

UNDONE = "nothing undone"
FAILS = "not known: the loss fails on two samples alone"
TRAINING = "with training=True, dropout and batch statistics depend on the whole batch"
_REDUCTION = "the loss is neither a mean nor a sum over samples ({how})"
_UNLIKE = (
    "the loss is no plain mean or sum over samples: some count for more than others, as where it averages "
    "over valid steps"
)
_TOLERANCE = 1e-4
_TRIED = 4  # samples looked at for two whose losses are finite
Data = TypeVar("Data")  # predictions, labels and weights
Loss = Callable[[Any, Any], Any]  # (output, y), of any framework
Shapes = Callable[[object], str]


def tried_factor(
    loss_of: Callable[..., float], samples: int, refusals: tuple[type[Exception], ...]
) -> tuple[float, str]:
    """Find what the loss multiplies a sample's own gradient by, and name how it reduces samples.

    The loss of two samples together is compared with that of each alone; `loss_of` takes their rows.
    `refusals` are raised, besides ours, by a loss that does not take so few samples.
    """
    if samples == 1:
        return 1.0, ONE_SAMPLE
    refused: tuple[type[Exception], ...] = (ThroughTimeError, *refusals)
    try:
        alone = ((row, loss_of(row)) for row in range(min(samples, _TRIED)))
        # One sample may be spoiled: a NaN is no reason to scale the others differently.
        known = dict(islice((pair for pair in alone if isfinite(pair[1])), 2))
        parts, both = [*known.values()], loss_of(*known) if len(known) > 1 else nan
        if not any((*parts, both)):  # 0 alone shows nothing: the loss of all is compared
            parts, both = [loss_of(row) for row in range(samples)], loss_of(*range(samples))
    except refused as error:
        return 1.0, f"{FAILS} ({type(error).__name__}), {UNDONE}"
    if not isfinite(sum(parts) + both):
        return 1.0, f"not known: the loss is not finite, {UNDONE}"
    for factor, how in ((1.0 / samples, MEAN), (1.0, SUM)):
        if _adds_up(both, parts, how):
            return factor, how
    return (
        1.0,
        f"couples samples: the loss of several is neither the mean nor the sum of their losses, {UNDONE}",
    )


def attributes_of(reduced: tuple[float, str] | None) -> dict[str, Attribute]:
    """Write down how the loss reduces samples, as `tried_factor` found it; None without labels."""
    if reduced is None:
        return {"gradients": "none: the capture was made without labels"}
    return {"loss_reduction": reduced[1]}


def of_loss(how: str) -> str:
    """Return why the loss of the whole is no sum or mean of those of its parts; empty where it is."""
    return "" if how in (MEAN, SUM, ONE_SAMPLE) else _REDUCTION.format(how=how)


class Alike(Generic[Data]):
    """Whether a loss treats the samples of several parts of a batch alike, looked at one after the other.

    It is tried on single samples, and on pairs from different parts. `evaluate` returns the loss of a
    structure of predictions, labels and weights, `rows_of` takes some of its samples, `joined` puts the
    samples of two together. `how` is the loss's reduction, as `tried_factor` names it for the first part.
    """

    def __init__(
        self,
        evaluate: Callable[[Data], float],
        rows_of: Callable[[Data, tuple[int, ...]], Data],
        joined: Callable[[Data, Data], Data],
        how: str,
    ) -> None:
        self._evaluate, self._rows_of, self._joined = evaluate, rows_of, joined
        self._how = how
        self._first: Data | None = None

    def why_not(self, structure: Data, samples: int) -> str:
        """Return why the next part does not add up with those before; empty where it does."""
        singles = [self._rows_of(structure, (row,)) for row in range(samples)]
        alone = [self._evaluate(single) for single in singles]
        if self._first is None:
            self._first = singles[0]
        pair = [self._evaluate(self._first), alone[0]]
        found = [
            (self._evaluate(structure), alone),
            (self._evaluate(self._joined(self._first, singles[0])), pair),
        ]
        # Where something is not finite nothing is known; what is shown is not finite either.
        known = [(together, alone) for together, alone in found if all(map(isfinite, [together, *alone]))]
        return "" if all(_adds_up(*each, self._how) for each in known) else _UNLIKE


def _adds_up(together: float, alone: list[float], how: str) -> bool:
    expected = sum(alone) / (len(alone) if how == MEAN else 1)
    return abs(together - expected) <= _TOLERANCE * max(abs(together), *map(abs, alone), 1e-30)


def check_loss(loss: object, model: str, example: str) -> None:
    """Raise LossError for what is no loss; it names the kind of `model` and an `example` of a loss."""
    if loss is None:
        raise LossError(
            f"A {model} does not contain a loss. Pass loss=, a function (output, y) that returns a scalar or "
            f"one value per sample, such as {example}."
        )
    if not callable(loss):
        raise LossError(f"loss= takes a function (output, y) such as {example}, not {type(loss).__name__}.")


def evaluated(loss: Loss, output: object, y: object, shapes: Shapes) -> Any:
    """Call a loss; LossError if it fails, with the shapes of output and labels."""
    try:
        return loss(output, y)
    except ThroughTimeError:
        raise
    except Exception as error:
        raise LossError(
            f"The loss could not be evaluated: {type(error).__name__}: {error}\n"
            f"It is called as loss(output, y). The output has shape {shapes(output)}, y {shapes(y)}."
        ) from error


def weighted(value: Any, weight: Any) -> Any:
    """Multiply the values of a loss by weights of samples, or of samples and steps; LossError if none fit."""
    if value.ndim == 0 or tuple(value.shape[: weight.ndim]) != tuple(weight.shape):
        raise LossError(
            f"A weight for each sample or step, {tuple(weight.shape)}, does not fit the loss values, "
            f"{tuple(value.shape)}: the first axes must agree. Return one loss value for each sample, or "
            "for each sample and step, as optax's losses do, and torch's with reduction=\"none\"."
        )
    return value * weight.reshape(*weight.shape, *(1,) * (value.ndim - weight.ndim))
