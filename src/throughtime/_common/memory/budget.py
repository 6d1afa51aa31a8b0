"""Estimates the memory of a capture layer by layer before it runs, and compares it with what is available.

An adapter makes a `Need` for each recurrent layer, and `Budget` checks their sum. `_capture.probe` catches
`ExceededError`, and captures the batch in parts or raises `TooLargeError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from rich.filesize import decimal

from throughtime._errors import TooLargeError

_NAMED = 4  # number of quantities in an error message


class Amount(NamedTuple):
    """Bytes for each sample, and bytes that do not depend on the number of samples."""

    each: float = 0.0
    once: float = 0.0

    def __add__(self, other: Amount) -> Amount:  # type: ignore[override]
        return Amount(self.each + other.each, self.once + other.once)

    def of(self, samples: int) -> float:
        return self.each * samples + self.once

    def fitting(self, free: float) -> float:
        """Return the number of samples that fit; infinite if a sample takes no memory."""
        if self.once > free:
            return 0.0
        return (free - self.once) / self.each if self.each else math.inf


NOTHING = Amount()


@dataclass(frozen=True)
class Need:
    """Memory that layers need together.

    `kept` has the returned arrays by quantity. `passing` is memory of the framework during the pass, all
    layers at once, and `left` what remains of it until its layers are solved. `solving` is added while one
    layer is solved.
    """

    kept: Mapping[str, Amount] = field(default_factory=dict)
    passing: Amount = NOTHING
    left: Amount = NOTHING
    solving: Amount = NOTHING

    def __add__(self, other: Need) -> Need:
        kept = {**self.kept, **other.kept}
        kept |= {name: self.kept[name] + other.kept[name] for name in self.kept.keys() & other.kept.keys()}
        return Need(
            kept,
            self.passing + other.passing,
            self.left + other.left,
            Amount(max(self.solving.each, other.solving.each), max(self.solving.once, other.solving.once)),
        )

    @property
    def returned(self) -> Amount:
        return Amount(
            sum(one.each for one in self.kept.values()), sum(one.once for one in self.kept.values())
        )

    @property
    def phases(self) -> tuple[Amount, Amount]:
        """Memory while passes run, and while their layers are solved."""
        return self.passing, self.left + self.returned + self.solving


class ExceededError(BaseException):
    """The capture needs more memory than is available.

    It is raised inside a model's call and always caught by the probe. It is not an `Exception`, so that
    layers and frameworks do not catch it.
    """

    def __init__(self, need: Need, budget: Budget) -> None:
        super().__init__()
        self.need, self.budget = need, budget


@dataclass(frozen=True)
class Budget:
    """Memory that one pass over `part` of all `samples` may take, in bytes.

    `available` is what the caller allows (`is_stated`) or what is free; None if unknown, so that nothing is
    refused. Parts of a batch are copied into arrays for the whole batch.
    """

    available: int | None
    samples: int
    part: int
    is_stated: bool = False

    def check(self, need: Need) -> None:
        """Raise ExceededError if the estimate is above the available memory."""
        if self.available is not None and self.needed(need) > self.available:
            raise ExceededError(need, self)

    def needed(self, need: Need) -> float:
        """Peak of the estimate, in bytes."""
        return self._joined(need, self.part) + max(phase.of(self.part) for phase in need.phases)

    def fitting(self, need: Need) -> int:
        """Largest part of the batch that fits, always fewer than all samples; 0 if no sample fits."""
        assert self.available is not None
        free = self.available - self._joined(need, 0)
        return int(min(self.samples - 1, *(phase.fitting(free) for phase in need.phases)))

    def alone(self, need: Need) -> int:
        """Largest number of samples that fit as a separate batch."""
        assert self.available is not None
        return int(min(phase.fitting(self.available) for phase in need.phases))

    def _joined(self, need: Need, part: int) -> float:
        return need.returned.of(self.samples) if part < self.samples else 0.0


def allowed(budget: Any) -> int:
    """Convert `budget=` into a number of bytes.

    >>> allowed(2e9), allowed("2 GB"), allowed("1.5 MiB")
    (2000000000, 2000000000, 1572864)
    """
    amount = as_bytes(budget)
    if amount is None:
        raise TooLargeError(f"budget= is a number of bytes, such as 2e9 or '2 GB', not {budget!r}.")
    return amount


def as_bytes(budget: Any) -> int | None:
    """Convert a number, or a text with a unit, into bytes; None if the value is neither."""
    if isinstance(budget, str):
        from dask.utils import parse_bytes  # noqa: PLC0415 - slow to import, and a text is rare

        try:
            budget = parse_bytes(budget)
        except ValueError:
            return None
    is_number = isinstance(budget, (int, float, np.number)) and not isinstance(budget, bool)
    return int(budget) if is_number and 0 <= budget < math.inf else None


def too_large(need: Need, budget: Budget, why_whole: str) -> TooLargeError:
    """Return an error with the estimate, why the batch cannot be captured in parts, and the remedies."""
    assert budget.available is not None
    whole = Budget(budget.available, budget.samples, budget.samples)
    fitting = whole.alone(need)
    fewer = f"Pass at most {_samples(fitting)} at once, or" if fitting else "Not even one sample fits:"
    largest = sorted(need.kept, key=lambda name: need.kept[name].of(budget.samples), reverse=True)[:_NAMED]
    costs = ", ".join(f"{name} {decimal(round(need.kept[name].of(budget.samples)))}" for name in largest)
    amount = decimal(round(budget.available))
    limit = f"budget= allows {amount}" if budget.is_stated else f"{amount} are free"
    return TooLargeError(
        f"The capture needs about {decimal(round(whole.needed(need)))} for {_samples(budget.samples)}; "
        f"{limit}. {fewer} request fewer arrays with quantities=; the largest are {costs}. "
        f"The batch was not split, because {why_whole}."
    )


def _samples(count: int) -> str:
    return f"{count} sample{'' if count == 1 else 's'}"
