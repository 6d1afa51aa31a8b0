"""What the networks are asked for: inputs, labels, and the lag that the answer lies at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Task:
    """A source of fresh samples.

    Attributes
    ----------
    draw : callable (samples, generator) -> (x, y)
    steps, features, outputs : int
    loss : "squared" or "entropy"
    every : bool
        A label at every step.
    masked : bool
        The last feature of `x` is 1 at valid steps and 0 where the sample has ended.
    """

    draw: Callable[[int, torch.Generator], Batch]
    steps: int
    features: int = 2
    outputs: int = 1
    loss: str = "squared"
    every: bool = False
    masked: bool = False


def _noise(samples: int, steps: int, features: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(samples, steps, features, generator=generator)


def first(steps: int, *, positive: bool = False) -> Task:
    """The first input of the sequence."""

    def draw(samples, generator):
        x = _noise(samples, steps, 2, generator)
        x = x.abs() if positive else x
        return x, x[:, 0, :1]

    return Task(draw, steps)


def marked(steps: int) -> Task:
    """The first input; the second feature is 1 there and 0 later."""

    def draw(samples, generator):
        x = _noise(samples, steps, 2, generator)
        x[:, :, 1] = torch.eye(steps)[0]
        return x, torch.tanh(torch.tanh(x[:, 0, :1]))

    return Task(draw, steps)


def sign(steps: int) -> Task:
    """The sign of the first input, as a class."""

    def draw(samples, generator):
        x = _noise(samples, steps, 2, generator)
        return x, (x[:, 0, 0] > 0).long()

    return Task(draw, steps, outputs=2, loss="entropy")


def last(steps: int) -> Task:
    """The last input."""

    def draw(samples, generator):
        x = _noise(samples, steps, 2, generator)
        return x, x[:, -1, :1]

    return Task(draw, steps)


def average(steps: int, *, positive: bool = False) -> Task:
    """The mean of all inputs, scaled to a variance of 1."""

    def draw(samples, generator):
        x = _noise(samples, steps, 2, generator)
        x = x.abs() if positive else x
        return x, x[:, :, :1].mean(1) * steps**0.5

    return Task(draw, steps)


def unrelated(steps: int) -> Task:
    """Noise that no input tells anything about."""

    def draw(samples, generator):
        return _noise(samples, steps, 2, generator), _noise(samples, 1, 1, generator)[:, 0]

    return Task(draw, steps)


def delayed(steps: int, delay: int, *, positive: bool = False) -> Task:
    """At every step the input some steps before."""

    def draw(samples, generator):
        x = _noise(samples, steps, 2, generator)
        x = x.abs() if positive else x
        y = torch.zeros(samples, steps, 1)
        y[:, delay:] = x[:, : steps - delay, :1]
        return x, y

    return Task(draw, steps, every=True)


def lagged(steps: int, lag: int) -> Task:
    """The input some steps before the last; all inputs are positive."""

    def draw(samples, generator):
        x = _noise(samples, steps, 2, generator).abs()
        return x, x[:, steps - 1 - lag, :1]

    return Task(draw, steps)


def padded(steps: int, what: str) -> Task:
    """The first or the last input of sequences of three lengths."""

    def draw(samples, generator):
        x = _noise(samples, steps, 3, generator)
        lengths = steps - 4 * torch.randint(0, 3, (samples,), generator=generator)
        valid = (torch.arange(steps) < lengths[:, None]).float()
        x[:, :, 2] = 1.0
        at = torch.zeros_like(lengths) if what == "first" else lengths - 1
        return x * valid[:, :, None], x[torch.arange(samples), at, :1]

    return Task(draw, steps, features=3, masked=True)
