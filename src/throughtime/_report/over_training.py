"""Reach and horizon over training: a sparkline for each layer, from the records of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from throughtime.diagnosis.results import NOT_MEASURED
from throughtime.diagnosis.training import History
from throughtime.diagnosis.words import number, size
from throughtime.diagnostics.thresholds import REACHES

WIDTH, HEIGHT, MARGIN = 160.0, 34.0, 3.0  # of a sparkline, in pixels


@dataclass(frozen=True)
class Spark:
    """A curve without axes: its name, points, height of the threshold, and ends in words."""

    name: str
    points: tuple[tuple[float, float], ...]
    threshold: float | None
    words: str


def sparks(history: History) -> tuple[Spark, ...]:
    """Draw the loss, and the reach of each layer at the judged lag on a logarithmic scale."""
    steps = [record.step for record in history.records]
    losses = [record.loss for record in history.records]
    found = [_spark("Loss", steps, losses, None, number)]
    for path in dict.fromkeys(path for record in history.records for path in record.layers):
        ratios, horizons = [], []
        for record in history.records:
            layer = record.layers.get(path)
            ratios.append(math.nan if layer is None else layer.reach.value)
            if layer is not None and layer.horizon != NOT_MEASURED:
                horizons.append(layer.horizon)
        logs = [math.log10(each) if each > 0 else math.nan for each in ratios]
        name = f"Reach of {path} at lag {history.lag}"
        one = _spark(name, steps, logs, math.log10(REACHES), lambda log: size(10**log))
        words = f"{one.words}; horizon {horizons[0]} → {horizons[-1]} steps" if horizons else one.words
        found.append(Spark(one.name, one.points, one.threshold, words))
    return tuple(each for each in found if len(each.points) > 1)


def _spark(
    name: str, steps: Sequence[int], values: Sequence[float], threshold: float | None, write: object
) -> Spark:
    known = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
    if not known:
        return Spark(name, (), None, "")
    heights = [value for _, value in known] + ([] if threshold is None else [threshold])
    low, high = min(heights), max(heights)
    first, last = known[0][0], known[-1][0]

    def up(value: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * ((value - low) / (high - low) if high > low else 0.5)

    across = (WIDTH - 2 * MARGIN) / max(1, last - first)
    points = tuple((round(MARGIN + (step - first) * across, 1), round(up(value), 1)) for step, value in known)
    ends = f"{write(known[0][1])} → {write(known[-1][1])}"  # type: ignore[operator]
    return Spark(name, points, None if threshold is None else round(up(threshold), 1), ends)
