"""What a capture needs in memory, added up layer by layer before it runs, against what there is.

An adapter makes a `Need` for each recurrent layer and has the `Budget` check their sum; `_probe` catches
`ExceededError` and tells it, or captures the batch in parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from throughtime._errors import TooLargeError

_NAMED = 4  # quantities that an error names


@dataclass(frozen=True)
class Amount:
    """Bytes for each sample, and bytes whatever the number of samples."""

    each: float = 0.0
    once: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.each + other.each, self.once + other.once)

    def of(self, samples: int) -> float:
        """Bytes for so many samples."""
        return self.each * samples + self.once

    def fitting(self, free: float) -> float:
        """Return the samples for which this fits, infinitely many where they cost nothing."""
        if self.once > free:
            return 0.0
        return (free - self.once) / self.each if self.each else math.inf


NOTHING = Amount()


@dataclass(frozen=True)
class Need:
    """What layers take together.

    Attributes
    ----------
    kept : mapping of str to Amount
        Arrays returned, by quantity.
    passing : Amount
        What the framework holds while the pass runs; all layers at once.
    left : Amount
        What the pass leaves until its layers are solved.
    solving : Amount
        What solving a layer holds beside all that; one layer at a time.
    repeated : Amount
        What a first pass leaves while the framework runs a second one, to compare both.
    """

    kept: Mapping[str, Amount] = field(default_factory=dict)
    passing: Amount = NOTHING
    left: Amount = NOTHING
    solving: Amount = NOTHING
    repeated: Amount = NOTHING

    def __add__(self, other: Need) -> Need:
        names = [*self.kept, *(name for name in other.kept if name not in self.kept)]
        return Need(
            {name: self.kept.get(name, NOTHING) + other.kept.get(name, NOTHING) for name in names},
            self.passing + other.passing,
            self.left + other.left,
            Amount(max(self.solving.each, other.solving.each), max(self.solving.once, other.solving.once)),
            self.repeated + other.repeated,
        )

    @property
    def returned(self) -> Amount:
        """All arrays returned."""
        return sum(self.kept.values(), NOTHING)

    @property
    def phases(self) -> tuple[Amount, Amount]:
        """What is held at once: while passes run, and while their layers are solved."""
        return self.repeated + self.passing, self.left + self.returned + self.solving


class ExceededError(BaseException):
    """More is needed than there is.

    Raised in the middle of a model's call and always caught: as no `Exception`, it passes by whatever
    layers and frameworks do with errors.
    """

    def __init__(self, need: Need, budget: Budget) -> None:
        super().__init__()
        self.need, self.budget = need, budget


@dataclass(frozen=True)
class Budget:
    """What one pass may take.

    Attributes
    ----------
    available : int or None
        Bytes that the caller allows, or that are free; None where that cannot be known, and nothing is
        refused.
    samples : int
        Of the whole batch.
    part : int
        Samples of this pass; fewer than `samples` where the batch is captured in parts, whose arrays are
        joined in arrays for the whole batch.
    is_stated : bool
        The caller has said how much there is.
    """

    available: int | None
    samples: int
    part: int
    is_stated: bool = False

    def check(self, need: Need) -> None:
        """Refuse what does not fit.

        Raises
        ------
        ExceededError
        """
        if self.available is not None and self.needed(need) > self.available:
            raise ExceededError(need, self)

    def needed(self, need: Need) -> float:
        """Most bytes held at once."""
        return self._joined(need, self.part) + max(phase.of(self.part) for phase in need.phases)

    def fitting(self, need: Need) -> int:
        """Largest part of the batch that fits, fewer than all samples; 0 where none does."""
        assert self.available is not None
        free = self.available - self._joined(need, 0)
        return int(min(self.samples - 1, *(phase.fitting(free) for phase in need.phases)))

    def alone(self, need: Need) -> int:
        """Most samples that fit as a batch of their own."""
        assert self.available is not None
        return int(min(phase.fitting(self.available) for phase in need.phases))

    def _joined(self, need: Need, part: int) -> float:
        return need.returned.of(self.samples) if part < self.samples else 0.0


def allowed(budget: Any) -> int:
    """Read what a caller allows.

    Raises
    ------
    TooLargeError
        It is no number of bytes.

    Examples
    --------
    >>> allowed(2e9), allowed("2 GB"), allowed("1.5 MiB")
    (2000000000, 2000000000, 1572864)
    """
    amount = as_bytes(budget)
    if amount is None:
        raise TooLargeError(f"budget= is a number of bytes, 2e9, or a text, '2 GB', not {budget!r}.")
    return amount


def as_bytes(budget: Any) -> int | None:
    """Read a number of bytes, or a text with its unit; None for what is neither."""
    if isinstance(budget, str):
        from dask.utils import parse_bytes  # noqa: PLC0415 - loads slowly, and texts are few

        try:
            budget = parse_bytes(budget)
        except ValueError:
            return None
    is_number = isinstance(budget, (int, float, np.number)) and not isinstance(budget, bool)
    return int(budget) if is_number and 0 <= budget < math.inf else None


def too_large(need: Need, budget: Budget, why_whole: str) -> TooLargeError:
    """Tell what would be needed, and what to do.

    Parameters
    ----------
    need : Need
    budget : Budget
    why_whole : str
        Why the batch cannot be captured in parts.
    """
    assert budget.available is not None
    whole = Budget(budget.available, budget.samples, budget.samples)
    fitting = whole.alone(need)
    fewer = f"give at most {_samples(fitting)} at once" if fitting else "not even one sample fits"
    largest = sorted(need.kept, key=lambda name: need.kept[name].of(budget.samples), reverse=True)[:_NAMED]
    costs = ", ".join(f"{name} {told(need.kept[name].of(budget.samples))}" for name in largest)
    return TooLargeError(
        f"The capture needs about {told(whole.needed(need))} for {_samples(budget.samples)}, "
        f"{_there_is(budget)}. Fewer samples: {fewer}. Fewer arrays: name those you look at "
        f"with quantities=; the largest are {costs}. It was not captured in parts: {why_whole}."
    )


def _there_is(budget: Budget) -> str:
    amount = told(budget.available or 0)
    return f"budget= allows {amount}" if budget.is_stated else f"{amount} are free"


def _samples(count: int) -> str:
    return f"{count} sample{'' if count == 1 else 's'}"


def told(amount: float) -> str:
    """Write bytes as a reader wants them.

    Examples
    --------
    >>> told(41_230_000_000), told(2_100_000), told(90_000)
    ('41.2 GB', '2.1 MB', '90.0 kB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if amount >= size / 10:
            return f"{amount / size:.1f} {unit}"
    return f"{amount / 1e3:.1f} kB"
